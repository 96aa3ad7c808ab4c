"""The cells of csv, parquet and arff files, before it is asked what they mean; limits hold before memory is allocated.

Of an arff file the numeric columns are read; of a parquet file the index of pandas is read like any other column.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.findings import Refusal
from crossfold.datasets.media.delimited_text import Lines, NotCells, TextCells, read_text, split_cells

MOST_ROWS = 4_000_000
MOST_TEXT_ROWS = 200_000
"""Of a table whose cells are kept as text, such as a manifest."""
MOST_COLUMNS = 2_000
MOST_FEATURES = 50_000
"""Columns of a table of features."""
MOST_CELLS = 60_000_000


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
    if kind == ".parquet":
        return _parquet_cells(path, most_columns)
    try:
        text = read_text(path)
        cells = TextCells(_arff_lines(text), ",", named=True) if kind == ".arff" else split_cells(text)
    except NotCells as error:
        raise Refusal(*error.args) from None
    return replace(cells, lines=_refusing(cells.lines))


def _refusing(lines: Lines) -> Lines:
    try:
        yield from lines
    except NotCells as error:
        raise Refusal(*error.args) from None


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
    import pandas as pd
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
