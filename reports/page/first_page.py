"""What a reader sees first: the one table with its picture, what limits the claim, and how to measure it again."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.reports.figures.base import variant_styles
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import MARKS, Style
from crossfold.reports.stats.formatting import DASH, MINUS, gain_text, interval_text, listing, number, p_text
from crossfold.reports.stats.hypothesis_tests import ALPHA
from crossfold.reports.stats.intervals import MIN_SEEDS, MIN_VIDEOS, Gain
from crossfold.reports.tables.entries import Entry, Line, Table
from crossfold.reports.tables.measure import CHANGED, NO_COMMIT, commits_of, versions_of
from crossfold.reports.tables.published import MEAN

MOST_ROWS = 28
"""Systems of the first table: as many as one printed sheet has space for."""
FEW_VIDEOS = 10
"""Fewer reported videos than these in a fold are named as a limit of the claim."""
BEATS, WORSE, OPEN, TOO_FEW, REFERENCE = "beats it", "is beaten by it", "not distinguishable", "too few", "reference"


@dataclass(frozen=True)
class Row:
    """One system of the first table. Places are percent of the width of its picture."""

    label: str
    style: Style
    mark: str
    """The path of its mark, an SVG path around the origin."""
    score: str
    interval: str
    gain: str
    p: str
    verdict: str
    clear: bool
    """Whether the verdict says which of the two systems beats the other."""
    link: tuple[str, str, str] | None
    """Variant, target and setting of the cells behind the score."""
    at: float | None
    """Where the mark stands; None without a number."""
    ends: tuple[float, float] | None
    """Where its interval begins and ends."""


@dataclass(frozen=True)
class FirstPage:
    """The first page of one setting."""

    question: str
    answer: str
    heads: tuple[tuple[str, str], ...]
    """Head and explanation of the columns: system, score, picture, gain, p and verdict."""
    rows: tuple[Row, ...]
    left_out: int
    """Systems that only the full leaderboard shows."""
    zero: float | None
    """Where no difference lies, in percent; None where the picture shows scores and not gains."""
    ticks: tuple[tuple[float, str], ...]
    """Place and text of the numbers below the picture."""
    limits: tuple[str, ...]
    again: tuple[tuple[str, str], ...]
    """What measures it again, as term and value; a value with `crossfold` at its beginning is a command."""


def first_page(results: Results, setting: Setting, board: Table, store: FeatureStore | None) -> FirstPage:
    """The first page of a setting, from its leaderboard; it computes no statistic of its own."""
    lines = sorted(board.lines, key=lambda line: line.entries[0].mean is None)[:MOST_ROWS]
    rival = _rival(board)
    reached = [_reached(line.entries[0], rival) for line in lines]
    low, high, ticks = _axis([value for places in reached if places for value in places], zero=bool(rival))

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    styles = variant_styles(results, setting)
    rows = []
    for line, places in zip(lines, reached, strict=True):
        entry = line.entries[0]
        gain = _gain(entry, rival)
        style = styles[entry.variant]
        verdict, clear = _verdict(line, entry, gain, rival)
        rows.append(
            Row(
                label=line.label,
                style=style,
                mark=MARKS[style.symbol],
                score=entry.text if entry.mean is None else number(entry.mean),
                interval=interval_text(entry.interval) if entry.interval else "",
                gain=gain_text(gain),
                p=p_text(gain.p if gain else None),
                verdict=verdict,
                clear=clear,
                link=(entry.variant, entry.target, "") if entry.planned else None,
                at=place(places[1]) if places else None,
                ends=(place(places[0]), place(places[2])) if places and places[0] < places[2] else None,
            )
        )
    return FirstPage(
        question=_question(board, rival),
        answer=board.headline,
        heads=_heads(board, rival),
        rows=tuple(rows),
        left_out=len(board.lines) - len(lines),
        zero=place(0.0) if rival else None,
        ticks=tuple((place(value), _tick(value, signs=bool(rival))) for value in ticks),
        limits=tuple(_limits(results, setting, board, store)),
        again=tuple(_again(results, setting)),
    )


def _rival(board: Table) -> str:
    """The system that gains are over: the best unimodal one; empty where no row has a gain."""
    rivals = {against.rival for line in board.lines for against in line.entries[0].gains}
    ranked = [line.label for line in board.lines if line.label in rivals]
    return ranked[0] if ranked else ""


def _gain(entry: Entry, rival: str) -> Gain | None:
    return next((against.gain for against in entry.gains if against.rival == rival), None)


def _reached(entry: Entry, rival: str) -> tuple[float, float, float] | None:
    """Lower end, value and upper end of what the picture shows of a row."""
    if rival:
        gain = _gain(entry, rival)
        if gain is None:
            return None
        return (gain.mean if gain.low is None else gain.low, gain.mean, gain.mean if gain.high is None else gain.high)
    if entry.mean is None:
        return None
    interval = entry.interval
    return (interval.low, entry.mean, interval.high) if interval else (entry.mean, entry.mean, entry.mean)


def _axis(values: Sequence[float], *, zero: bool) -> tuple[float, float, list[float]]:
    """The ends of the axis of the picture, and three to six round numbers on it.

    The axis of gains holds zero and spans at least 0.05 CCC, so that no picture enlarges noise.
    """
    low, high = (
        min([*values, *([0.0] if zero else [])], default=0.0),
        max([*values, *([0.0] if zero else [])], default=1.0),
    )
    missing = max(0.0, 0.05 - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin
    step = next(
        step * 10.0**power for power in range(-3, 3) for step in (1, 2, 5) if (high - low) / (step * 10.0**power) <= 5
    )
    first = int(np.ceil(low / step))
    return low, high, [index * step for index in range(first, int(np.floor(high / step)) + 1)]


def _tick(value: float, *, signs: bool) -> str:
    """A round number below the picture, as short as it can be."""
    if abs(value) < 1e-9:
        return "0"
    return f"{value:{'+' if signs else ''}.3f}".rstrip("0").rstrip(".").replace("-", MINUS)


def _verdict(line: Line, entry: Entry, gain: Gain | None, rival: str) -> tuple[str, bool]:
    if rival and line.label == rival:
        return REFERENCE, False
    if gain is None:
        return (DASH if entry.mean is not None else entry.text), False
    if not gain.judged:
        return TOO_FEW, False
    return {1: (BEATS, True), -1: (WORSE, True), 0: (OPEN, False)}[gain.sign]


def _question(board: Table, rival: str) -> str:
    targets = listing([column for column in board.columns if column != MEAN])
    if rival:
        return f"Does fusion beat one modality in {targets}, and which system is best?"
    return f"Which system is best in {targets}?"


def _heads(board: Table, rival: str) -> tuple[tuple[str, str], ...]:
    targets = listing([column for column in board.columns if column != MEAN])
    several = board.columns[0] == MEAN
    score = (
        "Mean CCC" if several else "CCC",
        f"Concordance correlation coefficient, -1 to 1, of {targets}: mean over {'targets and ' * several}folds of the "
        "mean over seeds. Brackets: 95% interval over videos and, where at least three ran, seeds.",
    )
    if not rival:
        return (
            ("System", "As the papers name it."),
            score,
            ("CCC and 95% interval", "The mark is the score; the line is its 95% interval."),
        )
    return (
        ("System", "As the papers name it. The mark and its colour are the same in every figure."),
        score,
        (
            f"Gain over {rival}",
            "The mark is the gain in CCC; the line is its own 95% paired interval; the upright line is no difference.",
        ),
        ("Gain", f"Difference in CCC to {rival} on the same folds, seeds and videos, with its own 95% interval."),
        ("p", "Chance of such a difference between equal systems, corrected for every pair of systems of the setting."),
        (
            f"Against {rival}",
            f"The one rule of this report: a system beats another where p is below {ALPHA}. Too few: fewer than "
            f"{MIN_SEEDS} seeds or {MIN_VIDEOS} videos in a fold.",
        ),
    )


def _limits(results: Results, setting: Setting, board: Table, store: FeatureStore | None) -> Iterator[str]:
    """What a reader must hold against the answer."""
    cells = results.rows(setting).drop_duplicates("cell_id")
    if setting.label:
        yield f"{setting.label[0].upper()}{setting.label[1:]}."
    counts = Counter(str(status) for status in cells["status"])
    open_cells = len(cells) - counts["done"]
    if open_cells:
        words = f"{counts['failed']} failed, " if counts["failed"] else ""
        yield f"Of {len(cells)} training runs, {open_cells} have no result ({words}{counts['planned']} not run yet)."
    commits = [commit for commit in commits_of(results, set(cells["cell_id"])) if commit != NO_COMMIT]
    if len(commits) > 1:
        named = listing(commits) if len(commits) < 4 else f"{', '.join(commits[:3])}, ..."
        yield f"The runs come from {len(commits)} states of the code: {named}."
    elif any(commit.endswith(CHANGED) for commit in commits):
        yield "The code had local changes that its commit does not hold."
    if setting.selection == "reported":
        yield (
            "The best epoch is picked on the videos that are scored, as in the papers; scores are optimistic, for "
            "every system in the same way."
        )
    entry = next((line.entries[0] for line in board.lines if line.entries[0].mean is not None), None)
    if entry is None:
        return
    if len(entry.seeds) < MIN_SEEDS:
        ran = "1 seed" if len(entry.seeds) == 1 else f"{len(entry.seeds)} seeds"
        yield f"{ran} ran: with fewer than {MIN_SEEDS} nothing is judged."
    videos = min(entry.videos, default=0)
    if 0 < videos < FEW_VIDEOS:
        scored = "1 video" if videos == 1 else f"{videos} videos"
        yield f"A fold scores no more than {scored}; intervals over so few are wide."
    if len(entry.folds) == 1:
        yield f"One fold ran ({entry.folds[0]}), so nothing is known of other partitions of the videos."
    if store is None:
        yield "The feature store is not in this workspace, so no clip is shown."


def _again(results: Results, setting: Setting) -> Iterator[tuple[str, str]]:
    """Everything that measures the table again."""
    done = results.rows(setting, status="done").drop_duplicates("cell_id")
    records = [results.records[str(cell_id)] for cell_id in done["cell_id"]]
    ids = set(done["cell_id"])
    asked = {name: len(ids & cells) for name, cells in results.sweep_cells.items()}
    sweeps = sorted((name for name in asked if asked[name]), key=lambda name: (-asked[name], name))[:3]
    for name in sweeps:
        yield "Command", f"crossfold run {name}"
    if records and not sweeps:
        yield "One cell again", f"crossfold rerun {records[0].cell_id}"
    yield "Data", f"{setting.corpus}, store {setting.store}"
    yield "Recipe", f"{setting.recipe} ({setting.recipe_hash or 'unknown'}), protocol {setting.protocol}"
    folds, seeds = (listing(sorted({int(value) for value in done[column]})) for column in ("fold", "seed"))
    yield "Folds; seeds", f"{folds}; {seeds}"
    yield "Code", versions_of(results, ids)
    yield "Commit", _commits(commits_of(results, ids))
    yield "Hardware", _hardware([record.env for record in records])
    systems = list(dict.fromkeys(str(system) for system in done["system"]))
    yield "Citation", f"crossfold cite {sweeps[0] if sweeps else systems[0]}" if systems else ""


def _commits(commits: Mapping[str, int]) -> str:
    """The commits of the cells; with several, of how many cells each is."""
    if len(commits) == 1:
        return next(iter(commits))
    return "; ".join(f"{commit}: {cells} cells" for commit, cells in list(commits.items())[:3]) + (
        f"; and {len(commits) - 3} more" if len(commits) > 3 else ""
    )


def _hardware(envs: Sequence[dict[str, object]]) -> str:
    """The machines of the cells, the most frequent first."""
    kinds = Counter(
        json.dumps([env.get("device", ""), machine.get("system", ""), machine.get("cores")])
        for env in envs
        if isinstance(machine := env.get("machine", {}), dict)
    )
    words = []
    for text, _ in kinds.most_common(3):
        device, system, cores = json.loads(text)
        words.append(", ".join(filter(None, [device, system, f"{cores} cores" if cores else ""])))
    more = f" and {len(kinds) - 3} more kinds of machine" if len(kinds) > 3 else ""
    return "; ".join(filter(None, words)) + more or "not recorded"
