"""Tables that every embedded corpus has."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crossfold.datasets.corpora.clips import Span


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")  # the same bytes on every system
        writer.writerow(header)
        writer.writerows(rows)


def write_spans(path: Path, spans: Iterable[tuple[str, Sequence[Span]]]) -> None:
    """Write (clip, its spans) as the truth table clip,start,end,kind,modality,detail."""
    rows = [(clip, s.start, s.end, s.kind, s.modality, s.detail) for clip, of_clip in spans for s in of_clip]
    write_rows(path, ("clip", "start", "end", "kind", "modality", "detail"), rows)
