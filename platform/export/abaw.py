"""Predictions of finished cells as a submission to the ABAW challenge.

The VA track of ABAW takes one text file, as the sample files of its 5th (CVPR 2023) to 9th (2025) editions show it:

    image_location,valence,arousal
    <clip>/00001.jpg,0.1,-0.2

One line per frame, frames counted from 1 as crops are, clips one after the other; where the organisers' sample file is
given, exactly its lines in its order. Every frame of it needs a value: a frame without one (no face, or no label and
a recipe that drops such frames) holds the last value before it, and those before the first hold the first. Values lie
in [-1, 1]. The same lines are also written to one file per clip, as the annotations are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.media.delimited_text import NotCells, read_text, split_cells
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.files import path_inside, write_bytes
from crossfold.platform.export.tracks import Track

ABAW_TARGETS = ("valence", "arousal")
ABAW_HEADER = "image_location,valence,arousal"
JOINT_FILE = "predictions.txt"
"""All clips, in one file: what is handed in."""
CLIP_FOLDER = "clips"
"""Next to it: one file per clip."""
TOLERANCE = 5
"""Frames by which the organisers' list may go beyond the labels of a clip, as crops and videos do."""


@dataclass(frozen=True)
class Written:
    """What an export wrote, in numbers."""

    clips: int
    frames: int
    filled: int


def write_abaw(out: Path, tracks: Sequence[Track], sample: Path | None = None) -> Written:
    """Writes the submission into folder `out`: `predictions.txt`, and `clips/<clip>.txt`.

    sample: the organisers' file of lines to fill; its clips must be predicted, whatever else is predicted is left out.
    """
    wanted = _read_sample(sample) if sample is not None else {t.clip: np.arange(1, len(t.values) + 1) for t in tracks}
    by_name = {track.clip: track for track in tracks}
    if missing := [clip for clip in wanted if clip not in by_name]:
        problem = f"{sample}: {len(missing)} of {len(wanted)} clips have no prediction, such as {missing[0]!r}"
        remedy = "a cell predicts the clips that its fold reports; those of the closed test part are in none"
        raise UserError(problem + did_you_mean(missing[0], by_name), remedy)
    lines = {clip: _lines(by_name[clip], numbers, sample) for clip, numbers in wanted.items()}
    # All lines and names are made before the first file is written; cells of other people may call clips anything.
    paths = {clip: path_inside(out / CLIP_FOLDER, f"{clip}.txt") for clip in lines}
    for clip, rows in lines.items():
        _write(paths[clip], rows)
    _write(out / JOINT_FILE, [row for rows in lines.values() for row in rows])
    frames = sum(len(rows) for rows in lines.values())
    # Frames of the list beyond the labels repeat the last value, and count as filled.
    beyond = sum(int((numbers > len(by_name[clip].values)).sum()) for clip, numbers in wanted.items())
    return Written(len(lines), frames, beyond + sum(by_name[clip].filled for clip in lines))


def _lines(track: Track, numbers: np.ndarray, sample: Path | None) -> list[str]:
    frames = len(track.values)
    if numbers.max() > frames + TOLERANCE:
        problem = f"{sample}: clip {track.clip} goes up to frame {numbers.max()}, {frames} are predicted"
        raise UserError(problem, "is it the sample file of this edition of the corpus?")
    values = np.clip(track.values[np.minimum(numbers, frames) - 1], -1, 1)
    return [
        f"{track.clip}/{number:05d}.jpg,{_decimal(valence)},{_decimal(arousal)}"
        for number, (valence, arousal) in zip(numbers, values, strict=True)
    ]


def _decimal(value: np.float32) -> str:
    """The shortest decimal that reads back as the same float32, never with an exponent."""
    return np.format_float_positional(value, unique=True, trim="0")


def _write(path: Path, rows: Sequence[str]) -> None:
    write_bytes(path, ("\n".join([ABAW_HEADER, *rows]) + "\n").encode())


def _read_sample(path: Path) -> Mapping[str, np.ndarray]:
    """Frame numbers by clip, in the order of the organisers' sample file; its values, if any, are ignored."""
    frames: dict[str, list[int]] = {}
    for line, (location, *_) in _rows(path):
        clip, number = _location(path, line, location)
        frames.setdefault(clip, []).append(number)
    if not frames:
        raise UserError(f"{path} names no frame", "give the organisers' sample file")
    return {clip: np.array(numbers, np.int64) for clip, numbers in frames.items()}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        lines = split_cells(read_text(path)).lines
        header = ",".join(next(lines, (0, []))[1]).replace(" ", "")
        if header != ABAW_HEADER:
            raise UserError(f"{path} begins with {header[:60]!r}", f"the first line must be {ABAW_HEADER}")
        yield from ((line, row) for line, row in lines if row)
    except NotCells as error:
        remedy = "give a file in the format of the ABAW sample file"
        raise UserError(f"{path} cannot be read: it {error.problem}", remedy) from None


def _location(path: Path, line: int, location: str) -> tuple[str, int]:
    """`clip/00001.jpg` as (clip, 1)."""
    clip, _, file = location.rpartition("/")
    stem, _, suffix = file.partition(".")
    if not clip or not (stem.isascii() and stem.isdecimal()) or int(stem) < 1 or suffix not in ("jpg", "png"):
        raise UserError(f"{path}, line {line}: {location!r}", "write clip/00001.jpg; frames count from 1")
    return clip, int(stem)
