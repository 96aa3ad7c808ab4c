"""Small harm done to the files of a corpus, and what every finding about it must look like."""

from pathlib import Path


def assert_readable(findings, root: Path) -> None:
    """Each finding is one line with a problem and a remedy, and names no path of this machine."""
    for finding in findings:
        assert finding.problem
        assert finding.remedy
        assert str(root) not in str(finding)
        assert "\n" not in str(finding)


def truncate(path: Path, keep: float = 0.6) -> None:
    """Cuts a file off after this share of its bytes."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def rewrite(path: Path, change) -> None:
    """Writes what `change` makes of the lines of a text."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def put(line: int, text: str):
    """A change that writes one line anew, counted from 0."""
    return lambda lines: [*lines[:line], text, *lines[line + 1 :]]
