"""What the papers print of a system on the folds of a search's winner, to stand next to what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from crossfold.reports.tables.published import MEAN, Row, TableSpec, declared, table_spec

FUSION = ("", "fusion")
"""Streams of columns whose numbers are of the whole system."""


@dataclass(frozen=True)
class PrintedScore:
    """The mean over targets that one row of a paper's table prints."""

    place: str
    """Paper and number of the table, and the row where rows are not systems."""
    mean: float


def printed_scores(
    corpus: str, system: str, folds: Sequence[int], fixed: Mapping[str, Any] | None = None
) -> list[PrintedScore]:
    """The best row of each table that prints the system on exactly these folds of this corpus, table by table.

    fixed: parameters that a search fixes; a row with other values of them is another system. Numbers of test
    partitions, of one modality alone, and those that a paper quotes from another pipeline are left out.
    """
    found = []
    for name, mapping in declared().tables.items():
        spec = table_spec(name)
        if mapping.unprinted or spec.corpus != corpus:
            continue
        rows = [(mean, row) for row in spec.rows if (mean := _mean(spec, row, system, folds, fixed or {})) is not None]
        if rows:
            mean, row = max(rows, key=lambda pair: pair[0])
            paper = next(key for key, title in declared().papers.items() if title == spec.paper)
            which = f", {row.label}" if spec.row_axis else ""
            found.append(PrintedScore(f"{declared().short[paper]}, {spec.number}{which}", mean))
    return found


def _mean(spec: TableSpec, row: Row, system: str, folds: Sequence[int], fixed: Mapping[str, Any]) -> float | None:
    """Over the targets of a row; None where it is of something else, or lacks one of them."""
    values = []
    for column in spec.columns:
        asked = spec.asked(row, column)
        if column.target == MEAN or column.stream not in FUSION or not column.measurable or asked.system != system:
            continue
        differs = any(fixed.get(key, value) != value for key, value in asked.params.items())
        if differs or not asked.judged or set(asked.folds) != set(folds):
            return None
        values.append(row.values.get(column.key))
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
