"""What an embedded corpus says about itself under `truth/`; real data have no such folder."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossfold.datasets.corpora.clips import Span
from crossfold.datasets.corpora.findings import Finding, Report
from crossfold.datasets.corpora.tables import read_table
from crossfold.platform.core.yaml_files import parse_json, read_json_text


def read_rows(path: Path, columns: Sequence[str]) -> list[Mapping[str, str]]:
    """Rows of a table, none where there is no file. Raises `ValueError` where a row lacks one of `columns`."""
    if not path.is_file():
        return []
    found: list[Finding] = []
    table = read_table(path, path.parent, found, columns, gaps=True)
    if table is None and found[0].rule == "table-empty":  # nothing happens in the corpus
        return []
    if table is None:
        raise ValueError(f"it {found[0].problem}")
    for row in table.rows:
        if any(not row.cells.get(column) for column in columns):  # missing, or empty
            raise ValueError(f"line {row.line} lacks one of {', '.join(columns)}")
    return [row.cells for row in table.rows]


def embedded_layout(root: Path) -> str | None:
    """The layout in which an embedded corpus was written into `root`; nothing where there is none."""
    note = _read_note(root)
    return None if note is None else str(note.get("layout", "affwild2"))


def embedded_name(root: Path) -> str:
    """The name of the puppets in `root`: `puppets`, or with the dose with which they were written."""
    note = _read_note(root) or {}
    name = str(note.get("corpus", ""))
    # The name becomes that of a folder, and anybody can write the note.
    return name if re.fullmatch(r"puppets-dose(-[a-z]+=[0-9.e+-]+)*", name) else "puppets"


def _read_note(root: Path) -> dict[str, Any] | None:
    try:
        note = parse_json(read_json_text(root / "puppets.json"))
    except ValueError:
        return None
    return note if isinstance(note, dict) else None


def read_spans(root: Path, findings: list[Finding]) -> Mapping[str, Sequence[Span]]:
    """Planted spans of `truth/spans.csv` by clip; a damaged table becomes a finding."""
    spans: dict[str, list[Span]] = defaultdict(list)
    with _damage_of("spans.csv", findings):
        for row in read_rows(root / "truth" / "spans.csv", ("clip", "start", "end", "kind", "modality")):
            span = Span(int(row["start"]), int(row["end"]), row["kind"], row["modality"], row.get("detail") or "")
            spans[row["clip"]].append(span)
    return spans


def read_subjects(root: Path, findings: list[Finding]) -> Mapping[str, str]:
    """Who is seen in each clip, by `truth/clips.csv`; a damaged table becomes a finding."""
    rows: list[Mapping[str, str]] = []
    with _damage_of("clips.csv", findings):
        rows = read_rows(root / "truth" / "clips.csv", ("clip", "subject"))
    return {row["clip"]: row["subject"] for row in rows}


@contextmanager
def _damage_of(name: str, findings: list[Finding]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        problem = f"is not the table it should be: {error}"
        Report(f"truth/{name}", findings).error("truth-readable", problem, "make it again")
