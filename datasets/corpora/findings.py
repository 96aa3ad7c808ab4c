"""What is wrong with a data folder: findings in plain words, all at once, before any work."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from crossfold.datasets.corpora.clips import Target, labelled
from crossfold.platform.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning", "note"]
Read = TypeVar("Read")
_LISTED = 10  # errors in full; the others are counted by their rule


@dataclass(frozen=True)
class Finding:
    """One rule that one file breaks."""

    file: str
    """Relative to the corpus's root where it lies under it."""
    rule: str
    """A short name to filter by, such as `label-range`."""
    problem: str
    remedy: str
    severity: Severity = "error"
    """An error stops `prepare`; a warning says what will be done about it; a note is good to know."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.problem} [{self.rule}] -> {self.remedy}"


def findings_table(findings: Sequence[Finding]) -> "pd.DataFrame":
    """Findings as a table: severity, rule, file, problem, remedy; errors first, then by file."""
    import pandas as pd  # slow to import, and only what is wrong is a table

    columns = ["severity", "rule", "file", "problem", "remedy"]
    rows = [[getattr(finding, column) for column in columns] for finding in findings]
    return pd.DataFrame(rows, columns=columns).sort_values(["severity", "file", "rule"], ignore_index=True)


def refuse_errors(findings: Sequence[Finding], root: Path) -> None:
    """Raises one `DataError` that lists the errors among the findings, if there are any."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    lines = [str(finding) for finding in errors[:_LISTED]]
    if len(errors) > _LISTED:
        rules = ", ".join(f"{count} {rule}" for rule, count in Counter(f.rule for f in errors[_LISTED:]).most_common())
        lines.append(f"and {len(errors) - _LISTED} more: {rules}")
    word = "thing is" if len(errors) == 1 else "things are"
    raise DataError(
        f"{len(errors)} {word} wrong with {root}:\n  " + "\n  ".join(lines),
        "fix these and run the same command again; `crossfold validate` lists all",
    )


class Refusal(Exception):
    """Ends the reading of a file that is of no use, with (rule, problem, remedy); a `Report` makes an error of it."""


@dataclass(frozen=True)
class Report:
    """Adds findings about one file to a list.

    In a `with` block a `Refusal` becomes an error, and what follows the block goes on.
    """

    file: str
    findings: list[Finding]

    def error(self, rule: str, problem: str, remedy: str) -> None:
        """What stops `prepare`."""
        self.findings.append(Finding(self.file, rule, problem, remedy))

    def warning(self, rule: str, problem: str, remedy: str) -> None:
        """What `remedy` says is done about it."""
        self.findings.append(Finding(self.file, rule, problem, remedy, "warning"))

    def note(self, rule: str, problem: str, remedy: str) -> None:
        """What is good to know."""
        self.findings.append(Finding(self.file, rule, problem, remedy, "note"))

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, Refusal):
            self.error(*error.args)
        return isinstance(error, Refusal)


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether any of them stops `prepare`."""
    return any(finding.severity == "error" for finding in findings)


def and_more(count: int, what: str = "") -> str:
    """`, and 3 more lines`, after the first of `count` alike; nothing where there is one."""
    return f", and {count - 1} more{what}" if count > 1 else ""


def relative(path: Path, root: Path) -> str:
    """A path as findings name it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def from_error(error: DataError, path: Path, root: Path, rule: str) -> Finding:
    """The finding for an error that a reader raised about `path`."""
    return Finding(relative(path, root), rule, error.problem.removeprefix(f"{path}: "), error.remedy)


def attempt(
    reader: Callable[[Path], Read], path: Path | None, rule: str, root: Path, findings: list[Finding]
) -> Read | None:
    """What `reader` makes of a file; nothing where there is none, or where its `DataError` became a finding."""
    if path is None:
        return None
    try:
        return reader(path)
    except DataError as error:
        findings.append(from_error(error, path, root, rule))
        return None


def check_targets(labels: Sequence[np.ndarray], targets: Sequence[Target]) -> list[Finding]:
    """Every target has a labelled frame somewhere; `labels`: float32 [frames, targets] of each clip."""
    there = np.zeros(len(targets), np.bool_)  # whether a target has a label anywhere so far
    for array in labels:
        there |= labelled(array, targets).any(axis=0)
    remedy = "it cannot be trained; leave it out of `targets` in sweeps"
    return [
        Finding(".", "target-none", f"target {target.name} has no labelled frame in any clip", remedy, "warning")
        for target, any_frame in zip(targets, there, strict=True)
        if labels and not any_frame
    ]
