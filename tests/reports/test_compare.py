"""Reports of two and more workspaces, and the report as a folder."""

import datetime
import json
import re
from dataclasses import replace

import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.export.results_folder import write_results
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import build_report
from crossfold.reports.compare import join_reports, report_difference, write_site
from tests.support import lab

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)
CHOSEN = (lab.VARIANTS[0], lab.VARIANTS[2], lab.VARIANTS[9])


def filled(path, variants=CHOSEN, **other):
    workspace = Workspace(path)
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, variants, **other):
        lab.finish(workspace, store, cell, noise)
    return workspace


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("before"))


def rows_of(report):
    """The rows of the first table, as lists of strings."""
    table = [line for line in report.summary.split("## ")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_what_moved_is_more_than_noise_or_nothing(before, tmp_path):
    better = replace(CHOSEN[1], noise=0.20)
    after = filled(tmp_path / "after", (CHOSEN[0], better, lab.VARIANTS[5]))
    report = report_difference(before, after, tmp_path / "out", NOW)
    verdicts = {(row[0], row[1]): row[6] for row in rows_of(report)}
    assert verdicts["Audio only", "mean"] == "the same numbers"
    assert verdicts["Concatenation", "mean"] == "**better**"
    assert verdicts["CA + DCA", "mean"] == "only after"
    assert verdicts["RJCA + DCA", "valence"] == "only before"
    assert "Features, recipe and protocol are the same." in report.summary
    back = report_difference(after, before, tmp_path / "back", NOW)
    assert {(row[0], row[1]): row[6] for row in rows_of(back)}["Concatenation", "mean"] == "**worse**"
    page = report.paths[0].read_text()
    assert page.count('<span class="badge">embedded corpus') == 1
    assert "<script" not in page


def test_one_seed_and_other_videos_have_no_verdict(before, tmp_path):
    changed = [replace(each, noise=each.noise + 0.1) for each in CHOSEN]
    few = filled(tmp_path / "few", tuple(changed), seeds=(0,))
    report = report_difference(before, few, tmp_path / "out", NOW)
    assert {row[6] for row in rows_of(report)} == {"too few seeds or videos to say"}
    assert {row[7] for row in rows_of(report) if row[1] == "valence"} == {"2"}
    elsewhere = Workspace(tmp_path / "elsewhere")
    store = lab.make_store(elsewhere.root, first_clip="another")
    for cell, noise in lab.cells_of(store, CHOSEN):
        lab.finish(elsewhere, store, cell, noise)
    report = report_difference(before, elsewhere, tmp_path / "out", NOW)
    assert "scored on other videos" in {row[6] for row in rows_of(report)}
    assert "They differ in: features" in report.summary


def test_a_joint_leaderboard_mixes_only_what_may_be(before, tmp_path):
    same = filled(tmp_path / "same", (CHOSEN[0], lab.VARIANTS[5]))
    other = Workspace(tmp_path / "other")
    store = lab.make_store(other.root, first_clip="another")
    for cell, noise in lab.cells_of(store, CHOSEN[:1]):
        lab.finish(other, store, cell, noise)
    report = join_reports({"A": before, "B": same, "C": other}, tmp_path / "out", NOW)
    rows = rows_of(report)
    # One row of A and B has the same predictions: it stands once, with both origins.
    assert [(row[0], row[6]) for row in rows] == [
        ("CA + DCA", "B"), ("RJCA + DCA", "A"), ("Concatenation", "A"), ("Audio only", "A and B")
    ]  # fmt: skip
    assert all(re.fullmatch(r"12 of 12 cells, [0-9a-f]{12}", row[7]) for row in rows)
    assert report.summary.count("## ") == 2
    assert report.summary.split("## ")[2].count("| C |") == 1
    with pytest.raises(UserError, match="two or more"):
        join_reports({"A": before}, tmp_path / "out", NOW)
    with pytest.raises(UserError, match="has no finished cell"):
        join_reports({"A": before, "B": Workspace(tmp_path / "empty")}, tmp_path / "out", NOW)


def test_exported_results_join_without_frames_weights_and_features(before, tmp_path):
    other = filled(tmp_path / "other", (CHOSEN[0], lab.VARIANTS[5]))
    marked = sorted(other.finished())[0]
    cells = [record.cell for record in other.records()]
    lab.launch(other, FeatureStore(next(other.paths.stores.iterdir())), cells)
    launched = next(other.paths.sweeps.glob("*.json"))
    launched.write_text(json.dumps(json.loads(launched.read_text()) | {"seen": [marked]}))
    folder = tmp_path / "theirs"
    write_results(other, list(other.records()), folder)
    names = {path.name for path in folder.rglob("*") if path.is_file()} - {launched.name}
    assert names == {"cell.json", "result.json", "curve.parquet", "env.json"}
    with pytest.raises(UserError, match="exists"):
        write_results(other, [], folder)
    theirs = Workspace(folder)
    rows = rows_of(join_reports({"A": before, "theirs": theirs}, tmp_path / "out", NOW))
    whole = rows_of(join_reports({"A": before, "theirs": other}, tmp_path / "whole", NOW))
    # All numbers are those of the whole workspace, and so are the marks.
    assert [row[:7] for row in rows] == [row[:7] for row in whole]
    assert any("seen" in row[1] for row in rows)
    verified = {row[0].split()[0] + " of " + row[6]: row[7] for row in rows}
    assert re.fullmatch(r"12 of 12 cells, by their videos, [0-9a-f]{12} \(stated\)", verified["CA of theirs"])
    # The row that both have is one row, verified by the predictions that are here.
    assert re.fullmatch(r"12 of 12 cells, [0-9a-f]{12}", verified["Audio of A and theirs"])
    alone = build_report(theirs, formats=["html"], out=tmp_path / "alone", now=NOW)
    assert "CA + DCA" in alone.paths[0].read_text()
    path = sorted(folder.glob("cells/*/result.json"))[0]
    result = json.loads(path.read_text())
    for scores in result["metrics"].values():
        scores["ccc"] += 0.01
    path.write_text(json.dumps(result))
    rows = rows_of(join_reports({"A": before, "theirs": Workspace(folder)}, tmp_path / "out", NOW))
    assert any("1 do not agree" in row[7] for row in rows if row[6] == "theirs")


def test_what_differs_between_workspaces_is_in_the_name_of_a_row(tmp_path):
    rjca = lab.Fake("rjca", {"axis": "time", "iterations": 3}, 0.36)
    here, there = filled(tmp_path / "a", (rjca,)), Workspace(tmp_path / "b")
    store = lab.make_store(there.root)
    deeper = replace(rjca, params=rjca.params | {"iterations": 4}, noise=0.5)
    for cell, noise in [*lab.cells_of(store, (deeper,)), *lab.cells_of(store, (CHOSEN[2],))]:
        lab.finish(there, store, cell.model_copy(update={"revision": 2 if cell.system == "rjca" else 1}), noise)
    revised = Workspace(tmp_path / "c")
    store = lab.make_store(revised.root)
    for cell, _ in lab.cells_of(store, (rjca,)):
        lab.finish(revised, store, cell.model_copy(update={"revision": 2}), 0.45)
    report = join_reports({"A": here, "B": there, "C": revised}, tmp_path / "out", NOW)
    assert {(row[0], row[6]) for row in rows_of(report)} == {
        ("RJCA (iterations 3), revision 1", "A"),
        ("RJCA (iterations 3), revision 2", "C"),
        ("RJCA (iterations 4)", "B"),
        ("RJCA + DCA", "B"),
    }


def test_a_score_that_its_predictions_do_not_give_is_not_verified(before, tmp_path):
    other = filled(tmp_path / "other", CHOSEN[1:2])
    path = next(path for path in sorted(other.paths.cells.iterdir()) if path.is_dir()) / "result.json"
    result = json.loads(path.read_text())
    for scores in result["metrics"].values():
        scores["ccc"] += 0.01
    path.write_text(json.dumps(result))
    report = join_reports({"A": before, "B": Workspace(other.root)}, tmp_path / "out", NOW)
    verified = {row[6]: row[7] for row in rows_of(report) if row[0] == "Concatenation"}
    assert verified["A"].startswith("12 of 12 cells,")
    assert verified["B"].startswith("11 of 12 cells, 1 do not agree")


def test_a_folder_has_an_address_for_every_number(before, tmp_path):
    report = build_report(before, formats=["html"], out=tmp_path / "report", now=NOW)
    paths = write_site(report, tmp_path / "site")
    assert {"index.html", "leaderboard.html", "dca-t1.html"} <= {path.name for path in paths}
    page = (tmp_path / "site" / "leaderboard.html").read_text()
    assert 'id="concatenation--valence-ccc"' in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    links = {link for path in paths[1:] for link in re.findall(r'href="([^"#][^"]*)"', path.read_text())}
    assert links - {"data:,"} <= {path.name for path in paths}
    again = write_site(build_report(before, formats=["html"], out=tmp_path / "later", now=NOW), tmp_path / "more")
    assert (tmp_path / "more" / "leaderboard.html").read_text() == page
    assert [path.name for path in again] == [path.name for path in paths]
    with pytest.raises(UserError, match="there is none"):
        write_site(build_report(before, formats=["md"], out=tmp_path / "md", now=NOW), tmp_path / "none")
