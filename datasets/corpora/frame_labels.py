"""Label files of one line per frame: `valence,arousal` after a header line."""

import re
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.findings import Finding, Report, and_more, relative

_HEADER = "valence,arousal"
_NUMBER = re.compile(r"\s*[-+.\d]")
_AGAIN = "fetch the file again, or correct it; every frame has a line of its own"


def read_labels(path: Path, root: Path) -> tuple[np.ndarray, list[Finding]]:
    """Labels of a clip: float32 [frames, 2], valence then arousal, `UNLABELLED` kept as written.

    Whatever breaks a rule is a finding, its file named relative to `root`. With an error among them the labels are
    of no use, but they have a row for every line, so that their number can be compared with other files.
    """
    findings: list[Finding] = []
    return _read(path, Report(relative(path, root), findings)), findings


def _read(path: Path, report: Report) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        report.error("label-readable", f"cannot be read as text ({error})", _AGAIN)
        return _rows([])
    first_line = 1  # as editors count
    if lines and not _NUMBER.match(lines[0]):
        header = lines.pop(0)
        first_line = 2
        if header.lower().replace(" ", "") != _HEADER:
            report.error("label-header", f"has the header {header[:40]!r}", f"it must be `{_HEADER}`")
    elif lines:
        remedy = f"line 1 is taken as frame 1; put `{_HEADER}` above it"
        report.warning("label-header", f"has no header, it begins with {lines[0][:40]!r}", remedy)
    if not lines:
        report.error("label-empty", "has no labels", _AGAIN)
        return _rows([])
    labels = _rows(lines)
    broken = np.isnan(labels).any(1)
    for rule, wrong, says in (
        ("label-number", broken, "is not two numbers"),
        ("label-range", ~label_in_range(labels) & ~broken, f"is outside [-1, 1] and not {UNLABELLED:g}"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            problem = f"line {at + first_line} {says}: {lines[at][:40]!r}{and_more(int(wrong.sum()))}"
            report.error(rule, problem, _AGAIN)
    if (labels == UNLABELLED).any(1).all():
        report.warning("label-none", "has no frame with both labels", "the clip is kept, and unused")
    return labels


def _rows(lines: list[str]) -> np.ndarray:
    """float32 [lines, 2]; a line that is not two numbers is not a number."""
    labels = np.full((len(lines), 2), np.nan, np.float32)
    for row, line in enumerate(lines):
        values = line.split(",")  # not the csv module: Aff-Wild2 has millions of lines, none of them quoted
        if len(values) == 2:
            try:
                labels[row] = [float(value) for value in values]
            except ValueError:
                continue
    return labels


def label_in_range(labels: np.ndarray) -> np.ndarray:
    """bool [frames]: both labels are in [-1, 1], or are `UNLABELLED`."""
    fine: np.ndarray = ((np.abs(labels) <= 1) | (labels == UNLABELLED)).all(1)
    return fine
