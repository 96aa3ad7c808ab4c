"""From the store to windows of L frames, and from windows back to frames.

Legend: W windows, B batch, L frames of a window, D features, T targets, N frames of the store.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.store.feature_store import FeatureStore, Normalisation
from crossfold.datasets.store.input_kinds import ClipKind, clip_kind
from crossfold.platform.core.errors import UserError


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

    x: B x L x D each, normalised, zero where the modality is absent or the window is padding; raw input is
    B x L x its shape a frame, in its own type, as stored (spectrograms in decibels standardised);
    y: B x L x T, each target's range on [-1, 1]; valid: bool B x L x T, which labels count; real: bool B x L.
    """

    x: dict[str, Tensor]
    y: Tensor
    valid: Tensor
    real: Tensor


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


class Frames(Protocol):
    """The rows of a modality, read when they are asked for: an array, or something that answers like one."""

    def take(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """Rows [*indices.shape, *frame shape] of int `indices`, as `np.take`; `axis` is 0."""
        ...


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
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        """`inputs`: the raw input wanted of a modality, where it is not what is stored: `clips16@112` of `crops112`.

        Raises `UserError` where the store's raw input cannot serve it.
        """
        self.windows = windows
        self.device = device
        self._features: dict[str, Frames] = {m: store.features(m, fold) for m in modalities}
        self._clips = {m: kind for m in modalities if (kind := clips_of(store, m, (inputs or {}).get(m))) is not None}
        self._first_rows = store.first_rows
        self._present = {m: store.present(m) for m in modalities}
        self._statistics = {m: store.normalisation(m, fold) for m in modalities}
        self._columns = [store.targets.index(target) for target in targets]
        self._scales = [store.target(target) for target in targets]
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
            y=self._tensor(np.where(valid, self._to_unit(labels), np.float32(0))),
            valid=self._tensor(valid),
            real=self._tensor(real),
        )

    def with_frames(self, modality: str, frames: Frames, present: np.ndarray) -> "WindowSource":
        """The same windows with other content of one modality: frames [N, *shape] and presence, bool [N]."""
        other = copy.copy(self)
        other._features = {**self._features, modality: frames}
        other._present = {**self._present, modality: present}
        return other

    def with_statistics(self, statistics: Mapping[str, Normalisation | None]) -> "WindowSource":
        """The same windows, normalised by other statistics than those of the fold."""
        other = copy.copy(self)
        other._statistics = {**self._statistics, **statistics}
        return other

    def _to_unit(self, labels: np.ndarray) -> np.ndarray:
        if all(scale.plain for scale in self._scales):
            return labels
        return np.stack([scale.to_unit(labels[..., t]) for t, scale in enumerate(self._scales)], axis=-1)

    def _gather(self, modality: str, flat: np.ndarray, real: np.ndarray) -> np.ndarray:
        seen = np.take(self._present[modality], flat) & real.ravel()
        statistics = self._statistics[modality]
        if modality in self._clips:
            flat = self._clips[modality].rows(flat, self._first_rows(flat))
        raw = self._features[modality].take(flat, axis=0)
        if statistics is None:
            raw[~seen] = 0
            return raw.reshape(*real.shape, *raw.shape[1:])
        shown = seen.reshape(-1, *(1,) * (raw.ndim - 1))
        scaled: np.ndarray = (raw - statistics.mean) / statistics.std * shown
        return scaled.reshape(*real.shape, *raw.shape[1:]).astype(raw.dtype, copy=False)

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.startswith("cuda"):
            # From pinned memory the copy runs beside what the GPU computes.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def clips_of(store: FeatureStore, modality: str, wanted: str | None) -> ClipKind | None:
    """How to gather the wanted clips of a modality; None where it is used as it is stored."""
    stored = store.input_kind(modality)
    if wanted is None or wanted == stored:
        return None
    kind = clip_kind(wanted)
    if kind is None or kind.stored != stored:
        needed = kind.stored if kind is not None else wanted
        holds = f"raw {stored}" if stored is not None else "ready features"
        raise UserError(
            f"{modality} of store {store.path.name} is {holds}, {wanted} is wanted",
            f"run `crossfold prepare` with --{modality} raw:{needed}",
        )
    return kind


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
