"""Attention maps that a cell keeps: against loops over windows, frames and cells; what it costs; cells of before."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from crossfold.datasets.corpora.clips import Span
from crossfold.fusion_models.blocks.attention_maps import maps_over_time
from crossfold.platform.evaluation import attention_collector as map_collector
from crossfold.platform.evaluation.predict import forward_pass
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.workspace.attention_maps import ClipMaps, from_arrays, shown_clips, to_arrays
from crossfold.platform.workspace.predictions import read_predictions, write_predictions
from tests.support.factories import make_store

LENGTHS = {"a": 60, "b": 60, "c": 90, "d": 20, "e": 50, "f": 50}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two training clips and four reported ones of several lengths, one of them shorter than a window."""
    rng = np.random.default_rng(0)
    spans = {
        "d": (Span(5, 15, "missing", "audio"), Span(8, 12, "corrupted", "visual")),
        "f": (Span(40, 50, "conflict", "visual"),),
    }
    clips = []
    for name, frames in LENGTHS.items():
        latent = np.cumsum(rng.normal(size=(frames, 2)), axis=0) / 9
        clips.append(
            {
                "name": name,
                "partition": "train" if name in "ab" else "validation",
                "labels": np.tanh(latent),
                "features": {"audio": np.tile(latent, 2), "visual": rng.normal(size=(frames, 3))},
                "spans": spans.get(name, ()),
            }
        )
    return make_store(tmp_path_factory.mktemp("maps") / "stores", clips)


@pytest.fixture(scope="module")
def passed(store, tiny_cell):
    """(system) -> data, model and the predictions of a pass with maps of some clips, without training."""

    def make(system, clips=("c", "d"), window=24, hop=16, **recipe):
        cell = tiny_cell(system, store=store, window=window, hop=hop, **recipe)
        data = open_data(cell, store.path, "cpu")
        torch.manual_seed(0)
        model = data.new_model().eval()
        return data, model, forward_pass(model, data, data.reported, gates=True, maps=clips).predictions

    return make


