"""Tables that people write by hand or export from a spreadsheet, and the paths in them; what is wrong is a finding."""

import csv
import difflib
import io
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.findings import Finding, relative
from crossfold.platform.core.errors import did_you_mean

MISSING = frozenset({"", "na", "nan", "n/a", "none", "null", "-"})
"""Cells that say there is no value, in any case."""
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """One line of a table below its header; empty cells are empty strings."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table whose rows all have a cell for each column."""

    file: str
    """As findings name it."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    decimal_comma: bool
    """Numbers may be written `0,5`: so spreadsheets write them where cells are parted by semicolons."""

    def numbers(self, column: str, findings: list[Finding], rule: str) -> np.ndarray:
        """float64 [rows] of a column, not a number where the cell is empty; cells that are text are one finding."""
        values = np.full(len(self.rows), np.nan)
        wrong: list[Row] = []
        for index, row in enumerate(self.rows):
            try:
                values[index] = read_number(row.cells[column], self.decimal_comma)
            except ValueError:
                wrong.append(row)
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            problem = f"line {wrong[0].line}: {column} is {wrong[0].cells[column][:40]!r}, not a number{more}"
            findings.append(Finding(self.file, rule, problem, "correct it, or leave the cell empty: unlabelled"))
        return values


def read_table(
    path: Path, root: Path, findings: list[Finding], known: Collection[str] = (), *, gaps: bool = False
) -> Table | None:
    """A table parted by commas, semicolons or tabs, or a parquet file; nothing where it cannot be used.

    known: columns that are found in any case; all others are names of the user's own and stay as written.
    gaps: whether empty lines between the rows mean nothing; where rows are counted, they may not.
    """
    name = relative(path, root)

    def refuse(rule: str, problem: str, remedy: str) -> None:
        findings.append(Finding(name, rule, problem, remedy))

    try:
        # The csv module takes either end of line; a byte order mark is no part of the first column's name.
        text = _parquet_text(path) if path.suffix == ".parquet" else path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        refuse("table-encoding", f"is not UTF-8 text (byte {error.start})", "save it as CSV with encoding UTF-8")
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        refuse("table-readable", f"cannot be read ({reason})", "fetch or write it again")
        return None
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        lines = [
            (reader.line_num, [cell.strip() for cell in cells])
            for reader in [csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)]
            for cells in reader
        ]
    except csv.Error as error:
        refuse("table-readable", f"is not a table ({error})", "look for a quote that is opened and never closed")
        return None
    filled = [index for index, (_, cells) in enumerate(lines) if any(cells)]
    empty = sorted(set(range(filled[-1])) - set(filled)) if filled else []
    if empty and not gaps:
        problem = f"line {lines[empty[0]][0]} is empty"
        refuse("table-row", problem, "rows are counted: take it out, or write `nan` where there is no value")
        return None
    lines = [lines[index] for index in filled]
    if not lines:
        refuse("table-empty", "is empty", "write a header line and a row an entry")
        return None
    columns = tuple(_column(cell, known) for cell in lines[0][1])
    twice = sorted({column for column in columns if columns.count(column) > 1 and column})
    if twice or "" in columns:
        what = f"has column {twice[0]!r} twice" if twice else f"has no name for column {columns.index('') + 1}"
        refuse("table-columns", what, "each column has one name of its own")
        return None
    uneven = [(line, len(cells)) for line, cells in lines[1:] if len(cells) != len(columns)]
    if uneven:
        more = f", and {len(uneven) - 1} more lines" if len(uneven) > 1 else ""
        problem = f"line {uneven[0][0]} has {uneven[0][1]} cells for {len(columns)} columns{more}"
        refuse("table-row", problem, "give each row a cell for each column; put texts with commas in quotes")
        return None
    rows = tuple(Row(line, dict(zip(columns, cells, strict=True))) for line, cells in lines[1:])
    if not rows:
        refuse("table-empty", "has a header and no row", "write a row an entry")
        return None
    return Table(name, columns, rows, decimal_comma=delimiter == ";")


def _parquet_text(path: Path) -> str:
    """A parquet table as CSV, so that both are checked by the same rules; raises `ValueError` where it is none."""
    try:
        return str(pd.read_parquet(path).to_csv(index=False))
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise ValueError(f"not a parquet file: {error}") from None


def _column(cell: str, known: Collection[str]) -> str:
    kind, colon, target = cell.partition(":")
    if colon and kind.strip().lower() == "label":
        return f"label:{target.strip()}"
    return cell.lower() if cell.lower() in known else cell


def read_number(text: str, decimal_comma: bool = False) -> float:
    """A finite number; not a number for an empty cell. Raises `ValueError` for anything else."""
    if text.lower() in MISSING:
        return math.nan
    value = float(text.replace(",", ".") if decimal_comma else text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value


def locate(
    cell: str, what: str, line: int, root: Path, findings: list[Finding], *, folder: bool = False
) -> Path | None:
    """The file or folder that column `what` of the manifest names, under `root`; nothing, and a finding, if it is not.

    A link to elsewhere may stand under the root; a path that leads out of it may not: the corpus then moves as one.
    """

    def refuse(rule: str, problem: str, remedy: str) -> None:
        findings.append(Finding("manifest.csv", rule, f"line {line}: {what} {cell!r} {problem}", remedy))

    spelled = cell.replace("\\", "/")
    if spelled.startswith(("/", "~")) or spelled[1:2] == ":":
        refuse("path-relative", "is an absolute path", "write it relative to the folder of manifest.csv")
        return None
    if "\0" in spelled:
        refuse("path-relative", "is not a path", "write it relative to the folder of manifest.csv")
        return None
    path = Path(os.path.normpath(root / spelled))
    if not path.is_relative_to(root) or path == root:
        refuse("path-inside", "leads out of the folder", "move or link the file under the folder of manifest.csv")
        return None
    try:
        if folder and path.is_dir():
            return path
        if not folder and path.is_file():
            return path
        there = path.exists()
    except OSError:
        there = False
    if there:
        refuse("file-there", f"is not a {'folder' if folder else 'file'}", f"name a {'folder' if folder else 'file'}")
        return None
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside) if len(beside) < 1000 else ""
    refuse("file-there", f"is not there{hint if 'did you mean' in hint else ''}", "put it there, or correct the name")
    return None


def unknown_columns(columns: Collection[str], known: Collection[str]) -> list[Finding]:
    """A column nearly named like a known one is an error, since what it holds would be missed; others are ignored."""
    findings = []
    for column in columns:
        if column in known or column.startswith("label:"):
            continue
        if close := difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.75):
            problem = f"has a column {column!r}, did you mean {close[0]!r}?"
            findings.append(Finding("manifest.csv", "column-known", problem, "rename it, or take it out"))
        else:
            problem = f"has a column {column!r} that means nothing here"
            findings.append(Finding("manifest.csv", "column-known", problem, "nothing to do: it is ignored", "warning"))
    return findings
