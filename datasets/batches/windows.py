"""From the store to windows of L frames, and from windows back to frames.

Legend: W windows, B batch, L frames of a window, T targets, N frames of the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore


@dataclass(frozen=True)
class Windows:
    """Windows by index: nothing is copied until a batch is gathered.

    rows: int64 [W, L], rows of the store; real: bool [W, L], false where the window is padding.
    """

    rows: np.ndarray
    real: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


Invalid = Literal["drop", "drop_both", "mask"]
"""`drop` removes the frames where any label is missing before cutting (D5), `drop_both` those where all are; `mask`
keeps them. Labels that are missing in frames that stay are ignored."""


def cut(store: FeatureStore, clips: Sequence[str], *, length: int, hop: int, invalid: Invalid) -> Windows:
    """Windows of all clips, clip after clip.

    The tail window is the last L frames; a clip shorter than L is padded and masked (A3).
    """
    none = windows_over(np.zeros(0, np.int64), length, hop)
    return _joined([none, *(windows_over(_kept(store, name, invalid), length, hop) for name in clips)])


def slide(store: FeatureStore, clips: Sequence[str], *, length: int, step: int, invalid: Invalid) -> Windows:
    """Windows whose L frames stand `step` frames apart, so that every frame is in exactly one window (G10).

    A window slides by one frame, `step` times, then jumps behind the last frame that it reached. The last windows of a
    clip are padded and masked.
    """
    windows = [_spread(np.zeros(0, np.int64), [], length)]
    for name in clips:
        rows = _kept(store, name, invalid)
        jumps = range(0, len(rows), length * step)
        starts = [first for start in jumps for first in range(start, min(start + step, len(rows)))]
        windows.append(_spread(rows, starts, length, step))
    return _joined(windows)


def _kept(store: FeatureStore, name: str, invalid: Invalid) -> np.ndarray:
    """int64 [N]: the rows of one clip that windows are cut from."""
    span = store.rows(name)
    rows = np.arange(span.start, span.stop)
    if invalid == "mask":
        return rows
    labelled = np.asarray(store.valid[span])
    return rows[labelled.all(axis=1) if invalid == "drop" else labelled.any(axis=1)]


def _joined(windows: Sequence[Windows]) -> Windows:
    return Windows(np.concatenate([w.rows for w in windows]), np.concatenate([w.real for w in windows]))


def windows_over(rows: np.ndarray, length: int, hop: int) -> Windows:
    """Windows over these rows of one clip, int64 [n]; the tail window is the last L of them (A3)."""
    tail = len(rows) - length
    starts = list(range(0, tail + 1, hop))
    # Else the last frames of a clip would have no prediction, and a short clip none at all.
    if len(rows) and (not starts or starts[-1] < tail):
        starts.append(max(tail, 0))
    return _spread(rows, starts, length)


def _spread(rows: np.ndarray, starts: Sequence[int], length: int, step: int = 1) -> Windows:
    """The window of every `step`th row from each of these starts."""
    places_WL = np.array(starts, np.int64)[:, None] + step * np.arange(length)
    # Any row serves as padding: `real` masks it.
    return Windows(rows[np.minimum(places_WL, len(rows) - 1)], places_WL < len(rows))


class Stitcher:
    """Averages overlapping windows back to frames (D10), in float64, in any order of arrival."""

    def __init__(self, frames: int, targets: int) -> None:
        """`frames`: N of the store."""
        self._sum = np.zeros((frames, targets))
        self._count = np.zeros(frames, np.int64)

    def add(self, rows: np.ndarray, real: np.ndarray, prediction_BLT: np.ndarray) -> None:
        """Adds a batch: rows int [B, L], real bool [B, L]; padded frames are left out."""
        # Not `+=`: overlapping windows of one batch reach a frame several times.
        np.add.at(self._sum, rows[real], prediction_BLT[real].astype(np.float64))
        np.add.at(self._count, rows[real], 1)

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean prediction float32 [N, T] and bool [N], false where no window reached the frame."""
        reached = self._count > 0
        mean = self._sum / np.maximum(self._count, 1)[:, None]
        return mean.astype(np.float32), reached