def by_hand(data, model, store, clip, kept):
    """Every pair of real frames of every window, one by one, into the cell where both stand."""
    source, rows = data.reported.source, store.rows(clip)
    batch = source.batch(np.arange(len(source)))
    notes = {}
    with torch.no_grad():
        model(batch.x, batch.real, notes)
    length, size = kept.stop - kept.start, len(next(iter(kept.maps.values())))
    sums, counts = {}, {}
    for each in maps_over_time(notes):
        key = (each.kind, each.query, each.key)
        total = sums.setdefault(key, np.zeros((size, size)))
        count = counts.setdefault(key, np.zeros((size, size)))
        indices = each.values.shape[1]
        step = source.windows.rows.shape[1] // indices
        for w, (places, real) in enumerate(zip(source.windows.rows, source.windows.real, strict=True)):
            if not rows.start <= places[0] < rows.stop:
                continue
            for q in range(indices):
                for k in range(indices):
                    at = [places[i * step] - rows.start - kept.start for i in (q, k)]
                    if real[q * step] and real[k * step] and all(0 <= place < length for place in at):
                        cell = tuple(place * size // length for place in at)
                        total[cell] += float(each.values[w, q, k])
                        count[cell] += 1
    with np.errstate(invalid="ignore"):
        return {key: np.where(counts[key] > 0, sums[key] / counts[key], np.nan) for key in sums}


@pytest.mark.parametrize(
    ("system", "recipe"), [("ca+dca", {}), ("rjca", {}), ("jca", {"clip": {"frames": 3}, "window": 8, "hop": 4})]
)
def test_a_kept_map_is_the_mean_over_frames_windows_and_iterations(passed, store, monkeypatch, system, recipe):
    monkeypatch.setattr(map_collector, "MOST_CELLS", 11)
    data, model, predictions = passed(system, **recipe)
    assert list(predictions.maps) == ["c", "d"]
    for clip in ("c", "d"):
        kept = predictions.maps[clip]
        assert (kept.start, kept.stop) == (0, LENGTHS[clip])
        expected = by_hand(data, model, store, clip, kept)
        assert kept.maps.keys() == expected.keys()
        for key, values in kept.maps.items():
            np.testing.assert_allclose(values, expected[key], rtol=1e-4, atol=1e-7)
    assert np.isnan(next(iter(predictions.maps["c"].maps.values()))).any(), "frames that no window holds together"


def test_asking_for_maps_changes_no_prediction_and_no_gate(passed):
    *_, without = passed("ca+dca", clips=())
    *_, with_maps = passed("ca+dca")
    np.testing.assert_array_equal(without.prediction, with_maps.prediction)
    assert without.gates.keys() == with_maps.gates.keys()
    assert all((without.gates[key] == with_maps.gates[key]).all() for key in without.gates)
    assert without.maps == {}


def test_systems_without_maps_over_time_keep_none(passed):
    *_, predictions = passed("concat")
    assert {clip: kept.maps for clip, kept in predictions.maps.items()} == {"c": {}, "d": {}}
    *_, predictions = passed("leader_follower")
    kept = predictions.maps["c"].maps
    assert {values.shape for values in kept.values()} == {(64,)}
    both = kept["modal_attention", "audio", "audio"] + kept["modal_attention", "audio", "visual"]
    np.testing.assert_allclose(both, 1, atol=1e-5)


def test_of_a_long_clip_the_stretch_with_the_most_damage_is_kept(passed, monkeypatch):
    monkeypatch.setattr(map_collector, "WINDOWS", 2)
    *_, predictions = passed("ca", clips=("e", "f"), window=12, hop=6)
    assert {clip: (kept.start, kept.stop) for clip, kept in predictions.maps.items()} == {"e": (0, 24), "f": (26, 50)}


def test_the_data_choose_the_clips(store):
    assert shown_clips(store, ("c", "d", "e", "f")) == ("d", "f", "c")
    assert shown_clips(store, ("f", "e", "d", "c"), 2) == ("d", "f")


@pytest.mark.parametrize("system", ["jmt", "rjca"])
def test_maps_stay_within_their_bytes_and_come_back(passed, tmp_path, system):
    *_, predictions = passed(system, clips=("c", "e", "f"))
    sizes = []
    for name, each in (("with", predictions), ("without", dataclasses.replace(predictions, maps=None))):
        write_predictions(tmp_path / f"{name}.npz", each)
        write_predictions(tmp_path / f"{name}-again.npz", each)
        assert (tmp_path / f"{name}.npz").read_bytes() == (tmp_path / f"{name}-again.npz").read_bytes()
        sizes.append((tmp_path / f"{name}.npz").stat().st_size)
    assert 0 < sizes[0] - sizes[1] < 40_000
    back = read_predictions(tmp_path / "with.npz")
    for clip, kept in predictions.maps.items():
        assert (back.maps[clip].start, back.maps[clip].stop) == (kept.start, kept.stop)
        assert back.maps[clip].maps.keys() == kept.maps.keys()
        for key, values in kept.maps.items():
            np.testing.assert_array_equal(back.maps[clip].maps[key], values.astype(np.float16))
    assert read_predictions(tmp_path / "without.npz").maps is None


def test_no_clip_and_no_map_come_back_too():
    assert from_arrays(to_arrays({})) == {}
    assert from_arrays(to_arrays({"a": ClipMaps(3, 9, {})})) == {"a": ClipMaps(3, 9, {})}
    assert from_arrays({"clips": np.array(["a"])}) is None


def test_a_cell_keeps_the_maps_of_the_clips_that_a_report_shows(store, tiny_cell, new_workspace):
    workspace = new_workspace(store.path)
    cell = tiny_cell("ca", store=store, window=24, hop=16, stress="none")
    assert attempt_cell(cell, workspace).status == "done"
    record = workspace.read(cell.cell_id)
    assert tuple(record.predictions.maps) == shown_clips(store, record.predictions.clips)
    first = (record.path / "predictions.npz").read_bytes()
    shutil.rmtree(workspace.paths.cell(cell.cell_id))
    assert attempt_cell(cell, workspace).status == "done"
    assert (record.path / "predictions.npz").read_bytes() == first
