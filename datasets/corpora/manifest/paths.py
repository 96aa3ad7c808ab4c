"""Paths and columns of `manifest.csv`, as people write them."""

import difflib
import os
from collections.abc import Collection
from pathlib import Path

from crossfold.datasets.corpora.discovery import composed, is_data
from crossfold.datasets.corpora.findings import Finding, Refusal, Report
from crossfold.platform.core.errors import did_you_mean

MANIFEST = "manifest.csv"


def locate(
    cell: str, what: str, line: int, root: Path, findings: list[Finding], *, folder: bool = False
) -> Path | None:
    """The file or folder that column `what` of the manifest names, under `root`; nothing, and a finding, if it is not.

    A link to elsewhere may stand under the root; a path that leads out of it may not: the corpus then moves as one.
    """
    with Report(MANIFEST, findings):
        return _located(cell, f"line {line}: {what} {cell!r}", root, folder=folder)
    return None


def _located(cell: str, named: str, root: Path, *, folder: bool) -> Path:
    spelled = cell.replace("\\", "/")  # as Windows writes them
    absolute = spelled.startswith(("/", "~")) or spelled[1:2] == ":"
    if absolute or "\0" in spelled:
        problem = f"{named} is {'an absolute' if absolute else 'no'} path"
        raise Refusal("path-relative", problem, f"write it relative to the folder of {MANIFEST}")
    path = Path(os.path.normpath(root / spelled))  # not resolved: links under the root may lead out
    if not spelled.isascii():
        path = in_either_form(path, root)
    if not path.is_relative_to(root) or path == root:
        remedy = f"move or link the file under the folder of {MANIFEST}"
        raise Refusal("path-inside", f"{named} leads out of the folder", remedy)
    kind = "folder" if folder else "file"
    try:
        if path.is_dir() if folder else path.is_file():
            return path
        there = path.exists()
    except OSError:  # a name longer than the file system allows
        there = False
    if there:
        raise Refusal("file-there", f"{named} is not a {kind}", f"name a {kind}")
    near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = hint_of(path.name, near) if len(near) < 1000 else ""  # in folders of crops it would take seconds
    raise Refusal("file-there", f"{named} is not there{hint}", "put it there, or correct the name")


def in_either_form(path: Path, root: Path) -> Path:
    """The path under `root` as the disk has it: a Mac writes `ü` as two code points, other systems as one."""
    if not path.is_relative_to(root):
        return path
    found = root
    for part in path.relative_to(root).parts:
        inside = found / part
        try:
            if not inside.exists():
                same = [entry for entry in found.iterdir() if composed(entry.name) == composed(part)]
                inside = same[0] if same else inside
        except (OSError, ValueError):
            return path
        found = inside
    return found


def hint_of(name: str, names: Collection[str]) -> str:
    """`, did you mean ...?` where one of the names is close; nothing where none is, since the list may be long."""
    names = [known for known in names if is_data(known)]
    if same := [known for known in names if known.casefold() == name.casefold()]:
        return f", did you mean {same[0]!r}?"
    hint = did_you_mean(name, names)
    return hint if "did you mean" in hint else ""


def unknown_columns(columns: Collection[str], known: Collection[str], report: Report) -> None:
    """A column nearly named like a known one is an error, since what it holds would be missed; others are ignored."""
    for column in columns:
        if column in known or column.startswith("label:"):
            continue
        if close := difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.75):
            problem = f"has a column {column!r}, did you mean {close[0]!r}?"
            report.error("column-known", problem, "rename it, or take it out")
        else:
            problem = f"has a column {column!r} that means nothing here"
            report.warning("column-known", problem, "nothing to do: it is ignored")
