"""Tables that people write by hand or export from other tools: csv, parquet and arff, checked by the same rules.

What is wrong with a table is a finding, and a table with an error is not used at all. What the names of columns mean is
a question of `table_places`.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.findings import Finding, Refusal, Report, and_more, relative
from crossfold.datasets.corpora.table_files import (
    MOST_COLUMNS,
    MOST_ROWS,
    MOST_TEXT_ROWS,
    TypedCells,
    check_size,
    in_blocks,
    read_cells,
)
from crossfold.datasets.media.delimited_text import Lines, TextCells

MISSING = frozenset(
    {"", "na", "nan", "-nan", "nan(ind)", "-nan(ind)", "n/a", "#n/a", "<na>", "nat", "none", "null", "nil", "-", "?"}
)
"""Cells that say there is no value, in any case; programs of Windows print `-nan(ind)`."""
_PARTED = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars", " ": "blanks"}
INDEX = "index"
"""Name of a first column without one, as pandas writes the index of a data frame."""


@dataclass(frozen=True)
class Row:
    """One line of a table below its header; empty cells are empty strings."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table whose rows all have a cell for each column."""

    file: str
    """As findings name it."""
    columns: tuple[str, ...]
    lines: Sequence[int]
    """Where each row stands in its file, counted from 1."""
    cells: Mapping[str, Sequence[str] | np.ndarray]
    """By column: text, or float64 [rows] where the file or the reader says that they are numbers."""
    decimal_comma: bool
    """Numbers may be written `0,5`: so spreadsheets write them where cells are parted by semicolons or tabs."""
    seconds: frozenset[str] = frozenset()
    """Columns that the file itself marks as durations; they hold seconds."""
    written: str = ""
    """How the file is written, in words."""

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows as text."""
        columns = [[str(cell) for cell in self.cells[column]] for column in self.columns]
        return tuple(
            Row(line, dict(zip(self.columns, cells, strict=True)))
            for line, *cells in zip(self.lines, *columns, strict=True)
        )

    def numbers(
        self, column: str, findings: list[Finding], rule: str, missing: Collection[str] = MISSING
    ) -> np.ndarray:
        """float64 [rows] of a column, not a number where the cell is `missing`; cells that are text are one finding."""
        cells = self.cells[column]
        if isinstance(cells, np.ndarray):
            values, wrong = cells, [int(at) for at in np.flatnonzero(np.isinf(cells))]
        else:
            values, wrong = np.full(len(self), np.nan), []
            for index, cell in enumerate(cells):
                try:
                    values[index] = read_number(cell, self.decimal_comma, missing)
                except ValueError:
                    wrong.append(index)
        if wrong:
            at = wrong[0]
            problem = f"line {self.lines[at]}: {column} is {str(cells[at])[:40]!r}, not a number{and_more(len(wrong))}"
            Report(self.file, findings).error(rule, problem, "correct it, or leave the cell empty: unlabelled")
        return values


def read_table(
    path: Path,
    root: Path,
    findings: list[Finding],
    known: Collection[str] = (),
    *,
    gaps: bool = False,
    numeric: bool = False,
    most_columns: int = MOST_COLUMNS,
    unnamed: Sequence[str] = (),
) -> Table | None:
    """A table of a csv, parquet or arff file; nothing, and a finding, where it cannot be used.

    known: columns that are found in any case; all others are names of the user's own and stay as written.
    gaps: whether empty lines between the rows mean nothing; where rows are counted, they may not.
    numeric: whether columns of numbers are wanted as such, which takes a tenth of the memory.
    unnamed: names of the columns of a file that begins with values, which is a warning; without, it is refused.
    """
    report = Report(relative(path, root), findings)
    with report:
        cells = read_cells(path, most_columns)
        if isinstance(cells, TypedCells):
            return _of_types(report.file, cells)
        first = next((line for line in cells.lines if any(line[1])), None)
        if first is None:
            raise Refusal("table-empty", "is empty", "write a header line and a row per entry")
        header, lines = first[1], cells.lines
        if unnamed and all(_is_number(cell) for cell in header):
            remedy = f"it is taken for the first row; put a line `{','.join(unnamed)}` above it"
            report.warning("table-header", f"has no header, it begins with {','.join(header)[:40]!r}", remedy)
            header, lines = list(unnamed), chain([first], lines)
        reading = _Rows(len(header), gaps=gaps, numeric=numeric, most_columns=most_columns)
        return _of_text(report.file, header, replace(cells, lines=lines), known, reading)
    return None


def _of_types(file: str, cells: TypedCells) -> Table:
    count = len(next(iter(cells.columns.values()), ()))
    if not count:
        raise Refusal("table-empty", "has no row", "write a row per entry")
    return Table(file, tuple(cells.columns), range(1, count + 1), cells.columns, False, cells.seconds, "parquet")


def _of_text(file: str, header: list[str], cells: TextCells, known: Collection[str], reading: "_Rows") -> Table:
    """The table that these lines are below their header. Raises `Refusal` where they are none."""
    reading.take(cells.lines)
    # Exports often end every line with a separator.
    if len(header) > 1 and not header[-1] and reading.last_is_empty:
        header = header[:-1]
    if not cells.named:
        _check_header(header, cells.delimiter)
    if not header[0] and len(header) > 1 and INDEX not in header:
        header[0] = INDEX
    columns = tuple(_column(cell, known) for cell in header)
    twice = sorted(column for column, count in Counter(columns).items() if count > 1 and column)
    if twice or "" in columns:
        what = f"has column {twice[0]!r} twice" if twice else f"has no name for column {columns.index('') + 1}"
        raise Refusal("table-columns", what, "each column has one name of its own")
    reading.check(len(columns))
    decimal_comma = not cells.named and cells.delimiter != ","
    written = "arff" if cells.named else f"csv with {_PARTED.get(cells.delimiter, repr(cells.delimiter))}"
    found = dict(zip(columns, reading.columns(), strict=False))  # the last may be that of a closing separator
    return Table(file, columns, reading.lines, found, decimal_comma, written=written)


class _Rows:
    """The rows below a header, taken in block by block, and by column."""

    def __init__(self, width: int, *, gaps: bool, numeric: bool, most_columns: int) -> None:
        check_size(0, width, most_columns)
        self.lines: list[int] = []
        self.last_is_empty = True
        """Whether the last cell of every row is empty."""
        self._width, self._gaps, self._numeric, self._most_columns = width, gaps, numeric, most_columns
        self._uneven: list[tuple[int, int]] = []
        self._blocks: list[list[np.ndarray | list[str]]] = [[] for _ in range(width)]

    def take(self, lines: Lines) -> None:
        """Reads all lines. Raises `Refusal` for an empty one between others, and for too many."""
        empty = None
        for block in in_blocks(lines):
            if empty is None and all(len(cells) == self._width and cells[0] for _, cells in block):  # as nearly always
                rows: Sequence[list[str]] = [cells for _, cells in block]
                self.lines += [line for line, _ in block]
                self.last_is_empty &= not any(cells[-1] for cells in rows)
            else:
                empty, rows = self._take_uneven(block, empty)
            check_size(len(self.lines), self._width, self._most_columns, MOST_ROWS if self._numeric else MOST_TEXT_ROWS)
            for into, column in zip(self._blocks, zip(*rows, strict=True), strict=False):
                into.append(self._numbers(column) if self._numeric else list(column))

    def _take_uneven(
        self, block: Sequence[tuple[int, list[str]]], empty: int | None
    ) -> tuple[int | None, Sequence[list[str]]]:
        """The first empty line so far, and the rows of a block of which some may be empty, or too short or long."""
        rows = []
        for line, cells in block:
            if not any(cells):
                empty = empty or line
                continue
            if empty and not self._gaps:
                remedy = "rows are counted: take it out, or write `nan` where there is no value"
                raise Refusal("table-row", f"line {empty} is empty", remedy)
            if len(cells) == self._width + 1 and not cells[-1]:
                cells = cells[:-1]  # a separator at the end of the row, none at that of the header
            self.lines.append(line)
            if len(cells) != self._width:
                self._uneven.append((line, len(cells)))
                continue
            self.last_is_empty &= not cells[-1]
            rows.append(cells)
        return empty, rows

    def check(self, columns: int) -> None:
        """Raises `Refusal` where rows have more or fewer cells than there are columns, or where there is no row."""
        if self._uneven:
            line, cells = self._uneven[0]
            more = and_more(len(self._uneven), " lines")
            problem = f"line {line} has {cells} cells for {columns} columns{more}"
            raise Refusal("table-row", problem, "give each row a cell for each column; put texts with commas in quotes")
        if not self.lines:
            raise Refusal("table-empty", "has a header and no row", "write a row per entry")

    def columns(self) -> list[np.ndarray | list[str]]:
        """The cells by column: numbers where all of them are."""
        found: list[np.ndarray | list[str]] = []
        for blocks in self._blocks:
            numbers = [block for block in blocks if isinstance(block, np.ndarray)]
            if numbers and len(numbers) == len(blocks):
                found.append(np.concatenate(numbers))
            else:
                found.append([str(cell) for block in blocks for cell in block])
        return found

    @staticmethod
    def _numbers(cells: Sequence[str]) -> np.ndarray | list[str]:
        try:
            values = np.array([float(cell) for cell in cells])
        except ValueError:
            return list(cells)
        # Python reads 1_000 as a number.
        return list(cells) if "_" in "".join(cells) else values


def _check_header(header: Sequence[str], delimiter: str) -> None:
    """Raises `Refusal` where the first line holds values: taken for names, it would shift all rows by one."""
    numbers = [cell for cell in header if _is_number(cell)]
    if numbers or all(cell.lower() in MISSING for cell in header):
        named = ", and " + repr(numbers[0])[:40] + " names no column" if len(numbers) < len(header) and numbers else ""
        problem = f"has no header, it begins with {delimiter.join(header)[:40]!r}{named}"
        raise Refusal("table-header", problem, "put a line with the names of the columns above it; no number is one")


def _column(cell: str, known: Collection[str]) -> str:
    kind, colon, target = cell.partition(":")
    if colon and kind.strip().lower() == "label":
        return f"label:{target.strip()}"
    return cell.lower() if cell.lower() in known else cell


def _is_number(cell: str) -> bool:
    try:
        return not math.isnan(read_number(cell, decimal_comma=True))
    except ValueError:
        return False


def read_number(text: str, decimal_comma: bool = False, missing: Collection[str] = MISSING) -> float:
    """A finite number; not a number for a `missing` cell. Raises `ValueError` for anything else."""
    if text.lower() in missing:
        return math.nan
    text = text.replace("\u2212", "-")  # the minus of typesetting
    value = float(text.replace(",", ".") if decimal_comma else text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value
