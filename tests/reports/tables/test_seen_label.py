"""Each number of cells whose reported clips were seen in the choice of their parameters has the mark `seen`."""

import csv
import html
import json
import re

import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import SEEN
from crossfold.platform.core.files import write_json
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.all_tables import build_tables
from crossfold.reports.build import build_report
from crossfold.reports.page.difference import difference
from crossfold.reports.page.drilldown import drill_data
from crossfold.reports.page.joined import joined
from crossfold.reports.page.searches import HEADS, search_sections
from crossfold.reports.page.sheets import sheet_html
from crossfold.reports.results.load import load_results
from tests.reports.page.test_searches_part import write_search
from tests.support import lab

SYSTEMS = ("unimodal_audio", "unimodal_visual", "ca", "ca+dca")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Four systems on folds 0 and 1; fold 1 of the gated one was seen."""
    workspace = Workspace(tmp_path_factory.mktemp("seen") / "workspace")
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store, tuple(fake for fake in lab.VARIANTS if fake.system in SYSTEMS))
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    lab.launch(workspace, store, [cell for cell, _ in cells])
    path = workspace.paths.sweeps / "demo.json"
    seen = [cell.cell_id for cell, _ in cells if (cell.system, cell.fold) == ("ca+dca", 1)]
    assert len(seen) == 6
    write_json(path, json.loads(path.read_text()) | {"seen": seen})
    return workspace


@pytest.fixture(scope="module")
def written(ran, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return build_report(ran, tables=["leaderboard", "dca-t1"], out=folder, figures=True), folder


def test_each_number_of_a_seen_row_is_marked_and_no_other(written):
    _, folder = written
    for table, label in (("leaderboard", "CA + DCA"), ("dca-t1", "CA [2] w/ DCA")):
        rows = [line for line in (folder / f"{table}.md").read_text().splitlines() if line.startswith("| ")]
        own = [row for row in rows if row.replace("\\", "").startswith(f"| {label}")]
        assert own
        for row in rows:
            cells = [cell.strip() for cell in row.split("|")[2:-1]]
            measured = [c for c in cells if re.search(r"0\.\d\d\d ±|\[0\.\d+, 0\.\d+\]", c)]
            if row in own:
                assert measured
                assert all(cell.endswith(("<sup>seen</sup>", "<sup>seen</sup>**")) for cell in measured), row
            elif label not in row.replace("\\", ""):
                assert "seen" not in row
        assert (folder / f"{table}.tex").read_text().count("\\textsuperscript{seen}") >= len(own)


def test_the_csv_counts_the_seen_cells_of_each_number(written):
    _, folder = written
    for table in ("leaderboard", "dca-t1"):
        with (folder / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        scores = [row for row in rows if row["kind"] == "score" and row["measured"]]
        for row in scores:
            expected = (6 if row["target"] == "mean" else 3) if row["system"] == "ca+dca" else 0
            assert row["seen"] == str(expected), row
        gains = {(row["row"] + row["system"], row["seen"]) for row in rows if row["kind"] == "gain" and row["measured"]}
        assert gains
        assert all((seen == "1") == ("w/ DCA" in name or "ca+dca" in name) for name, seen in gains), gains


def test_notes_provenance_page_figures_and_terminal_say_what_the_mark_means(ran, written):
    built, folder = written
    page = html.unescape((folder / "report.html").read_text())
    for text in (page, (folder / "leaderboard.md").read_text(), (folder / "dca-t1.md").read_text()):
        assert f"Numbers with the mark seen are no estimate of what new clips give: {SEEN}." in text.replace("\\", "")
        assert re.search(rf"seen: CA \(?.*DCA.* \(6 of \d+ cells\): {SEEN}", text.replace("\\", ""))
    assert f"Numbers with the mark seen (6 cells) are no estimate: {SEEN}." in page
    assert f": {SEEN}" in built.summary
    assert "marked seen (leaderboard 2, " in built.summary
    assert "Some numbers of CA + DCA have the mark seen." in page
    data = drill_data(load_results(ran), list(load_results(ran).settings.values()), None)
    assert set(data["seen"]) == load_results(ran).seen
    assert built.page.figures
    shown = [figure for figure in built.page.figures if "(6 of " in figure.note]
    assert shown == list(built.page.figures)


def test_without_seen_cells_nothing_is_marked(ran, finished):
    results = load_results(finished)
    (board, *_) = build_tables(results, ["leaderboard"])
    assert results.seen == frozenset()
    assert not any(entry.seen for entry in board.entries)
    assert not any("seen" in note for note in board.notes)
    assert dict(board.provenance)["seen"] == ""


def test_the_mark_stands_in_a_joint_leaderboard_and_in_what_moved(ran, finished):
    seen, other = load_results(ran), load_results(finished)
    for sheet in (joined({"a": seen, "b": other}, "today"), difference(other, seen, ("b", "a"), "today")):
        marked = {
            row[0].text
            for section in sheet.sections
            for row in section.grid.rows
            for cell in row
            if "seen" in cell.marks
        }
        assert any("DCA" in name for name in marked)
        assert any(SEEN in words for section in sheet.sections for words in section.below)
        assert "<sup>seen</sup>" in sheet_html(sheet)
    assert not any(
        cell.marks for section in joined({"b": other}, "today").sections for row in section.grid.rows for cell in row
    )


def test_a_tuned_score_on_seen_clips_is_marked_in_the_part_on_searches(ran, tmp_path):
    results = load_results(ran)
    cells = results.cells[results.cells["system"] == "ca+dca"]
    for name, chosen in (("mine-winner", cells), ("mine-default", cells[cells["fold"] == 0])):
        lab.launch(
            ran,
            FeatureStore(ran.find_store("puppets")),
            [results.records[c].cell for c in set(chosen["cell_id"])],
            name,
        )
    write_search(ran, "mine", group="mine", search={"system": "ca+dca", "inner_folds": 2, "fold": 0})
    results = load_results(ran)
    (section,) = search_sections(ran, results, figures=False)
    (row,) = section.grid.rows
    marks = dict(zip(HEADS, (cell.marks for cell in row), strict=True))
    assert {head for head, given in marks.items() if given == ("seen",)} == {"Tuned", "Tuned minus default"}
    assert "have the mark seen" in section.sentence
    assert "no trial opened" not in section.sentence
    for name in ("mine-winner", "mine-default"):
        (ran.paths.sweeps / f"{name}.json").unlink()
    for path in ran.paths.searches.glob("mine.*"):
        path.unlink()
