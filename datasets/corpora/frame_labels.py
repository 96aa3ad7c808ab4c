"""Label files of one line per frame: `valence,arousal` after a header line."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.findings import Finding, Report, and_more, has_errors
from crossfold.datasets.corpora.tables import Table, read_table

_COLUMNS = ("valence", "arousal")
_RULES = {
    "table-empty": "label-empty",
    "table-encoding": "label-readable",
    "table-readable": "label-readable",
    "table-header": "label-header",
    "table-columns": "label-header",
    "table-row": "label-number",
}
"""What rules of tables are named where the table is one of labels."""
_AGAIN = "fetch the file again, or correct it; every frame has a line of its own"


def read_labels(path: Path, root: Path) -> tuple[np.ndarray, list[Finding]]:
    """Labels of a clip: float32 [frames, 2], valence then arousal, `UNLABELLED` kept as written.

    Whatever breaks a rule is a finding, its file named relative to `root`. With an error among them the labels are
    of no use: there are none where the file is no table, else one for each line, so that their number can be compared.
    """
    found: list[Finding] = []
    table = read_table(path, root, found, _COLUMNS, numeric=True, unnamed=_COLUMNS)
    labels = np.zeros((0, 2), np.float32)
    if table is not None and table.columns == _COLUMNS:
        labels = _checked(table, Report(table.file, found))
    elif table is not None:
        problem = f"has the header {','.join(table.columns)[:40]!r}"
        Report(table.file, found).error("label-header", problem, f"it must be `{','.join(_COLUMNS)}`")
    return labels, [replace(finding, rule=_RULES.get(finding.rule, finding.rule)) for finding in found]


def _checked(table: Table, report: Report) -> np.ndarray:
    """float32 [lines, 2], not a number where there is none."""
    values = [table.numbers(column, report.findings, "label-number") for column in _COLUMNS]
    labels = np.stack(values, axis=1).astype(np.float32)
    missing = np.isnan(labels).any(1)
    wrong = ~label_in_range(labels) & ~missing
    if missing.any() and not has_errors(report.findings):
        at = int(np.argmax(missing))
        problem = f"line {table.lines[at]} is not two numbers{and_more(int(missing.sum()))}"
        report.error("label-number", problem, _AGAIN)
    if wrong.any():
        at = int(np.argmax(wrong))
        shown = f"{labels[at, 0]:g},{labels[at, 1]:g}{and_more(int(wrong.sum()))}"
        problem = f"line {table.lines[at]} is outside [-1, 1] and not {UNLABELLED:g}: {shown}"
        report.error("label-range", problem, _AGAIN)
    if (labels == UNLABELLED).any(1).all():
        report.warning("label-none", "has no frame with both labels", "the clip is kept, and unused")
    return labels


def label_in_range(labels: np.ndarray) -> np.ndarray:
    """bool [frames]: both labels are in [-1, 1], or are `UNLABELLED`."""
    fine: np.ndarray = ((np.abs(labels) <= 1) | (labels == UNLABELLED)).all(1)
    return fine
