"""Predictions of finished cells in the formats of others: a submission to the ABAW challenge, or a plain table.

The VA track of ABAW takes one text file, as the sample files of its 5th (CVPR 2023) to 9th (2025) editions show it:

    image_location,valence,arousal
    <clip>/00001.jpg,0.1,-0.2

A line a frame, frames counted from 1 as crops are, clips one after the other; where the organisers' sample file is
given, exactly its lines in its order. Every frame of it needs a value: a frame without one (no face, or no label and
a recipe that drops such frames) holds the last value before it, and those before the first hold the first. Values lie
in [-1, 1]. The same lines are also written a file a clip, as the annotations are.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError, nearest
from crossfold.platform.evaluation.postprocessing import processed
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.predictions import Predictions

ABAW_TARGETS = ("valence", "arousal")
ABAW_HEADER = "image_location,valence,arousal"
JOINT_FILE = "predictions.txt"
"""All clips, in one file: what is handed in."""
CLIP_FOLDER = "clips"
"""A file a clip beside it."""
TOLERANCE = 5
"""Frames by which the organisers' list may go beyond the labels of a clip, as crops and videos do."""


@dataclass(frozen=True)
class Track:
    """The predictions of one clip for every frame: float32 [frames, targets]."""

    clip: str
    values: np.ndarray
    filled: int
    """Frames that had no prediction and hold another's."""


def post_processed(record: CellRecord, store: FeatureStore) -> Predictions:
    """The predictions of a cell after the chain that is stored with it, as fitted on its training clips or fixed.

    The column that was fitted on the reported labels themselves is never applied. Raises `UserError` without a chain.
    """
    columns = (record.result.get("post") or {}).get("columns", {})
    for name in ("train", "fixed"):
        if name in columns:
            return processed(record.predictions, columns[name]["fitted"], store)
    problem = f"{record.cell.label} has no chain of post-processing in its result"
    raise UserError(problem, "leave --post out, or run the sweep under a recipe with `post`")


def join(members: Sequence[Predictions], targets: Sequence[str]) -> list[Track]:
    """One track a clip: the targets of several cells side by side, the mean where several cells predict a clip.

    Seeds, and folds that report the same clip, are an ensemble: their predictions are averaged frame by frame, then
    gaps are filled. Raises `UserError` where a target is missing for a clip, or has no prediction at all.
    """
    sums: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        for clip, target, values in _tracks(member):
            sums[clip][target].append(values)
    tracks = []
    for clip in sorted(sums):
        if missing := [target for target in targets if target not in sums[clip]]:
            raise UserError(
                f"clip {clip} has predictions of {', '.join(sums[clip])} and none of {missing[0]}",
                "run the cells of both targets on the same folds, or choose a fold with --fold",
            )
        columns = [_mean(clip, target, sums[clip][target]) for target in targets]
        missing_frames = np.isnan(np.stack(columns)).any(axis=0)
        values = np.stack([_filled(column) for column in columns], axis=1).astype(np.float32)
        tracks.append(Track(clip, values, int(missing_frames.sum())))
    return tracks


def _tracks(predictions: Predictions) -> Iterator[tuple[str, str, np.ndarray]]:
    """(clip, target, float64 [frames]), not a number where no window reached the frame."""
    for clip in predictions.clips:
        rows = predictions.clip(clip)
        for t, target in enumerate(predictions.targets):
            values = predictions.prediction[rows, t].astype(np.float64)
            # What no window reached has no label that counts, and stands at exactly 0 in all targets.
            unreached = ~predictions.valid[rows].any(axis=1) & (predictions.prediction[rows] == 0).all(axis=1)
            yield clip, target, np.where(unreached, np.nan, values)


