"""Headline, groups, gains, printed gains and claims of random results never disagree about which system beats which."""

import dataclasses
import re
from collections import defaultdict

import numpy as np
import pytest

from crossfold.reports.all_tables import build_tables
from crossfold.reports.results.load import load_results
from crossfold.reports.tables import claims, comparison
from crossfold.reports.tables.published import table_ids
from tests.support.simulated_videos import draw_system, draw_videos, runs_of_data_set

ROUNDS = 6
VIDEOS = {0: 24, 1: 16}
WORDS = {comparison.UNCLEAR: 0, comparison.TOO_FEW: 0, "gains": 1, "loses": -1}


def random_results(results, seed):
    """The same cells with other predictions: systems of random quality, on videos that all of them share."""
    rng = np.random.default_rng(seed)
    cells = results.cells.sort_values(["seed", "cell_id"])
    videos = {
        key: draw_videos(rng, 1, VIDEOS[key[1]]) for key in sorted(set(zip(cells.target, cells.fold, strict=True)))
    }
    slopes = dict(
        zip(sorted(set(cells.variant)), rng.choice([0.3, 0.6, 0.8], 10) + rng.normal(0, 0.05, 10), strict=True)
    )
    runs = {}
    for (variant, target, fold), rows in cells.groupby(["variant", "target", "fold"]):
        drawn = draw_system(
            rng, videos[target, fold], len(rows), slope=slopes[variant], seed_spread=0.02, seed_bias=0.1
        )
        for cell_id, run, number in zip(rows.cell_id, runs_of_data_set(drawn, 0, fold), rows.seed, strict=True):
            runs[cell_id, target] = dataclasses.replace(run, seed=int(number))
    return dataclasses.replace(results, runs=runs)


def verdicts_of(results, seen):
    """(better, base, targets, folds) -> what each place of a report says about the pair: 1, 0 or -1."""
    found = defaultdict(dict)

    def add(place, better, base, sign):
        key = (better.variant, base.variant, better.target, better.folds)
        found[key].setdefault(place, sign)
        assert found[key][place] == sign
        if sign:
            seen.add(place)

    tables = build_tables(results, table_ids())
    board, papers = tables[0], {table.id: table for table in tables[1:]}
    by_label = {line.label: line for line in board.lines}
    winners = set(re.split(", | and ", re.sub(r".*\): |\.$", "", board.headline))) if "): " in board.headline else set()
    for line in board.lines:
        for entry in line.entries:
            for against in entry.gains:
                base = by_label[against.rival].entries[line.entries.index(entry)]
                add("gain", entry, base, against.gain.sign)
                assert (against.gain.p is not None and against.gain.p < 0.05) == (against.gain.sign != 0)
        for other in board.lines:
            if board.word_heads and other is not line:
                apart = not set(line.words[0].split()) & set(other.words[0].split())
                add(
                    "group",
                    line.entries[0],
                    other.entries[0],
                    apart * (1 if line.entries[0].mean > other.entries[0].mean else -1),
                )
        if line.entries[0].gains:
            beats = {against.gain.sign for against in line.entries[0].gains} == {1}
            assert (line.label in winners) == beats, (board.headline, line.label)
            seen.update({"headline"} if beats else set())
    for table in papers.values():
        lines = {line.label: line.entries for line in table.lines}
        for gain in table.gains:
            if gain.gain:
                base, better = gain.label.split(" → ")
                at = next(i for i, head in enumerate(table.heads) if head.lower() == gain.target)
                same = 1 if gain.verdict == comparison.SAME else -1
                sign = WORDS[gain.verdict] if gain.verdict in WORDS else same * int(np.sign(gain.printed))
                add("printed gain", lines[better][at], lines[base][at], sign)
    for verdict in claims.judge(results, list(papers.values())):
        lines = {line.label: line.entries for line in papers[verdict.claim.table].lines}
        each = iter(verdict.comparisons)
        for pair in verdict.claim.comparisons if verdict.claim.quantity == "ccc" else ():
            for sides in claims.compared_cells(verdict.claim, pair).values():
                judged = next(each)
                if judged.gain and judged.gain.n and pair.more_than is None:
                    (row, column), (base, base_column) = (*sides.better, *sides.base)
                    add("claim", lines[row][column], lines[base][base_column], WORDS.get(judged.verdict, 0))
    return found


@pytest.mark.parametrize("seeds", [3, 2])
def test_no_two_places_of_a_report_disagree(finished, seeds):
    results = load_results(finished)
    results = dataclasses.replace(results, cells=results.cells[results.cells["seed"] < seeds])
    seen, shared = set(), 0
    for number in range(ROUNDS if seeds == 3 else 1):
        for key, places in verdicts_of(random_results(results, number), seen).items():
            assert len(set(places.values())) == 1, (key, places)
            shared += len(places) > 1
    if seeds < 3:
        assert not seen, "two seeds are no sample of seeds"
        return
    assert seen == {"gain", "group", "headline", "printed gain", "claim"}, "each place has found a difference"
    assert shared > 100
