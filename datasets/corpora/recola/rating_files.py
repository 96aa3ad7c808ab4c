"""Files of ratings with a time column, as AVEC 2016 gives them out: arff, or csv parted by `;`, `,` or tabs.

    @relation GOLDSTANDARD                          frameTime;GoldStandard        time;FM1;FM2;FM3;FF1;FF2;FF3
    @attribute Instance_name string                 0.00;-0.153                   0.00;-0.14;0.02; ...
    @attribute frameTime numeric                    0.04;-0.151                   0.04;-0.13;0.02; ...
    @attribute GoldStandard numeric
    @data
    'train_1',0.00,-0.153

`scipy.io.arff` has no string attributes, which every one of these files has; hence the reader here.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from crossfold.datasets.corpora.findings import Finding, relative

RATE = 25
"""Labels a second: one every 40 ms."""
_OFF_GRID = 0.1
"""How far a time may be from a multiple of 40 ms, in parts of 40 ms; times are rounded to milliseconds."""
_LONGEST = 36_000
"""Seconds; a later time is no time of a recording."""
_TIMES = frozenset({"time", "frametime", "timestamp", "t"})
_NAMES = frozenset({"instance_name", "name", "file"})
_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(\S.*)", re.IGNORECASE)
_AGAIN = "fetch the file again, or correct it"
_Rows = list[tuple[int, list[str]]]


class _Refuse(Protocol):
    """Notes an error of the file at hand."""

    def __call__(self, rule: str, problem: str, remedy: str = ...) -> None: ...


@dataclass(frozen=True)
class Ratings:
    """The ratings of one file on the grid of labels: row k belongs to second k / `RATE`."""

    values: np.ndarray
    """float64 [rows, columns]; not a number where the file has no row for that time, or an empty cell."""
    columns: tuple[str, ...]


def read_ratings(path: Path, root: Path, findings: list[Finding]) -> Ratings | None:
    """Reads a file of ratings; adds to `findings` what is wrong with it, and gives nothing where that is an error."""
    name = relative(path, root)
    before = len(findings)

    def refuse(rule: str, problem: str, remedy: str = _AGAIN) -> None:
        findings.append(Finding(name, rule, problem, remedy))

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"not UTF-8, byte {error.start}" if isinstance(error, UnicodeDecodeError) else error.strerror
        refuse("label-readable", f"cannot be read as text ({reason})")
        return None
    if not text.strip():
        refuse("label-empty", "is empty")
        return None
    parse = _parse_arff if path.suffix.lower() == ".arff" else _parse_csv
    parsed = parse(text, refuse)
    if parsed is None:
        return None
    columns, rows = parsed
    if not rows:
        refuse("label-empty", "has no row of ratings")
        return None
    table = _numbers(columns, rows, refuse)
    if table is None:
        return None
    places = _places(table[:, 0], [line for line, _ in rows], refuse)
    _check_range(table[:, 1:], columns[1:], rows, refuse)
    rated = ~np.isnan(table[:, 1:]).all(1)
    if not rated.any():
        refuse("label-empty", "has no rating in any row")
    if places is None or any(finding.severity == "error" for finding in findings[before:]):
        return None
    values = np.full((int(places[-1]) + 1, len(columns) - 1), np.nan)
    values[places] = table[:, 1:]
    _note_gaps(places[rated], int(places[-1]), name, findings)
    return Ratings(values, tuple(columns[1:]))


def _parse_arff(text: str, refuse: _Refuse) -> tuple[list[str], _Rows] | None:
    """Names of the columns, time first, and the cells of each row with its line; names of the recording left out."""
    names: list[str] = []
    kept: list[int] = []
    rows: _Rows = []
    in_data = False
    for line, content in enumerate(text.splitlines(), start=1):
        content = content.strip()
        if not content or content.startswith("%"):
            continue
        if in_data:
            if content.startswith("{"):
                refuse("label-format", f"line {line} is a row of sparse arff", "write it as a plain row")
                return None
            rows.append((line, [cell.strip().strip("'\"") for cell in content.split(",")]))
        elif content.lower().startswith("@data"):
            in_data = True
        elif content.lower().startswith("@attribute"):
            match = _ATTRIBUTE.match(content)
            if match is None:
                refuse("label-format", f"line {line} is no attribute: {content[:40]!r}")
                return None
            if match[2].strip().lower() in ("numeric", "real", "integer"):
                kept.append(len(names))
            names.append(match[1].strip("'\""))
        elif not content.lower().startswith("@relation"):
            refuse(
                "label-format", f"is not arff: line {line} is {content[:40]!r}", "it may be a csv; name it .csv then"
            )
            return None
    if not in_data:
        refuse("label-format", "is not arff: it has no @data", "the file is cut, or something else; fetch it again")
        return None
    return _order(names, kept, rows, refuse)


def _parse_csv(text: str, refuse: _Refuse) -> tuple[list[str], _Rows] | None:
    lines = text.splitlines()
    header = next(line for line in lines if line.strip())
    delimiter = max(";,\t", key=header.count)
    if not header.count(delimiter):
        remedy = "part the columns by `;`, `,` or tabs, below a header such as `time;GoldStandard`"
        refuse("label-format", f"has one column, its first line is {header[:40]!r}", remedy)
        return None
    cells = csv.reader(lines, delimiter=delimiter)
    try:
        rows = [(cells.line_num, [cell.strip() for cell in row]) for row in cells if any(cell.strip() for cell in row)]
    except csv.Error as error:
        refuse("label-format", f"is no table ({error})", "look for a quote that is opened and never closed")
        return None
    if not rows:
        refuse("label-empty", "has no row of ratings")
        return None
    names = rows.pop(0)[1]
    if all(_number(name) is not None for name in names):
        refuse("label-header", f"has no header, it begins with {header[:40]!r}", "put `time;GoldStandard` above it")
        return None
    if delimiter == ";":
        rows = [(line, [cell.replace(",", ".") for cell in row]) for line, row in rows]
    # Exports often end every line with a separator.
    if names[-1] == "" and all(row[-1] == "" for _, row in rows):
        names, rows = names[:-1], [(line, row[:-1] if len(row) == len(names) else row) for line, row in rows]
    return _order(names, [k for k, name in enumerate(names) if name.lower() not in _NAMES], rows, refuse)


def _order(names: Sequence[str], kept: Sequence[int], rows: _Rows, refuse: _Refuse) -> tuple[list[str], _Rows] | None:
    """Columns with time first; rows that have too few or too many cells are one finding."""
    times = [k for k in kept if names[k].lower() in _TIMES]
    others = [k for k in kept if k not in times]
    if len(times) != 1 or not others:
        problem = f"has the columns {', '.join(names)[:80]}"
        refuse("label-format", problem, "it must have one of time (`time` or `frameTime`) and one or more of ratings")
        return None
    uneven = [(line, len(row)) for line, row in rows if len(row) != len(names)]
    if uneven:
        more = f", and {len(uneven) - 1} more" if len(uneven) > 1 else ""
        refuse("label-row", f"line {uneven[0][0]} has {uneven[0][1]} cells for {len(names)} columns{more}")
        return None
    order = times + others
    return [names[k] for k in order], [(line, [row[k] for k in order]) for line, row in rows]


def _number(cell: str) -> float | None:
    """A finite number, NaN for a cell without one, nothing for anything else."""
    if cell in ("", "?"):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(columns: Sequence[str], rows: _Rows, refuse: _Refuse) -> np.ndarray | None:
    table = np.empty((len(rows), len(columns)))
    wrong: list[tuple[int, str, str]] = []
    for at, (line, cells) in enumerate(rows):
        for column, cell in enumerate(cells):
            value = _number(cell)
            if value is None or (column == 0 and math.isnan(value)):
                wrong.append((line, columns[column], cell))
            else:
                table[at, column] = value
    if wrong:
        line, column_name, cell = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        refuse("label-number", f"line {line}: {column_name} is {cell[:40]!r}, not a number{more}")
        return None
    return table


def _check_range(values: np.ndarray, columns: Sequence[str], rows: _Rows, refuse: _Refuse) -> None:
    wrong = np.argwhere(np.abs(values) > 1)
    if len(wrong):
        row, column = (int(k) for k in wrong[0])
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        problem = f"line {rows[row][0]}: {columns[column]} is {values[row, column]:g}, outside [-1, 1]{more}"
        refuse("label-range", problem)


def _places(times: np.ndarray, lines: Sequence[int], refuse: _Refuse) -> np.ndarray | None:
    """Row of the grid of each time, int64 [rows], strictly rising."""
    grid = np.clip(times * RATE, -1, _LONGEST * RATE + 1)
    places: np.ndarray = np.rint(grid).astype(np.int64)
    off = np.flatnonzero((np.abs(grid - places) > _OFF_GRID) | (places < 0) | (places > _LONGEST * RATE))
    steps = np.diff(places)
    remedy = f"RECOLA has {RATE} labels a second, from 0 s on, with times in seconds; resample the file"
    if len(off):
        more = f", and {len(off) - 1} more" if len(off) > 1 else ""
        refuse("label-rate", f"line {lines[off[0]]}: time {times[off[0]]:g} s is no multiple of 0.04 s{more}", remedy)
        return None
    if len(steps) and np.median(steps) > 1:
        refuse("label-rate", f"has a rating every {np.median(steps) / RATE:g} s", remedy)
        return None
    for rule, wrong, says in (
        ("label-time-twice", steps == 0, "is there twice"),
        ("label-time-order", steps < 0, "comes after a later one"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong)) + 1
            more = f", and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
            refuse(
                rule, f"line {lines[at]}: time {times[at]:g} s {says}{more}", "sort the rows; keep one for each time"
            )
    return places if (steps > 0).all() else None


def _note_gaps(places: np.ndarray, last: int, name: str, findings: list[Finding]) -> None:
    """Rows that are missing or empty, up to row `last`, are said, and unlabelled."""
    edges = np.concatenate([[-1], places, [last + 1]])
    holes = np.flatnonzero(np.diff(edges) > 1)
    if len(holes):
        begin, end = (edges[holes[0]] + 1) / RATE, edges[holes[0] + 1] / RATE
        more = f", nor in {len(holes) - 1} more gaps" if len(holes) > 1 else ""
        problem = f"has no rating from {begin:g} s to {end:g} s{more}"
        findings.append(Finding(name, "label-gap", problem, "nothing to do: those frames are unlabelled", "warning"))
