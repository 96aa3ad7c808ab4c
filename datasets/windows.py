"""From the store to windows of L frames, and from windows back to frames.

Legend: W windows, B batch, L frames of a window, D features, T targets, N frames of the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.store import FeatureStore


@dataclass(frozen=True)
class Windows:
    """Windows by index: nothing is copied until a batch is gathered.

    rows: int64 [W, L], rows of the store; real: bool [W, L], false where the window is padding.
    """

    rows: np.ndarray
    real: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Batch:
    """Some windows, gathered.

    x: B x L x D each, normalised, zero where the modality is absent or the window is padding;
    y: B x L x T; valid: bool B x L x T, which labels count; real: bool B x L.
    """

    x: dict[str, Tensor]
    y: Tensor
    valid: Tensor
    real: Tensor


def cut(
    store: FeatureStore, clips: Sequence[str], *, length: int, hop: int, invalid: Literal["drop", "mask"]
) -> Windows:
    """Windows of all clips, clip after clip.

    `drop` removes the frames where any label is missing before cutting (D5); `mask` keeps them, and only their
    labels are ignored. The tail window is the last L frames; a clip shorter than L is padded and masked (A3).
    """
    rows, real = [], []
    for name in clips:
        span = store.rows(name)
        kept = np.arange(span.start, span.stop)
        if invalid == "drop":
            kept = kept[np.asarray(store.valid[span]).all(axis=1)]
        for start in _starts(len(kept), length, hop):
            piece = kept[start : start + length]
            padding = length - len(piece)
            rows.append(np.pad(piece, (0, padding), mode="edge"))
            real.append(np.arange(length) < len(piece))
    if not rows:
        return Windows(np.zeros((0, length), np.int64), np.zeros((0, length), np.bool_))
    return Windows(np.stack(rows).astype(np.int64), np.stack(real))


def _starts(frames: int, length: int, hop: int) -> list[int]:
    if frames == 0:
        return []
    if frames <= length:
        return [0]
    starts = list(range(0, frames - length + 1, hop))
    if starts[-1] + length < frames:
        starts.append(frames - length)
    return starts


class WindowSource:
    """Gathers batches of windows from a mapped store, with the statistics of one fold's training frames."""

    def __init__(
        self,
        store: FeatureStore,
        windows: Windows,
        *,
        fold: int,
        modalities: Sequence[str],
        targets: Sequence[str],
        device: str = "cpu",
    ) -> None:
        self.windows = windows
        self.device = device
        self._features = {m: store.features(m, fold) for m in modalities}
        self._present = {m: store.present(m) for m in modalities}
        self._statistics = {m: store.normalisation(m, fold) for m in modalities}
        self._columns = [store.targets.index(target) for target in targets]
        self._labels, self._valid = store.labels, store.valid

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, chosen: np.ndarray) -> Batch:
        """The windows of these indices, int [B]."""
        rows, real = self.windows.rows[chosen], self.windows.real[chosen]
        flat = rows.ravel()
        labels = np.take(self._labels, flat, axis=0)[:, self._columns].reshape(*rows.shape, -1)
        valid = np.take(self._valid, flat, axis=0)[:, self._columns].reshape(*rows.shape, -1) & real[..., None]
        return Batch(
            x={m: self._tensor(self._gather(m, flat, real)) for m in self._features},
            y=self._tensor(np.where(valid, labels, np.float32(0))),
            valid=self._tensor(valid),
            real=self._tensor(real),
        )

    def _gather(self, modality: str, flat: np.ndarray, real: np.ndarray) -> np.ndarray:
        raw = np.take(self._features[modality], flat, axis=0)
        seen = np.take(self._present[modality], flat) & real.ravel()
        statistics = self._statistics[modality]
        scaled: np.ndarray = (raw - statistics.mean) / statistics.std * seen[:, None]
        return scaled.reshape(*real.shape, -1)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


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
