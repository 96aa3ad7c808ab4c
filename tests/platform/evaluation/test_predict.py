"""What a cell is evaluated on: statistics of the clips it trains on, and predictions a frame whatever an index is."""

import numpy as np
import pytest

from crossfold.datasets.batches.corruptions import damaged_frames
from crossfold.datasets.store.normalisation import statistics_of
from crossfold.platform.core.cell import Inner
from crossfold.platform.evaluation.predict import Variant, forward_pass, forward_passes, windows_at_once
from crossfold.platform.training.cell_data import Split, open_data, splits


@pytest.mark.parametrize("inner", [None, Inner(index=0, of=2)], ids=["outer", "inner"])
@pytest.mark.parametrize("selection", ["reported", "held_out"])
def test_features_are_normalised_by_the_clips_that_train(synthetic_store, tiny_cell, selection, inner):
    cell = tiny_cell("concat", selection=selection, inner=inner)
    trained = splits(cell, synthetic_store)[0].train
    data = open_data(cell, synthetic_store.path, "cpu")
    for modality in ("audio", "visual"):
        rows = np.concatenate([np.r_[synthetic_store.rows(name)] for name in trained])
        seen = rows[synthetic_store.present(modality)[rows]]
        values = np.asarray(synthetic_store.features(modality, 0)[seen], np.float64)
        for split in (data.training, data.selection, data.reported):
            windows = split.source.windows
            batch = split.source.batch(np.arange(len(windows)))
            raw = np.asarray(synthetic_store.features(modality, 0))[windows.rows]
            shown = synthetic_store.present(modality)[windows.rows] & windows.real
            expected = ((raw - values.mean(0)) / values.std(0)) * shown[..., None]
            np.testing.assert_allclose(batch.x[modality].numpy(), expected, atol=2e-4)


def test_statistics_of_the_whole_fold_are_the_stored_ones(synthetic_store):
    fold = synthetic_store.fold(0)
    stored = synthetic_store.normalisation("audio", 0)
    same = statistics_of(synthetic_store, "audio", 0, tuple(reversed(fold.train)))
    np.testing.assert_array_equal(same.mean, stored.mean)
    fewer = statistics_of(synthetic_store, "audio", 0, fold.train[:2])
    assert (fewer.mean != stored.mean).any()
    assert statistics_of(synthetic_store, "audio", 0, fold.train[:2]) is fewer, "computed once"


@pytest.mark.parametrize("frames", [1, 4])
def test_there_is_a_prediction_for_every_frame(synthetic_store, tiny_cell, frames):
    """Where an index of the window is a clip of frames (A16), its prediction holds for each of them."""
    cell = tiny_cell("ca+dca", clip={"frames": frames}, window=8, hop=4) if frames > 1 else tiny_cell("ca+dca")
    data = open_data(cell, synthetic_store.path, "cpu")
    result = forward_pass(data.new_model(), data, data.reported, gates=True)
    predictions = result.predictions
    assert len(predictions.prediction) == sum(synthetic_store.clip(name).frames for name in data.reported.clips)
    np.testing.assert_array_equal(predictions.valid[:, 0], result.reached & predictions.valid[:, 0])
    assert all(len(weight) == len(predictions.prediction) for weight in predictions.gates.values())
    first = predictions.clip(predictions.clips[0])
    steps = np.diff(predictions.prediction[first, 0][result.reached[first]][: frames * 4])
    if frames > 1:
        assert (steps.reshape(-1)[np.arange(1, len(steps) + 1) % frames != 0] == 0).all()
        assert (steps != 0).any()


@pytest.mark.parametrize(
    ("system", "more"),
    [("rjca+dca", {}), ("unimodal_audio", {}), ("ca", {"clip": {"frames": 4}, "window": 8, "hop": 4})],
    ids=["gates", "one modality", "clips"],
)
def test_passes_in_common_equal_a_pass_for_each_variant(synthetic_store, tiny_cell, monkeypatch, system, more):
    """To the last bit; and but for rounding, however many windows are predicted together."""
    data = open_data(tiny_cell(system, **more), synthetic_store.path, "cpu")
    model, split, clips = data.new_model(), data.reported, data.reported.clips
    damages = [("audio", "noisy", 1.0), ("visual", "missing", 0.5), ("audio", "frozen", 1.0)]
    damaged = [
        (m, damaged_frames(synthetic_store, kind, strength, modality=m, fold=0, clips=clips))
        for m, kind, strength in damages
        if m in model.encoders
    ]
    variants = [Variant(gates=True, maps=clips[:1]), *(Variant(m, frames, gates=True) for m, frames in damaged)]
    frames = split.source.windows.rows.shape[1]
    together = forward_passes(model, data, split, variants)
    alone = [forward_pass(model, data, split, gates=True, maps=clips[:1])] + [
        forward_pass(model, data, Split(clips, split.source.with_frames(m, hurt, hurt.present)), gates=True)
        for m, hurt in damaged
    ]
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_array_equal(ours.predictions.prediction, theirs.predictions.prediction)
        np.testing.assert_array_equal(ours.predictions.valid, theirs.predictions.valid)
        assert ours.predictions.gates.keys() == theirs.predictions.gates.keys()
        for gate, weight in ours.predictions.gates.items():
            np.testing.assert_array_equal(weight, theirs.predictions.gates[gate])
    assert windows_at_once(data.cell.recipe, frames) > data.cell.recipe.batch
    monkeypatch.setattr("crossfold.platform.evaluation.predict.FRAMES", 0)
    assert windows_at_once(data.cell.recipe, frames) == data.cell.recipe.batch
    few = forward_passes(model, data, split, variants)
    for ours, theirs in zip(together, few, strict=True):
        np.testing.assert_allclose(ours.predictions.prediction, theirs.predictions.prediction, atol=1e-6)
    maps, same = (passes[0].predictions.maps[clips[0]].maps for passes in (together, few))
    assert maps.keys() == same.keys()
    for key in maps:
        np.testing.assert_allclose(maps[key], same[key], atol=1e-6)
    assert len({result.predictions.prediction.tobytes() for result in together}) == len(together)


def test_backbones_are_given_no_more_windows_than_in_training(tiny_cell):
    recipe = tiny_cell("concat").recipe
    assert windows_at_once(recipe.model_copy(update={"backbones": {"visual": "any"}}), 10) == recipe.batch
