"""The cells of csv, parquet and arff files, before it is asked what they mean; limits hold before memory is allocated.

A csv file is parted by commas, semicolons or tabs, whichever gives its first lines equally many cells. Of an arff file
the numeric columns are read; of a parquet file the index of pandas is read like any other column.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.findings import Refusal

MOST_BYTES = 256 * 2**20
"""Of a table that is text."""
MOST_ROWS = 4_000_000
MOST_TEXT_ROWS = 200_000
"""Of a table whose cells are kept as text, such as a manifest."""
MOST_COLUMNS = 2_000
MOST_FEATURES = 50_000
"""Columns of a table of features."""
MOST_CELLS = 60_000_000
_LONGEST_CELL = 2**20  # characters
_DELIMITERS = ";\t,"  # a comma comes last: next to the others it may be a decimal comma
_HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # a first line that spreadsheets write
_TRIED = 20  # lines that settle what parts the cells

Lines = Iterator[tuple[int, list[str]]]
"""Number of the line in the file, and its cells; the first is the header."""


@dataclass(frozen=True)
class TextCells:
    """A file of text, line by line."""

    lines: Lines
    delimiter: str
    named: bool = False
    """Whether the format itself says which line names the columns."""


@dataclass(frozen=True)
class TypedCells:
    """A file whose columns have names and types."""

    columns: dict[str, np.ndarray | list[str]]
    """float64 [rows], or text."""
    seconds: frozenset[str]
    """Columns of durations; they hold seconds."""


def read_cells(path: Path, most_columns: int = MOST_COLUMNS) -> TextCells | TypedCells:
    """The cells of a file. Raises `Refusal` for one that is too large, or damaged; reading the lines may, too."""
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return _parquet_cells(path, most_columns)
        if (size := path.stat().st_size) > MOST_BYTES:
            problem = f"has {size / 2**20:,.0f} MiB; a table of text may have {MOST_BYTES / 2**20:.0f}"
            raise Refusal("table-size", problem, "write it as parquet, or in parts")
        text = path.read_text(encoding="utf-8-sig")  # a byte order mark is no part of the first column's name
        if kind == ".arff":
            return TextCells(_arff_lines(text), ",", named=True)
        return _csv_cells(text)
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise Refusal("table-encoding", problem, "save it as text with encoding UTF-8") from None
    except OSError as error:
        raise Refusal("table-readable", f"cannot be read ({error.strerror})", "fetch or write it again") from None


def check_size(rows: int, columns: int, most_columns: int = MOST_COLUMNS, most_rows: int = MOST_ROWS) -> None:
    """Raises `Refusal` for a table that is larger than any of a clip or a corpus."""
    for count, most, what in (
        (columns, most_columns, "columns"),
        (rows, most_rows, "rows"),
        (rows * columns, MOST_CELLS, "cells"),
    ):
        if count > most:
            remedy = "look whether rows and columns were exchanged; else write it in parts"
            raise Refusal("table-size", f"has {count:,} {what}; at most {most:,} are read", remedy)


def _csv_cells(text: str) -> TextCells:
    skipped = 0
    while text.startswith(("\n", "\r")):
        skipped += text.startswith(("\n", "\r\n"))
        text = text[1:] if not text.startswith("\r\n") else text[2:]
    first, end, rest = text.partition("\n")
    delimiter = None
    if hint := _HINT.fullmatch(first.strip("\r")):
        text, delimiter, skipped = rest, hint[1], skipped + 1
    while text.startswith("#"):
        first, end, rest = text.partition("\n")
        head, below = (TextCells(_csv_lines(part, 0, d), d) for part in (first[1:], rest) for d in (_parts(rest),))
        names, row = next(head.lines, (0, []))[1], next(below.lines, (0, []))[1]
        if not rest.startswith("#") and len(names) == len(row) and (len(row) > 1 or " " not in names[0].strip()):
            # numpy.savetxt puts a mark of comments before the names of the columns.
            text = first[1:].lstrip() + end + rest
            break
        text, skipped = rest, skipped + 1
    delimiter = delimiter or _parts(text)
    return TextCells(_csv_lines(text, skipped, delimiter), delimiter)


def _parts(text: str) -> str:
    """What parts the cells: that which gives the first lines equally many, and more than one."""
    sample = "\n".join(text[:65536].splitlines()[:_TRIED])
    for delimiter in _DELIMITERS:
        try:
            widths = {len(cells) for _, cells in _csv_lines(sample, 0, delimiter) if any(cells)}
        except Refusal:
            continue
        if len(widths) == 1 and widths != {1}:
            return delimiter
    first = sample.partition("\n")[0]
    return max(_DELIMITERS, key=first.count)


def _csv_lines(text: str, skipped: int, delimiter: str) -> Lines:
    csv.field_size_limit(_LONGEST_CELL)
    # The csv module takes either end of line where the text is not translated.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            yield reader.line_num + skipped, [cell.strip() for cell in cells]
    except csv.Error as error:
        if "field limit" in str(error):
            problem = f"line {reader.line_num + skipped}: a cell has more than {_LONGEST_CELL:,} characters"
        else:
            problem = f"is not a table ({error})"
        raise Refusal("table-readable", problem, "look for a quote that is opened and never closed") from None


def _arff_lines(text: str) -> Lines:
    """Numeric columns of an arff file; text there names the recording, which the name of the file does, too."""
    import arff  # 70 ms, which commands without such files save

    if not text.strip():
        return
    lines = text.splitlines()
    try:
        document = arff.loads(lines)
    except (arff.ArffException, ValueError, OverflowError, RecursionError) as error:
        at = getattr(error, "line", 0)
        reason = str(error).partition(" at line")[0].partition(" in line")[0].rstrip(",")
        rule = "table-row" if isinstance(error, arff.BadNumericalValue | arff.BadDataFormat) else "table-readable"
        problem = f"is not arff: {reason[:120]}, line {at} is {lines[at - 1][:40]!r}"
        raise Refusal(rule, problem, "correct the line, or fetch the file again; a csv file is named .csv") from None
    numeric = [k for k, (_, kind) in enumerate(document["attributes"]) if kind in ("NUMERIC", "REAL", "INTEGER")]
    begin = next(number for number, line in enumerate(lines, start=1) if line.strip().upper().startswith("@DATA"))
    places = [n for n, line in enumerate(lines, 1) if n > begin and line.strip() and line.strip()[0] != "%"]
    yield 0, [document["attributes"][k][0].strip() for k in numeric]
    for line, row in zip(places, document["data"], strict=True):
        yield line, ["" if row[k] is None else repr(row[k]) for k in numeric]


def _parquet_cells(path: Path, most_columns: int) -> TypedCells:
    import pyarrow.parquet as pq

    try:
        described = pq.ParquetFile(path).metadata
        check_size(described.num_rows, described.num_columns, most_columns)
        table = pd.read_parquet(path)
    except Refusal:
        raise
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise Refusal("table-readable", f"cannot be read (not a parquet file: {reason})", "write it again") from None
    index = table.index
    if not (isinstance(index, pd.RangeIndex) and index.name is None and (index.start, index.step) == (0, 1)):
        names = [_index_name(name, level) for level, name in enumerate(index.names)]
        table = table.reset_index(names=names, allow_duplicates=True)
    columns: dict[str, np.ndarray | list[str]] = {}
    seconds = set()
    for at, label in enumerate(table.columns):
        column, name = table.iloc[:, at], str(label).strip()
        if name in columns:
            raise Refusal("table-columns", f"has column {name!r} twice", "each column has one name of its own")
        if pd.api.types.is_timedelta64_dtype(column.dtype):
            columns[name] = column.dt.total_seconds().to_numpy(np.float64)
            seconds.add(name)
        elif pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
            columns[name] = column.to_numpy(np.float64, na_value=np.nan)
        else:
            there = column.notna()
            columns[name] = [str(cell) if known else "" for cell, known in zip(column, there, strict=True)]
    return TypedCells(columns, frozenset(seconds))


def _index_name(name: object, level: int) -> str:
    return str(name) if name is not None else ("index" if level == 0 else f"level_{level}")


def in_blocks(rows: Lines, size: int = 2000) -> Iterator[Sequence[tuple[int, list[str]]]]:
    """The rows in blocks of so many."""
    while block := list(islice(rows, size)):
        yield block
