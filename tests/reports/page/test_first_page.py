"""The first page: rows, picture, verdicts, limits, and how to measure it again."""

import datetime
import itertools
import json

from crossfold.reports.all_tables import build_tables
from crossfold.reports.page.first_page import first_page
from crossfold.reports.results.load import load_results
from crossfold.reports.stats.formatting import number
from tests.support import lab

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)


def page_of(workspace, variants, *, launched=True, planned=(), **other):
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store, variants, **other)
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    if launched:
        lab.launch(workspace, store, [*(cell for cell, _ in cells), *planned])
    results = load_results(workspace)
    (board,) = build_tables(results, ["leaderboard"], NOW)
    return first_page(results, board.setting, board, store), board


def test_rows_follow_the_leaderboard_and_its_one_rule(workspace):
    first, board = page_of(workspace, (lab.VARIANTS[0], lab.VARIANTS[1], lab.VARIANTS[2], lab.VARIANTS[5]))
    assert [row.label for row in first.rows] == [line.label for line in board.lines]
    assert first.answer == board.headline
    for row, line in zip(first.rows, board.lines, strict=True):
        entry = line.entries[0]
        assert row.score == number(entry.mean)
        gains = [against.gain for against in entry.gains if against.rival == "Visual only"]
        said = {1: "beats it", 0: "not distinguishable", -1: "is beaten by it"}
        assert row.verdict == (said[gains[0].sign] if gains else "reference" if row.label == "Visual only" else "–")
        if gains:
            # The mark is right of no difference where the gain is positive, and inside its interval.
            assert (row.at > first.zero) == (gains[0].mean > 0)
            assert row.ends[0] < row.at < row.ends[1]
    places = [place for place, _ in first.ticks]
    assert places == sorted(places)
    assert 2 <= len(places) <= 6
    assert (first.zero, "0") in first.ticks
    assert len({row.mark for row in first.rows}) == 4


def test_limits_and_commands_are_those_of_the_runs(workspace):
    store = lab.make_store(workspace.root)
    owed = [cell for cell, _ in lab.cells_of(store, lab.VARIANTS[6:7], folds=(0,), seeds=(0, 1))]
    first, _ = page_of(workspace, lab.VARIANTS[:3], folds=(0,), seeds=(0, 1), planned=owed)
    limits = " ".join(first.limits)
    assert "Embedded corpus: puppets" in limits
    assert "Of 16 training runs, 4 have no result (4 not run yet)." in limits
    assert "2 seeds ran: with fewer than 3 nothing is judged." in limits
    assert "One fold ran (0)" in limits
    assert {row.verdict for row in first.rows if row.gain != "–"} == {"too few"}
    again = dict(first.again)
    assert again["Command"] == "crossfold run demo"
    assert again["Citation"] == "crossfold cite demo"
    assert again["Folds; seeds"] == "0; 0 and 1"
    assert again["Code"] == "crossfold 0.1.0, torch 2.13.0"


def test_commits_of_the_code_are_named_once_and_several_are_a_limit(workspace):
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store, lab.VARIANTS[:2], folds=(0,), seeds=(0, 1))
    states = [{"commit": "a" * 40, "clean": True}, {"commit": "b" * 40, "clean": False}, None]

    def shown(chosen):
        for (cell, _), code in zip(cells, itertools.cycle(chosen), strict=False):
            path = workspace.paths.cells / cell.cell_id / "env.json"
            env = {key: value for key, value in json.loads(path.read_text()).items() if key != "code"}
            path.write_text(json.dumps(env | ({"code": code} if code else {})))
        results = load_results(workspace)
        (board,) = build_tables(results, ["leaderboard"], NOW)
        first = first_page(results, board.setting, board, store)
        return dict(first.again)["Commit"], [limit for limit in first.limits if "code" in limit]

    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    assert shown(states[2:]) == ("not recorded", [])
    assert shown(states[:1]) == ("aaaaaaaaaaaa", [])
    changed = "bbbbbbbbbbbb with local changes"
    assert shown(states[1:2]) == (changed, ["The code had local changes that its commit does not hold."])
    words, limits = shown(states)
    assert words == f"aaaaaaaaaaaa: 3 cells; {changed}: 3 cells; not recorded: 2 cells"
    assert limits == [f"The runs come from 2 states of the code: aaaaaaaaaaaa and {changed}."]


def test_without_one_modality_the_picture_shows_scores(workspace):
    first, board = page_of(workspace, lab.VARIANTS[5:7], launched=False)
    assert first.zero is None
    assert first.question == "Which system is best in valence and arousal?"
    assert len(first.heads) == 3
    assert all(row.ends[0] < row.at < row.ends[1] for row in first.rows)
    assert dict(first.again)["One cell again"].startswith("crossfold rerun ")
    assert [row.score for row in first.rows] == [number(line.entries[0].mean) for line in board.lines]


def test_one_fusion_system_against_one_modality_is_a_sentence(workspace):
    first, _ = page_of(workspace, (lab.VARIANTS[1], lab.VARIANTS[5]))
    assert first.answer == (
        "On puppets, the one complete fusion system, CA + DCA, beats the only unimodal system that ran, Visual only, "
        "on the mean of valence and arousal CCC (p below 0.05, corrected for all pairs of systems)."
    )
