"""What the page compares: gains of pairs, scores of videos, traces, and errors by event."""

import numpy as np

from crossfold.platform.core.metrics import ccc_of
from crossfold.reports.page.compared import comparison_data, packed
from crossfold.reports.page.drilldown import DIGITS
from crossfold.reports.results.load import load_results
from tests.support import lab


def unpacked(text):
    pairs = [text[at : at + 2] for at in range(0, len(text), 2)]
    return [
        None if pair == ".." else (DIGITS.index(pair[0]) * 62 + DIGITS.index(pair[1]) - 1000) / 1000 for pair in pairs
    ]


def test_numbers_are_packed_to_thousandths():
    assert unpacked(packed(np.array([-1.5, -0.25, np.nan, 0.0, 0.1234, 1.0]))) == [-1.0, -0.25, None, 0.0, 0.123, 1.0]


def test_systems_are_compared_by_video_over_time_and_by_event(workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, (lab.VARIANTS[0], lab.VARIANTS[2], lab.VARIANTS[5])):
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    setting = next(iter(results.settings.values()))
    clip = store.fold(0).validation[0]
    data = comparison_data(results, setting, store, [clip])
    assert [name for name, *_ in data["systems"]] == ["CA + DCA", "Concatenation", "Audio only"]
    assert sorted(data["pairs"]) == ["0,1", "0,2", "1,2"]
    gain, p, sign = data["pairs"]["0,2"]
    assert gain.startswith("+0.")
    assert (p.startswith("< 0.") or float(p) < 0.05) == (sign == 1)
    # The score of a video is that of `result.json`, averaged over the seeds and folds that scored it.
    runs = [
        run
        for (cell, target), run in results.runs.items()
        if target == "valence" and "concat" in cell_system(results, cell)
    ]
    name = data["videos"][0]
    expected = np.mean([ccc_of(run.moments)[run.videos.index(name)] for run in runs if name in run.videos])
    assert abs(unpacked(data["by_video"]["valence"][1])[0] - expected) <= 0.0005
    shown = data["clips"][0]
    assert (shown["name"], shown["seconds"], len(shown["spans"])) == (clip, 20.0, 4)
    labels = np.asarray(store.labels[store.rows(clip), store.targets.index("valence")])
    assert unpacked(shown["truth"]["valence"])[0] == round(float(labels[0]), 3)
    # A frame without a label has none on the page.
    assert None in unpacked(shown["truth"]["valence"])
    events = {event: (frames, errors) for event, frames, errors in data["events"]}
    assert {"visual conflict", "audio missing", "no planted event", "annotation changes fast"} <= set(events)
    frames, errors = events["audio missing"]
    cells = [
        r
        for r in results.records.values()
        if r.cell.system == "ca+dca" and r.cell.fold == 0 and r.cell.target == "valence"
    ]
    mean = np.mean([np.asarray(r.predictions.prediction[:, 0], np.float64) for r in cells], axis=0)
    first = cells[0].predictions
    inside = np.concatenate(
        [np.arange(first.clip(name).start + 120, first.clip(name).start + 190) for name in first.clips]
    )
    assert frames == len(inside)
    np.testing.assert_allclose(errors["valence"][0], ((mean - first.label[:, 0])[inside] ** 2).mean(), atol=1e-5)


def cell_system(results, cell_id):
    return results.records[cell_id].cell.system


def test_one_system_is_compared_with_nothing(workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:1]):
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    assert comparison_data(results, next(iter(results.settings.values())), store, []) == {}
