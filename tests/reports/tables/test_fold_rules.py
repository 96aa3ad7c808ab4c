"""Every table says the rule of its folds, and printed folds 1 to 5 are compared by value under `as_released` only."""

import csv
import html

import pytest

from crossfold.platform.core.cell import FOLD_RULES
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.all_tables import build_tables
from crossfold.reports.build import build_report
from crossfold.reports.results.load import load_results
from crossfold.sweeps.recipe_files import load_recipe
from tests.support import lab

RULES = ("grouped", "as_released", "grouped_upwards")
RJCMA = lab.Fake("rjcma", {"axis": "time", "iterations": 3}, 0.3)


def run(workspace, *rules, folds=(0, 1)):
    """RJCMA on folds of a stand-in of Aff-Wild2, three seeds, on a store for each rule."""
    for rule in rules:
        store = lab.make_store(workspace.root, "affwild2", fold_rule=rule)
        cells = lab.cells_of(store, (RJCMA,), folds=folds, recipe=load_recipe("rjcma2024"))
        for cell, noise in cells:
            lab.finish(workspace, store, cell, noise)


@pytest.fixture(scope="module", params=RULES)
def ran(request, tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("rules") / "workspace")
    run(workspace, request.param)
    return request.param, workspace


def test_printed_folds_are_compared_by_value_under_the_rule_of_the_release_only(ran):
    rule, workspace = ran
    six, one = build_tables(load_results(workspace), ["rjcma-t1", "rjcma-t3"])
    released = rule == "as_released"
    shown = {line.label: line.entries[0].difference is not None for line in six.lines if line.entries[0].mean}
    assert shown == {"Fold 0": True, "Fold 1": released}
    (l3,) = [line for line in one.lines if line.label == "l = 3"]
    assert l3.entries[0].mean is not None
    assert (l3.entries[0].difference is not None) == released
    assert l3.entries[0].verdict in (("above", "below", "agrees") if released else ("not comparable",))
    assert (six.comparable, one.comparable) == (True, released)
    for table in (six, one):
        assert (f"on folds by the rule {rule}" in table.sentences[0]) == (not released)
    assert ("of fold 0, the official split, the difference is shown" in six.sentences[0]) == (not released)


def test_the_rule_stands_in_every_format_and_on_the_page(ran, tmp_path):
    rule, workspace = ran
    built = build_report(workspace, tables=["leaderboard", "rjcma-t1"], out=tmp_path, figures=False)
    words = f"{rule} ({FOLD_RULES[rule]})"
    for table in ("leaderboard", "rjcma-t1"):
        for kind in ("md", "tex"):
            text = (tmp_path / f"{table}.{kind}").read_text().replace("\\_", "_").replace("\\", "").replace("`", "")
            assert f"Rule of the folds: {words.replace('`', '')}." in text
            assert f"fold rule: {rule}" in text
        with (tmp_path / f"{table}.csv").open(newline="") as file:
            assert {row["fold_rule"] for row in csv.DictReader(file)} == {rule}
    page = html.unescape((tmp_path / "report.html").read_text())
    assert f"Rule of the folds: {words}." in page
    assert page.count(f"fold rule: {rule}") >= 2
    earlier = rule == "grouped_upwards"
    for text in (page, built.summary):
        assert ("numbers its folds from 1 on the other way round" in text) == earlier
        assert ("crossfold prepare affwild2 --root DIR" in text) == earlier


def test_stores_of_two_rules_never_mix_and_the_one_of_print_is_compared(workspace):
    run(workspace, "grouped", "as_released", folds=(1,))
    results = load_results(workspace)
    assert sorted(setting.fold_rule for setting in results.settings.values()) == ["as_released", "grouped"]
    (table,) = build_tables(results, ["rjcma-t3"])
    assert table.setting.fold_rule == "as_released"
    stores = {results.records[cell].cell.store for entry in table.entries for cell in entry.cell_ids}
    assert stores == {table.setting.store}


def test_the_rule_of_a_store_that_is_elsewhere_is_not_guessed(workspace):
    store = lab.make_store(workspace.root, "affwild2")
    cells = lab.cells_of(store, (RJCMA,), folds=(1,), recipe=load_recipe("rjcma2024"))
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    store.path.rename(workspace.root.parent / "elsewhere")
    (table,) = build_tables(load_results(workspace), ["rjcma-t3"])
    assert any("The rule of the measured folds 1 to 5 is not known" in note for note in table.notes)
    assert ("fold rule", "not known") in table.provenance
    assert not table.comparable
