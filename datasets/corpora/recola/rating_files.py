"""Files of ratings with a time column, as AVEC 2016 gives them out: arff, or csv.

@relation GOLDSTANDARD                          frameTime;GoldStandard        time;FM1;FM2;FM3;FF1;FF2;FF3
@attribute Instance_name string                 0.00;-0.153                   0.00;-0.14;0.02; ...
@attribute frameTime numeric                    0.04;-0.151                   0.04;-0.13;0.02; ...
@attribute GoldStandard numeric
@data
'train_1',0.00,-0.153
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.findings import Finding, Refusal, Report, and_more, has_errors, relative
from crossfold.datasets.corpora.table_places import find_places
from crossfold.datasets.corpora.tables import Table, read_table

RATE = 25
"""Labels per second: one every 40 ms."""
# How far a time may be from a multiple of 40 ms, in parts of 40 ms; times are rounded to milliseconds.
_OFF_GRID = 0.1
_LONGEST = 36_000  # seconds; a later time is no time of a recording
_USUAL = frozenset({"time", "frametime"})  # names that the owners gave the column of times
_MISSING = ("", "?")  # cells without a rating, in csv and in arff
_AGAIN = "fetch the file again, or correct it"


@dataclass(frozen=True)
class Ratings:
    """The ratings of one file on the grid of labels: row k belongs to second k / `RATE`."""

    values: np.ndarray
    """float64 [rows, columns]; not a number where the file has no row for that time, or an empty cell."""
    columns: tuple[str, ...]


def read_ratings(path: Path, root: Path, findings: list[Finding]) -> Ratings | None:
    """Reads a file of ratings; adds to `findings` what is wrong with it, and gives nothing where that is an error."""
    found: list[Finding] = []
    report = Report(relative(path, root), found)
    ratings = None
    # Every row has its time, so empty lines between them mean nothing.
    table = read_table(path, root, found, gaps=True)
    if table is not None:
        with report:
            ratings = _on_grid(table, report)
    findings += found
    return None if has_errors(found) else ratings


def _on_grid(table: Table, report: Report) -> Ratings:
    """The ratings of a table by their times. Raises `Refusal`."""
    places, columns = find_places(table, report.findings, "label-number")
    if places.way != "time" or not columns:
        problem = f"has the columns {', '.join(table.columns)[:80]}"
        remedy = "it must have one of time (`time` or `frameTime`) and one or more of ratings"
        raise Refusal("label-format", problem, remedy)
    if places.column.lower() not in _USUAL:
        report.note("table-meaning", "; ".join((table.written, *places.said)), "nothing to do if that is right")
    values = np.stack([table.numbers(c, report.findings, "label-number", _MISSING) for c in columns], axis=1)
    lines = table.lines
    time: np.ndarray = places.first * (places.unit or 1.0)
    if has_errors(report.findings):
        return Ratings(values, tuple(columns))
    outside = np.argwhere(np.abs(values) > 1)
    if len(outside):
        row, column = outside[0]
        wrong = f"{columns[column]} is {values[row, column]:g}, outside [-1, 1]{and_more(len(outside))}"
        report.error("label-range", f"line {lines[row]}: {wrong}", _AGAIN)
    rated = ~np.isnan(values).all(1)
    if not rated.any():
        raise Refusal("label-empty", "has no rating in any row", _AGAIN)
    rows = _rows_of_grid(time, lines)
    _note_gaps(rows[rated], int(rows[-1]), report)
    grid = np.full((int(rows[-1]) + 1, len(columns)), np.nan)
    grid[rows] = values
    return Ratings(grid, tuple(columns))


def _rows_of_grid(times: np.ndarray, lines: Sequence[int]) -> np.ndarray:
    """Row of the grid of each time, int64 [rows], strictly rising. Raises `Refusal`."""
    grid = np.clip(times * RATE, -1, _LONGEST * RATE + 1)
    places: np.ndarray = np.rint(grid).astype(np.int64)
    off = np.flatnonzero((np.abs(grid - places) > _OFF_GRID) | (places < 0) | (places > _LONGEST * RATE))
    steps = np.diff(places)
    remedy = f"RECOLA has {RATE} labels per second, from 0 s on, with times in seconds; resample the file"
    if len(off):
        problem = f"line {lines[off[0]]}: time {times[off[0]]:g} s is no multiple of 0.04 s{and_more(len(off))}"
        raise Refusal("label-rate", problem, remedy)
    if len(steps) and np.median(steps) > 1:
        raise Refusal("label-rate", f"has a rating every {np.median(steps) / RATE:g} s", remedy)
    for rule, wrong, says in (
        ("label-time-twice", steps == 0, "is there twice"),
        ("label-time-order", steps < 0, "comes after a later one"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong)) + 1
            problem = f"line {lines[at]}: time {times[at]:g} s {says}{and_more(int(wrong.sum()))}"
            raise Refusal(rule, problem, "sort the rows; keep one for each time")
    return places


def _note_gaps(places: np.ndarray, last: int, report: Report) -> None:
    """Rows that are missing or empty, up to row `last`, are reported, and unlabelled."""
    edges = np.concatenate([[-1], places, [last + 1]])
    holes = np.flatnonzero(np.diff(edges) > 1)
    if len(holes):
        begin, end = (edges[holes[0]] + 1) / RATE, edges[holes[0] + 1] / RATE
        more = f", nor in {len(holes) - 1} more gaps" if len(holes) > 1 else ""
        problem = f"has no rating from {begin:g} s to {end:g} s{more}"
        report.warning("label-gap", problem, "nothing to do: those frames are unlabelled")
