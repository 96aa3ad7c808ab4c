"""Windows of clips: labels, features and padding against a plain reading, and scores that stay at annotation rate."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.batches.source import WindowSource
from crossfold.platform.evaluation.predict import forward_pass
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training.cell_data import batch_spec, open_data, windows_of
from tests.support.factories import make_store

LENGTHS = (40, 23, 17, 40)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Clips whose feature is the frame's number; one target has gaps."""
    clips = []
    for index, length in enumerate(LENGTHS):
        labels = np.stack([np.sin(np.arange(length) / 3), np.cos(np.arange(length) / 5)], axis=1).astype(np.float32)
        labels[5:9, 0] = -5
        features = {m: np.arange(length, dtype=np.float32)[:, None] + 100 * index for m in ("audio", "visual")}
        partition = "validation" if index == 3 else "train"
        clips.append({"name": f"c{index}", "labels": labels, "features": features, "partition": partition})
    return make_store(tmp_path_factory.mktemp("clips") / "stores", clips)


def cell_of(tiny_cell, store, frames, window=4, hop=2, **clip):
    return tiny_cell(
        "concat",
        targets=("valence", "arousal"),
        store=store,
        window=window,
        hop=hop,
        invalid="mask",
        clip={"frames": frames, **clip},
    )


def source_of(cell, store, names):
    return WindowSource(store, windows_of(cell, store, names), batch_spec(cell))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(2, 6),
    st.integers(1, 2),
    st.sampled_from(["mean", "last"]),
    st.sampled_from(["last", "middle", "mean"]),
)
def test_a_batch_equals_a_plain_reading(tiny_cell, store, frames, window, hop, label, feature):
    cell = cell_of(tiny_cell, store, frames, window, hop, label=label, feature=feature)
    names = tuple(f"c{i}" for i in range(4))
    source = source_of(cell, store, names)
    statistics = store.normalisation("audio", 0)
    batch = source.batch(np.arange(len(source)))
    assert batch.x["audio"].shape == (len(source), window, 1)
    for w in range(len(source)):
        rows, real = source.windows.rows[w], source.windows.real[w]
        for index in range(window):
            here = rows[index * frames : (index + 1) * frames][real[index * frames : (index + 1) * frames]]
            assert bool(batch.real[w, index]) == bool(len(here))
            if not len(here):
                assert not batch.x["audio"][w, index].any()
                assert not batch.valid[w, index].any()
                continue
            seen = {"last": here[-1:], "middle": here[(len(here) - 1) // 2 :][:1], "mean": here}[feature]
            x = (store.features("audio", 0)[seen, 0].mean() - statistics.mean[0]) / statistics.std[0]
            assert float(batch.x["audio"][w, index, 0]) == pytest.approx(float(x), abs=1e-5)
            for t in range(2):
                labelled = here[store.valid[here, t]]
                assert bool(batch.valid[w, index, t]) == bool(len(labelled))
                if len(labelled):
                    values = store.labels[labelled, t]
                    expected = values.mean() if label == "mean" else values[-1]
                    assert float(batch.y[w, index, t]) == pytest.approx(float(expected), abs=1e-6)


class Echo(torch.nn.Module):
    """Predicts its input: the number of the frame that stands for a clip."""

    encoders = ("audio",)

    def encode(self, x, mask, seeds=None):
        return x

    def fuse(self, encoded, mask, notes=None):
        return encoded["audio"].repeat(1, 1, 2)


def test_a_prediction_holds_for_all_frames_of_its_clip(tiny_cell, store):
    """Scores are at annotation rate; overlaps average exactly."""
    cell = cell_of(tiny_cell, store, 5, window=2, hop=2)
    data = open_data(cell, store.path, "cpu")
    found = forward_pass(Echo(), data, data.reported).predictions
    statistics = store.normalisation("audio", 0)
    last = np.repeat(np.arange(4, 40, 5), 5) + 300
    expected = (last - statistics.mean[0]) / statistics.std[0]
    np.testing.assert_allclose(found.prediction[:, 0], expected, rtol=1e-5)
    assert len(found.prediction) == LENGTHS[3]
    np.testing.assert_array_equal(found.valid, store.valid[store.rows("c3")])


@pytest.mark.parametrize("system", ["rjca", "concat"])
def test_a_cell_of_clips_runs(new_workspace, tiny_cell, store, system):
    workspace = new_workspace(store.path)
    cell = tiny_cell(
        system, store=store, window=4, hop=2, clip={"frames": 4}, temporal__kind="identity", head__input_dropout=0.5
    )
    outcome = attempt_cell(cell, workspace)
    assert outcome.status == "done", outcome.failure
    assert len(workspace.read(cell.cell_id).predictions.prediction) == LENGTHS[3]


@pytest.mark.parametrize(("invalid", "frames"), [("drop", 36), ("drop_both", 40), ("mask", 40)])
def test_frames_that_lack_labels_are_dropped_as_the_recipe_says(tiny_cell, store, invalid, frames):
    cell = tiny_cell("concat", store=store, window=4, hop=4, invalid=invalid)
    source = source_of(cell, store, ("c3",))
    assert len(np.unique(source.windows.rows[source.windows.real])) == frames
