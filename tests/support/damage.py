"""Small harm done to the files of a corpus."""

from pathlib import Path


def truncate(path: Path, keep: float = 0.6) -> None:
    """Cuts a file off after this share of its bytes."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def rewrite(path: Path, change) -> None:
    """Writes what `change` makes of the lines of a text."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def put(line: int, text: str):
    """A change that writes one line anew, counted from 0."""
    return lambda lines: [*lines[:line], text, *lines[line + 1 :]]