def _mean(clip: str, target: str, tracks: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(tracks)
    there = ~np.isnan(stacked)
    if not there.any():
        raise UserError(f"clip {clip} has no frame with a prediction of {target}", "train with `invalid: mask`")
    counts = there.sum(axis=0)
    total = np.where(there, stacked, 0).sum(axis=0)
    mean: np.ndarray = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return mean


def _filled(values: np.ndarray) -> np.ndarray:
    """The last value before a gap holds through it; before the first value, that one does."""
    there = np.flatnonzero(~np.isnan(values))
    source = np.maximum(np.searchsorted(there, np.arange(len(values)), side="right") - 1, 0)
    filled: np.ndarray = values[there[source]]
    return filled


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
        raise UserError(problem + nearest(missing[0], by_name), remedy)
    lines = {clip: _lines(by_name[clip], numbers, sample) for clip, numbers in wanted.items()}
    folder = out / CLIP_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for clip, rows in lines.items():
        _write(folder / f"{clip}.txt", rows)
    _write(out / JOINT_FILE, [row for rows in lines.values() for row in rows])
    frames = sum(len(rows) for rows in lines.values())
    beyond = sum(int((numbers > len(by_name[clip].values)).sum()) for clip, numbers in wanted.items())
    return Written(len(lines), frames, beyond + sum(by_name[clip].filled for clip in lines))


def _lines(track: Track, numbers: np.ndarray, sample: Path | None) -> list[str]:
    frames = len(track.values)
    if numbers.max() > frames + TOLERANCE:
        problem = f"{sample}: clip {track.clip} goes up to frame {numbers.max()}, {frames} are predicted"
        raise UserError(problem, "is it the sample file of this edition of the corpus?")
    values = np.clip(track.values[np.minimum(numbers, frames) - 1], -1, 1)
    return [
        f"{track.clip}/{number:05d}.jpg,{_spell(v)},{_spell(a)}" for number, (v, a) in zip(numbers, values, strict=True)
    ]


def _spell(value: np.float32) -> str:
    """The shortest decimal that reads back as the same float32, never with an exponent."""
    return np.format_float_positional(value, unique=True, trim="0")


def _write(path: Path, rows: Sequence[str]) -> None:
    path.write_text("\n".join([ABAW_HEADER, *rows]) + "\n", encoding="utf-8")


def read_abaw(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A submission: by clip, frame numbers int64 [frames] from 1 and values float32 [frames, 2], in order of the file.

    Raises `UserError` for another header, a line that is not a frame and two numbers in [-1, 1], or a frame twice.
    """
    found: dict[str, tuple[list[int], list[tuple[float, float]]]] = {}
    for line, (location, *cells) in _rows(path):
        clip, number = _location(path, line, location)
        try:
            valence, arousal = (float(cell) for cell in cells)
        except ValueError:
            raise UserError(f"{path}, line {line}: {cells} are not two numbers", "write valence, arousal") from None
        if not (abs(valence) <= 1 and abs(arousal) <= 1):
            raise UserError(f"{path}, line {line}: {valence:g}, {arousal:g}", "values lie in [-1, 1]")
        numbers, values = found.setdefault(clip, ([], []))
        numbers.append(number)
        values.append((valence, arousal))
    for clip, (numbers, _) in found.items():
        if len(set(numbers)) < len(numbers):
            raise UserError(f"{path}: clip {clip} has a frame twice", "write each frame once")
    return {clip: (np.array(n, np.int64), np.array(v, np.float32)) for clip, (n, v) in found.items()}


def _read_sample(path: Path) -> Mapping[str, np.ndarray]:
    """Frame numbers by clip, in the order of the organisers' sample file; its values, if any, are of no account."""
    frames: dict[str, list[int]] = {}
    for line, (location, *_) in _rows(path):
        clip, number = _location(path, line, location)
        frames.setdefault(clip, []).append(number)
    if not frames:
        raise UserError(f"{path} names no frame", "give the organisers' sample file")
    return {clip: np.array(numbers, np.int64) for clip, numbers in frames.items()}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = ",".join(next(reader, [])).replace(" ", "")
            if header != ABAW_HEADER:
                raise UserError(f"{path} begins with {header[:60]!r}", f"the first line must be {ABAW_HEADER}")
            yield from ((reader.line_num, row) for row in reader if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read: {error}", "give a file in the format of the ABAW sample file"
        ) from None


def _location(path: Path, line: int, location: str) -> tuple[str, int]:
    """`clip/00001.jpg` as (clip, 1)."""
    clip, _, file = location.rpartition("/")
    stem, _, suffix = file.partition(".")
    if not clip or not (stem.isascii() and stem.isdecimal()) or int(stem) < 1 or suffix not in ("jpg", "png"):
        raise UserError(f"{path}, line {line}: {location!r}", "write clip/00001.jpg; frames count from 1")
    return clip, int(stem)


def tidy(members: Sequence[tuple[Cell, Predictions]]) -> pd.DataFrame:
    """Every prediction of these cells, a row each: what the cell is, clip, frame from 0, target, prediction, label.

    `labelled` is false where a frame has no annotation or no window reached it: it is in no score.
    """
    parts = []
    for cell, predictions in members:
        clips = np.repeat(np.array(predictions.clips, dtype=object), np.diff(predictions.offsets))
        for t, target in enumerate(predictions.targets):
            valid = predictions.valid[:, t]
            parts.append(
                pd.DataFrame(
                    {
                        "cell": cell.cell_id,
                        "system": cell.system,
                        "fold": cell.fold,
                        "seed": cell.seed,
                        "clip": clips,
                        "frame": predictions.frame,
                        "target": target,
                        "prediction": predictions.prediction[:, t],
                        "label": np.where(valid, predictions.label[:, t], np.float32(np.nan)),
                        "labelled": valid,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A table as `.csv` or `.parquet`, beside its place first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    if path.suffix == ".parquet":
        table.to_parquet(beside, index=False)
    else:
        table.to_csv(beside, index=False)
    beside.replace(path)
