"""Attention maps and scores below the traces of a clip, from cells with planted maps."""

import numpy as np
import pytest

from crossfold.fusion_models.blocks.attention_maps import KINDS
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.attention import WORDS
from crossfold.reports.figures.clip_traces import choose_clips, clip_figure
from crossfold.reports.page.data import packed
from crossfold.reports.results.load import load_results
from tests.support import lab


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The clip figure of Visual only, RJCA and CA + DCA, and what it was made of."""
    workspace = Workspace(tmp_path_factory.mktemp("maps"))
    store = lab.make_store(workspace.root)
    variants = (lab.VARIANTS[1], lab.VARIANTS[5], lab.VARIANTS[8])
    for cell, noise in lab.cells_of(store, variants, folds=(0,), seeds=(0, 1)):
        lab.finish(workspace, store, cell, noise, stressed=True)
    return workspace, store


def figure(workspace, store):
    results = load_results(workspace)
    (setting,) = results.settings.values()
    (view,) = choose_clips(results, setting, store)
    return clip_figure(view), results


def test_every_kind_of_map_has_words():
    assert set(WORDS) == {kind for kind, facts in KINDS.items() if facts.axes != "B J D"}


def test_maps_and_scores_stand_below_the_traces(drawn):
    found, _ = figure(*drawn)
    titles = [panel.title for panel in found.panels[6:]]
    assert titles == [
        "Gates of CA + DCA",
        "Attention scores of RJCA",
        "Attention scores of CA + DCA",
        "RJCA: audio frames against joint",
        "RJCA: visual frames against joint",
        "CA + DCA: visual frames that audio reads",
        "CA + DCA: audio frames that visual reads",
    ]
    assert [panel.breaks for panel in found.panels[6:]] == [False, False, False, True, False, False, False]


def test_the_sentences_say_axes_run_windows_and_equation(drawn, snapshot):
    found, results = figure(*drawn)
    words = found.caption[found.caption.index("Attention maps are") :]
    for cell_id in results.records:
        words = words.replace(f", {cell_id[:6]})", ", ID)")
    assert words.count(", ID)") == 2
    assert words == snapshot
    assert [panel.alt for panel in found.panels[7:]] == snapshot


def test_a_map_is_drawn_in_the_time_of_the_clip_with_its_spans_at_the_edges(drawn):
    found, _ = figure(*drawn)
    panel = found.panels[-1]
    (heat,) = panel.spec["data"]
    layout = panel.spec["layout"]
    assert layout["xaxis"]["range"] == layout["yaxis"]["range"] == found.panels[0].spec["layout"]["xaxis"]["range"]
    assert (heat["x"][0], heat["x"][-1]) == (0.2, 19.8)
    assert heat["z"][0][11:] == [None] * 39
    # Colour is in multiples of the mean weight, and sound that is missing is read twice as much.
    assert heat["z"][15][15] == pytest.approx(2 * heat["z"][15][10])
    assert "mean 2.000" not in panel.alt
    edges = [(shape["x0"], shape["x1"]) for shape in layout["shapes"] if shape["xref"] == "x"]
    assert edges == [(0.8, 3.2), (4.8, 7.6), (8.0, 11.6), (14.4, 16.8)]
    turned = [(shape["y0"], shape["y1"]) for shape in layout["shapes"] if shape["yref"] == "y"]
    assert turned == edges


def test_scores_are_columns_scaled_to_one(drawn):
    """000 Fig. 1: the missing sound, read twice as much, has score 1; the face, read evenly, has no scale."""
    found, _ = figure(*drawn)
    lines = {line["name"]: np.array(line["y"]) for line in found.panels[8].spec["data"]}
    assert set(lines) == {"audio", "visual"}
    inside = (np.arange(50) >= 12) & (np.arange(50) < 19)
    np.testing.assert_allclose(lines["audio"], inside, atol=1e-3)
    np.testing.assert_allclose(lines["visual"], 0.5)


def test_cells_that_saved_no_maps_are_named(drawn, workspace):
    store = lab.make_store(workspace.root)
    for index, (cell, noise) in enumerate(lab.cells_of(store, lab.VARIANTS[4:7], folds=(0,), seeds=(0,))):
        lab.finish(workspace, store, cell, noise, stressed=index == 2)
    found, _ = figure(workspace, store)
    assert found.caption.endswith(" The cells of JCA saved no attention maps of this clip.")
    titles = [panel.title for panel in found.panels if panel.title]
    assert titles[1:] == [
        "Attention scores of CA + DCA",
        "CA + DCA: visual frames that audio reads",
        "CA + DCA: audio frames that visual reads",
    ]


def test_packing_leaves_out_what_is_empty_at_both_ends():
    rows = [[None, 1, None, 2, None], [None] * 5, [3, None, None, None, None]]
    spec = {"data": [{"meta": "sequential", "z": rows}, {"meta": "truth", "y": [1]}], "layout": {"height": 1}}
    assert packed(spec)["data"] == [
        {"meta": "sequential", "z": [[1, 1, None, 2], [0, None], [0, 3]]},
        {"meta": "truth", "y": [1]},
    ]
    assert spec["data"][0]["z"] is rows
    assert packed(spec)["layout"] == {"height": 1}
