"""What a cell is evaluated on: statistics of the clips it trains on, and predictions a frame whatever an index is."""

import numpy as np
import pytest

from crossfold.datasets.store.normalisation import statistics_of
from crossfold.platform.core.cell import Inner
from crossfold.platform.evaluation.predict import forward_pass
from crossfold.platform.training.cell_data import open_data, splits


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
