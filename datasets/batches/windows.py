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


def cut(
    store: FeatureStore, clips: Sequence[str], *, length: int, hop: int, invalid: Literal["drop", "drop_both", "mask"]
) -> Windows:
    """Windows of all clips, clip after clip.

    `drop` removes the frames where any label is missing before cutting (D5), `drop_both` those where all are; `mask`
    keeps them. Labels that are missing in frames that stay are ignored. The tail window is the last L frames; a clip
    shorter than L is padded and masked (A3).
    """
    rows, real = [], []
    for name in clips:
        span = store.rows(name)
        kept = np.arange(span.start, span.stop)
        if invalid != "mask":
            labelled = np.asarray(store.valid[span])
            kept = kept[labelled.all(axis=1) if invalid == "drop" else labelled.any(axis=1)]
        for start in starts(len(kept), length, hop):
            piece = kept[start : start + length]
            padding = length - len(piece)
            rows.append(np.pad(piece, (0, padding), mode="edge"))
            real.append(np.arange(length) < len(piece))
    if not rows:
        return Windows(np.zeros((0, length), np.int64), np.zeros((0, length), np.bool_))
    return Windows(np.stack(rows).astype(np.int64), np.stack(real))


def starts(frames: int, length: int, hop: int) -> list[int]:
    """First frames of the windows of a clip; the tail window is the last L frames (A3)."""
    if frames == 0:
        return []
    if frames <= length:
        return [0]
    starts = list(range(0, frames - length + 1, hop))
    if starts[-1] + length < frames:
        starts.append(frames - length)
    return starts


class Stitcher:
    """Averages overlapping windows back to frames (D10), in float64, in any order of arrival."""

    def __init__(self, frames: int, targets: int) -> None:
        """`frames`: N of the store."""
        self._sum = np.zeros((frames, targets))
        self._count = np.zeros(frames, np.int64)

    def add(self, rows: np.ndarray, real: np.ndarray, prediction_BLT: np.ndarray) -> None:
        """Adds a batch: rows int [B, L], real bool [B, L]; padded frames are left out."""
        np.add.at(self._sum, rows[real], prediction_BLT[real].astype(np.float64))
        np.add.at(self._count, rows[real], 1)

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean prediction float32 [N, T] and bool [N], false where no window reached the frame."""
        reached = self._count > 0
        mean = self._sum / np.maximum(self._count, 1)[:, None]
        return mean.astype(np.float32), reached
