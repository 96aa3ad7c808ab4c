"""From a folder of clips to plan, run, status and report under each rule of folds; a workspace of before."""

import csv
import json
import shutil

import pytest

from crossfold.platform.core.cell import FOLD_RULES
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import make_store, synthetic_clips, synthetic_workspace, write_sweep
from tests.support.media import write_corpus

TRAIN = ("10_left", "10_right", "20", "30", "40", "50", "60", "70")
"""Eight training clips in order of name, the first two of one video. Parts of the release: 1, 1, 1, 1 and 4 clips."""
REPORTED = {
    "as_released": {1: TRAIN[4:], 5: TRAIN[:1]},
    "grouped": {1: TRAIN[6:], 5: TRAIN[:2]},
}
ADVICE = "numbers its folds from 1 on the other way round than the papers"


def plain(text):
    return " ".join(text.split())


def reported_in(space):
    """Fold -> the clips that the finished cells report."""
    return {r.cell.fold: tuple(sorted(r.predictions.clips)) for r in Workspace(space).records()}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A small folder in the layout of Aff-Wild2."""
    clips = dict.fromkeys(TRAIN, "Train_Set") | dict.fromkeys(("80", "90"), "Validation_Set")
    return write_corpus(tmp_path_factory.mktemp("stand-in") / "data", clips=clips)


@pytest.mark.parametrize("rule", list(REPORTED))
def test_each_rule_from_a_folder_of_clips_to_the_report(crossfold, tmp_path, stand_in, rule):
    space, sweep = (
        tmp_path / "ws",
        write_sweep(tmp_path / "s.yaml", corpus="affwild2", systems=["concat"], targets=["valence"], folds=[0, 1, 5]),
    )
    code, said, error = crossfold(
        "prepare", "affwild2", "--root", stand_in, "-w", space, "--fold-rule", rule, "--processes", 1
    )
    assert code == 0, error
    assert f"folds: 6, {rule}" in plain(said)
    code, said, error = crossfold("plan", sweep, "-w", space)
    assert code == 0, error
    assert f"folds 0, 1, 5: {rule} ({FOLD_RULES[rule]})" in plain(said)
    assert json.loads(crossfold("plan", sweep, "-w", space, "--json")[1])["fold_rule"] == rule
    code, said, error = crossfold("run", sweep, "-w", space, "--workers", 0)
    assert code == 0, error
    assert f"folds by the rule {rule}" in plain(said)
    assert reported_in(space) == {0: ("80", "90"), **REPORTED[rule]}
    assert ADVICE not in plain(said + crossfold("status", "-w", space)[1])
    assert crossfold("report", "leaderboard", "-w", space, "--format", "csv", "--out", tmp_path)[0] == 0
    # A report on a machine without the store has the rule that was launched.
    shutil.rmtree(space / "stores")
    assert crossfold("report", "leaderboard", "-w", space, "--format", "csv", "--out", tmp_path / "later")[0] == 0
    for folder in (tmp_path, tmp_path / "later"):
        with (folder / "leaderboard.csv").open(newline="") as file:
            assert {row["fold_rule"] for row in csv.DictReader(file)} == {rule}


def test_both_rules_live_in_one_workspace_and_a_sweep_says_which(crossfold, tmp_path):
    space = synthetic_workspace(tmp_path).root
    sweep = write_sweep(tmp_path / "s.yaml", systems=["concat"], targets=["valence"], folds=[0, 1])
    asked = ("prepare", "synthetic", "--root", tmp_path / "corpus", "-w", space, "--fold-rule")
    for rule in ("as_released", "grouped", "as_released"):
        assert crossfold(*asked, rule)[0] == 0
    assert len(list((space / "stores").glob("synthetic-*"))) == 2, "the same rule makes the same store"
    code, _, error = crossfold("run", sweep, "-w", space, "--workers", 0)
    assert code == 2
    stores = {store.rpartition("-")[2]: rule for store, rule in stores_named_in(error).items()}
    assert set(stores.values()) == {"grouped", "as_released"}
    for store, rule in stores.items():
        code, said, error = crossfold("run", sweep, "-w", space, "--workers", 0, "--set", f"store={store}")
        assert code == 0, error
        assert f"2 cells, 0 done, 2 to run in {space}; folds by the rule {rule}" in plain(said)
    assert len({record.cell.store for record in Workspace(space).records()}) == 2


def stores_named_in(error):
    """Store -> its rule, as the message about several stores has them."""
    listed = plain(error).partition("/stores: ")[2].partition(")\n")[0]
    parts = [part for part in listed.replace(")", "(").split("(") if "synthetic-" in part or "folds " in part]
    names = [part.split("synthetic-")[1].strip(" ,") for part in parts[::2]]
    return {f"synthetic-{name}": part.removeprefix("folds ") for name, part in zip(names, parts[1::2], strict=True)}


def test_a_workspace_with_folds_of_an_earlier_version_says_what_to_do_and_keeps_its_cells(crossfold, tmp_path):
    space = tmp_path / "ws"
    old = make_store(space / "stores", synthetic_clips(), fold_rule="grouped_upwards")
    assert "fold_rule" not in old.manifest
    sweep = write_sweep(tmp_path / "s.yaml", systems=["concat"], targets=["valence"], folds=[0, 1])
    for command in (("plan", sweep), ("run", sweep, "--workers", 0), ("status",), ("report", "--no-figures")):
        code, said, error = crossfold(*command, "-w", space)
        assert code == 0, error
        assert f"store synthetic-{old.content_hash} is of an earlier version" in plain(said), command
        assert ADVICE in plain(said)
        assert "`crossfold prepare synthetic --root DIR` makes another one" in plain(said)
        assert f"--set store={old.content_hash}" in plain(said)
    cells = reported_in(space)
    assert cells[1] == tuple(sorted(old.fold(1).validation))
    # A store of today next to it: the cells of the old one stay theirs, and are never shown as its.
    new = make_store(space / "stores", synthetic_clips())
    assert new.fold(1).validation != old.fold(1).validation
    code, said, error = crossfold("run", sweep, "-w", space, "--workers", 0, "--set", f"store={new.content_hash}")
    assert code == 0, error
    assert "2 cells, 0 done, 2 to run" in plain(said)
    assert ADVICE not in plain(said)
    assert crossfold("report", "leaderboard", "-w", space, "--format", "csv", "--out", tmp_path)[0] == 0
    rows = [row for path in tmp_path.glob("leaderboard*.csv") for row in csv.DictReader(path.open(newline=""))]
    by_store = {(row["store"], row["fold_rule"]) for row in rows}
    assert by_store == {(old.content_hash, "grouped_upwards"), (new.content_hash, "grouped")}


def test_folds_of_an_earlier_version_do_not_matter_to_fold_0(crossfold, tmp_path):
    space = tmp_path / "ws"
    make_store(space / "stores", synthetic_clips(), fold_rule="grouped_upwards")
    sweep = write_sweep(tmp_path / "s.yaml", systems=["concat"], targets=["valence"], folds=[0])
    for command in (("plan", sweep), ("run", sweep, "--workers", 0), ("status",), ("report", "--no-figures")):
        code, said, error = crossfold(*command, "-w", space)
        assert code == 0, error
        assert ADVICE not in plain(said)
