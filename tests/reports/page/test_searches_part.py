"""The part of the page on searches, from records as a search leaves them: what it says, shows and weighs."""

import json

import pytest

from crossfold.platform.core.errors import DataError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.searches import search_figures
from crossfold.reports.page.searches import HEADS, search_sections
from crossfold.reports.results.load import load_results
from crossfold.reports.results.searches import load_searches
from tests.support.searches import SPACE, write_search


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def texts(workspace: Workspace) -> list[dict[str, str]]:
    (section,) = search_sections(workspace, load_results(workspace), figures=False)
    return [dict(zip(HEADS, (cell.text for cell in row), strict=True)) for row in section.grid.rows]


def test_the_table_has_budget_stopped_and_failed_trials_and_what_fresh_seeds_say(workspace):
    write_search(workspace, "mine-grjca")
    write_search(workspace, "mine-rjca", search={"system": "rjca", "inner_folds": 2, "fold": 0}, retrained=[])
    rjca, grjca = texts(workspace)
    assert (rjca["System"], grjca["System"]) == ("RJCA", "GRJCA")
    assert (grjca["Complete"], grjca["Pruned"], grjca["Failed"]) == ("22", "6", "2")
    assert grjca["Budget"] == "30 trials" and grjca["Spent"] == "30 trials"
    assert grjca["Fresh seeds"] == "0.520 [0.470, 0.570]" and rjca["Fresh seeds"] == "–"
    # Nothing has run as ordinary cells.
    assert grjca["Tuned"] == grjca["Default"] == grjca["Tuned minus default"] == "–"
    assert "iterations 3" in grjca["Chosen parameters"]


def test_the_papers_numbers_stand_next_to_the_measured_ones_where_corpus_and_folds_are_theirs(workspace):
    def asked(system, fold, **params):
        return {"system": system, "inner_folds": 2, "fold": fold, "winner": {"folds": [fold]}, "params": params}

    write_search(workspace, "mine-puppets", search=asked("grjca", 1))
    assert [row["Printed"] for row in texts(workspace)] == ["none printed"]
    write_search(workspace, "mine-puppets", corpus="affwild2", search=asked("hgrjca", 1))
    write_search(workspace, "mine-dca", corpus="affwild2", search=asked("rjca+dca", 0))
    write_search(workspace, "mine-other", corpus="affwild2", search=asked("hgrjca", 1, iterations=1))
    write_search(workspace, "mine-fold", corpus="affwild2", search=asked("hgrjca", 4))
    names = [search.name for searches in load_searches(workspace).values() for search in searches]
    printed = dict(zip(names, (row["Printed"] for row in texts(workspace)), strict=True))
    # The means of 0.623 and 0.671, and of 0.742 and 0.718.
    assert printed["mine-puppets"] == "0.647 (GRJCA (2025), Table 2, l = 3)"
    assert "0.730 (DCA (2024), Table 1)" in printed["mine-dca"]
    assert printed["mine-other"].endswith("l = 1)")
    assert printed["mine-fold"] == "none printed"


def test_the_figures_say_what_they_show_in_words(workspace):
    write_search(workspace, "mine-grjca", objectives=["ccc", "parameters"])
    ((name, searches),) = load_searches(workspace).items()
    figures = {figure.id.removesuffix("-mine"): figure for figure in search_figures(name, searches)}
    kinds = ("history", "importance", "slices", "contour", "parallel", "front", "fresh")
    assert list(figures) == [f"search-{kind}" for kind in kinds]
    assert "temperature from parameters without effect" in figures["search-importance"].panels[0].alt
    assert [panel.title for panel in figures["search-slices"].panels] == list(SPACE)
    best = searches[0].complete["value"].max()
    assert f"{best:.3f} after 28" in figures["search-history"].panels[0].alt
    assert "became 0.520" in figures["search-fresh"].panels[0].alt
    assert "iterations 3" in figures["search-parallel"].panels[0].alt


def test_the_line_of_the_best_never_counts_a_trial_that_was_stopped(workspace):
    write_search(workspace, "mine-grjca")
    ((name, searches),) = load_searches(workspace).items()
    table = searches[0].trials
    table.loc[table["state"] != "complete", "value"] = 0.99
    (line,) = search_figures(name, searches)[0].panels[0].spec["data"]
    shown = [value for value in line["y"] if value is not None]
    assert max(shown) < 0.9 and shown == sorted(shown)


def test_repeated_searches_have_a_band_from_the_lowest_to_the_highest(workspace):
    for repeat in range(3):
        write_search(workspace, f"mine-r{repeat + 1}", seed=repeat, repeat=repeat)
    ((name, searches),) = load_searches(workspace).items()
    low, high, mean = search_figures(name, searches)[0].panels[0].spec["data"]
    assert high["fill"] == "tonexty"
    known = [(a, b, c) for a, b, c in zip(low["y"], mean["y"], high["y"], strict=True) if None not in (a, b, c)]
    assert known and all(a <= b <= c for a, b, c in known)


def test_the_figures_of_a_thousand_trials_weigh_less_than_a_megabyte(workspace):
    write_search(workspace, "mine-grjca", trials=1000, objectives=["ccc", "parameters"])
    ((name, searches),) = load_searches(workspace).items()
    specs = [panel.spec for figure in search_figures(name, searches) for panel in figure.panels]
    assert 50_000 < len(json.dumps(specs)) < 1_000_000


def test_a_record_of_an_earlier_version_is_left_out_and_a_damaged_one_is_named(workspace):
    write_search(workspace, "mine-grjca")
    path = workspace.paths.searches / "mine-grjca.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "group"}))
    assert load_searches(workspace) == {}
    path.write_text(json.dumps({**record, "space": []}))
    with pytest.raises(DataError, match=r"mine-grjca\.json is not what Crossfold wrote: space"):
        load_searches(workspace)
