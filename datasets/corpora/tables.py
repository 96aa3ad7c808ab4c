"""Tables that people write by hand or export from other tools: csv, parquet and arff, checked by the same rules.

A csv file is parted by commas, semicolons or tabs. Of an arff file the numeric columns are read. What is wrong with a
table is a finding, and a table with an error is not used at all.
"""

import csv
import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.findings import Finding, Refusal, Report, and_more, relative

MISSING = frozenset({"", "na", "nan", "n/a", "none", "null", "-"})
"""Cells that say there is no value, in any case."""
_DELIMITERS = ";\t,"  # a comma comes last: next to the others it may be a decimal comma
_Lines = list[tuple[int, list[str]]]
"""Number of the line in the file, and its cells; the first is the header."""


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
    rows: tuple[Row, ...]
    decimal_comma: bool
    """Numbers may be written `0,5`: so spreadsheets write them where cells are parted by semicolons."""

    def numbers(
        self, column: str, findings: list[Finding], rule: str, missing: Collection[str] = MISSING
    ) -> np.ndarray:
        """float64 [rows] of a column, not a number where the cell is `missing`; cells that are text are one finding."""
        values = np.full(len(self.rows), np.nan)
        wrong: list[Row] = []
        for index, row in enumerate(self.rows):
            try:
                values[index] = read_number(row.cells[column], self.decimal_comma, missing)
            except ValueError:
                wrong.append(row)
        if wrong:
            cell = wrong[0].cells[column][:40]
            problem = f"line {wrong[0].line}: {column} is {cell!r}, not a number{and_more(len(wrong))}"
            Report(self.file, findings).error(rule, problem, "correct it, or leave the cell empty: unlabelled")
        return values


def read_table(
    path: Path, root: Path, findings: list[Finding], known: Collection[str] = (), *, gaps: bool = False
) -> Table | None:
    """A table of a csv, parquet or arff file; nothing, and a finding, where it cannot be used.

    known: columns that are found in any case; all others are names of the user's own and stay as written.
    gaps: whether empty lines between the rows mean nothing; where rows are counted, they may not.
    """
    report = Report(relative(path, root), findings)
    with report:
        lines, delimiter = _read_lines(path)
        return _checked(report.file, lines, delimiter, known, gaps=gaps)
    return None


def _read_lines(path: Path) -> tuple[_Lines, str]:
    """The lines of a file, and what parts their cells. Raises `Refusal`."""
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            # As text, parquet is checked by the rules of csv; numbers are written with all their digits.
            return _csv_lines(_parquet_text(path), ",")
        # A byte order mark is no part of the first column's name.
        text = path.read_text(encoding="utf-8-sig")
        if kind == ".arff":
            return _arff_lines(text), ","
        first = text.lstrip("\r\n").partition("\n")[0]
        return _csv_lines(text, max(_DELIMITERS, key=first.count))
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise Refusal("table-encoding", problem, "save it as text with encoding UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise Refusal("table-readable", f"cannot be read ({reason})", "fetch or write it again") from None
    except csv.Error as error:
        remedy = "look for a quote that is opened and never closed"
        raise Refusal("table-readable", f"is not a table ({error})", remedy) from None


def _csv_lines(text: str, delimiter: str) -> tuple[_Lines, str]:
    # The csv module takes either end of line where the text is not translated.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader], delimiter


def _parquet_text(path: Path) -> str:
    try:
        return str(pd.read_parquet(path).to_csv(index=False))
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise ValueError(f"not a parquet file: {error}") from None


def _arff_lines(text: str) -> _Lines:
    """Numeric columns of an arff file; text there names the recording, which the name of the file does, too."""
    import arff  # 70 ms, which commands without such files save

    if not text.strip():
        return []
    lines = text.splitlines()
    try:
        document = arff.loads(lines)
    except (arff.ArffException, ValueError, OverflowError) as error:
        at = getattr(error, "line", 0)
        reason = str(error).partition(" at line")[0].partition(" in line")[0].rstrip(",")
        rule = "table-row" if isinstance(error, arff.BadNumericalValue | arff.BadDataFormat) else "table-readable"
        problem = f"is not arff: {reason}, line {at} is {lines[at - 1][:40]!r}"
        raise Refusal(rule, problem, "correct the line, or fetch the file again; a csv file is named .csv") from None
    numeric = [k for k, (_, kind) in enumerate(document["attributes"]) if kind in ("NUMERIC", "REAL", "INTEGER")]
    begin = next(number for number, line in enumerate(lines, start=1) if line.strip().upper().startswith("@DATA"))
    places = [n for n, line in enumerate(lines, 1) if n > begin and line.strip() and line.strip()[0] != "%"]
    rows = [["" if row[k] is None else repr(row[k]) for k in numeric] for row in document["data"]]
    return [(0, [document["attributes"][k][0] for k in numeric]), *zip(places, rows, strict=True)]


def _checked(file: str, lines: _Lines, delimiter: str, known: Collection[str], *, gaps: bool) -> Table:
    """The table that these lines are. Raises `Refusal` where they are none."""
    filled = [index for index, (_, cells) in enumerate(lines) if any(cells)]
    empty = sorted(set(range(filled[-1])) - set(filled)) if filled else []
    if empty and not gaps:
        remedy = "rows are counted: take it out, or write `nan` where there is no value"
        raise Refusal("table-row", f"line {lines[empty[0]][0]} is empty", remedy)
    lines = [lines[index] for index in filled]
    if not lines:
        raise Refusal("table-empty", "is empty", "write a header line and a row per entry")
    # Exports often end every line with a separator.
    if len(lines[0][1]) > 1 and all(cells[-1] == "" for _, cells in lines):
        lines = [(line, cells[:-1]) for line, cells in lines]
    if all(_is_number(cell) for cell in lines[0][1]):
        problem = f"has no header, it begins with {delimiter.join(lines[0][1])[:40]!r}"
        raise Refusal("table-header", problem, "put a line with the names of the columns above it")
    columns = tuple(_column(cell, known) for cell in lines[0][1])
    twice = sorted({column for column in columns if columns.count(column) > 1 and column})
    if twice or "" in columns:
        what = f"has column {twice[0]!r} twice" if twice else f"has no name for column {columns.index('') + 1}"
        raise Refusal("table-columns", what, "each column has one name of its own")
    uneven = [(line, len(cells)) for line, cells in lines[1:] if len(cells) != len(columns)]
    if uneven:
        more = and_more(len(uneven), " lines")
        problem = f"line {uneven[0][0]} has {uneven[0][1]} cells for {len(columns)} columns{more}"
        raise Refusal("table-row", problem, "give each row a cell for each column; put texts with commas in quotes")
    rows = tuple(Row(line, dict(zip(columns, cells, strict=True))) for line, cells in lines[1:])
    if not rows:
        raise Refusal("table-empty", "has a header and no row", "write a row per entry")
    return Table(file, columns, rows, decimal_comma=delimiter == ";")


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
    value = float(text.replace(",", ".") if decimal_comma else text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value
