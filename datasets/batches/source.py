"""Batches of windows, gathered from a store by one torch index on the CPU or on a GPU.

An index of a window is a frame, or a clip of several frames that share one prediction (A16).

Legend: N frames of the store, or of a batch; W windows, B batch, L indices of a window, F frames of an index, M = L x F
frames of a window, T targets.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.batches import gpu_cache
from crossfold.datasets.batches.windows import Windows
from crossfold.datasets.store.feature_store import FeatureStore, Normalisation
from crossfold.datasets.store.input_kinds import ClipKind, clip_kind
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Clip


@dataclass(frozen=True)
class BatchSpec:
    """What a batch holds, and where it is gathered."""

    fold: int
    """Whose features and statistics."""
    modalities: Sequence[str]
    targets: Sequence[str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The raw input wanted of a modality, where it is not what is stored: `clips16@112` of `crops112`."""
    device: str = "cpu"
    clip: Clip = field(default_factory=Clip)


@dataclass(frozen=True)
class Batch:
    """Some windows, gathered.

    x: B x L x D each, normalised, zero where the modality is absent or the window is padding; raw input is
    B x L x the shape of a frame, in its own type, as stored (spectrograms in decibels standardised);
    y: B x L x T, each target's range on [-1, 1]; valid: bool B x L x T, which labels count; real: bool B x L.
    """

    x: dict[str, Tensor]
    y: Tensor
    valid: Tensor
    real: Tensor


class Frames(Protocol):
    """The rows of a modality that the host reads on demand: an array, or an object with its `take`."""

    def take(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """Rows [*indices.shape, *frame shape] of int `indices`, as `np.take`; `axis` is 0."""
        ...


@dataclass(frozen=True)
class StoreArrays:
    """What of a store batches are gathered from; tensors lie on the device of the batches."""

    features: Mapping[str, Tensor | Frames]
    """[N, *frame shape] as stored; `Frames` are gathered by the host, and each batch of them is copied."""
    present: Mapping[str, Tensor]
    """bool [N]."""
    statistics: Mapping[str, tuple[Tensor, Tensor] | None]
    """Mean and standard deviation, each of the shape of a frame; None: used as stored."""
    labels: Tensor
    """float32 [N, T], each target's range on [-1, 1]."""
    valid: Tensor
    """bool [N, T]."""

    @classmethod
    def of(
        cls, store: FeatureStore, spec: BatchSpec, statistics: Mapping[str, Normalisation | None] | None = None
    ) -> "StoreArrays":
        """Of the files of a store: mapped for the CPU, copied to a GPU as far as they fit.

        statistics: others than those of the fold.
        """
        known = statistics or {m: store.normalisation(m, spec.fold) for m in spec.modalities}
        features: Mapping[str, Tensor | Frames]
        if spec.device == "cpu":
            features = {m: _tensor(store.features(m, spec.fold), "cpu") for m in spec.modalities}
        else:
            there = gpu_cache.load(store, spec.fold, spec.modalities, spec.device)
            features = {m: there[m] if m in there else store.features(m, spec.fold) for m in spec.modalities}
        columns = [store.targets.index(name) for name in spec.targets]
        labels = _columns(store.labels, columns)
        if not all(store.target(name).plain for name in spec.targets):
            labels = np.stack([store.target(name).to_unit(labels[:, t]) for t, name in enumerate(spec.targets)], axis=1)
        return cls(
            features,
            {m: _tensor(store.present(m), spec.device) for m in spec.modalities},
            {
                m: (_tensor(found.mean, spec.device), _tensor(found.std, spec.device)) if found is not None else None
                for m, found in known.items()
            },
            _tensor(labels, spec.device),
            _tensor(_columns(store.valid, columns), spec.device),
        )


class WindowSource:
    """Gathers batches of windows of a store; nothing is copied until a batch is asked for."""

    def __init__(
        self, store: FeatureStore, windows: Windows, spec: BatchSpec, arrays: StoreArrays | None = None
    ) -> None:
        """`windows`: of L x F frames each; `arrays`: of the same store and spec, where they are open already.

        Raises `UserError` where the store's raw input cannot serve the spec.
        """
        self.windows = windows
        self.arrays = arrays if arrays is not None else StoreArrays.of(store, spec)
        self._spec = spec
        # Clips of pictures repeat the first picture of their video, so they need to know where it begins.
        self._first_rows = store.first_rows
        self._kinds = {m: kind for m in spec.modalities if (kind := _gathered_kind(store, m, spec.inputs.get(m)))}
        self._rows, self._real = _tensor(windows.rows, spec.device), _tensor(windows.real, spec.device)

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, chosen: np.ndarray) -> Batch:
        """The windows of these indices, int [B]."""
        clip, index_B = self._spec.clip, self._sent(chosen.astype(np.int64))
        rows_BM, real_BM = self._rows[index_B], self._real[index_B]
        rows = rows_BM.flatten()
        valid = _shaped(self.arrays.valid.index_select(0, rows), rows_BM.shape) & real_BM.unsqueeze(-1)
        y = _shaped(self.arrays.labels.index_select(0, rows), rows_BM.shape).masked_fill_(~valid, 0.0)
        x = {m: self._input(m, chosen, rows_BM, real_BM) for m in self._spec.modalities}
        if clip.frames == 1:
            return Batch(x=x, y=y, valid=valid, real=real_BM)
        real_BLF, valid_BLFT = _folded(real_BM, clip.frames), _folded(valid, clip.frames)
        y = _label_of_clips(_folded(y, clip.frames), valid_BLFT, clip)
        return Batch(x=x, y=y, valid=valid_BLFT.any(dim=2), real=real_BLF.any(dim=2))

    def input(self, modality: str, chosen: np.ndarray) -> Tensor:
        """x of one modality, as `batch` gives it for the windows of these indices, int [B]."""
        index_B = self._sent(chosen.astype(np.int64))
        return self._input(modality, chosen, self._rows[index_B], self._real[index_B])

    def with_frames(self, modality: str, frames: Frames, present: np.ndarray) -> "WindowSource":
        """The same windows with other content of one modality: frames [N, *shape] and presence, bool [N]."""
        other = copy.copy(self)
        other.arrays = replace(
            self.arrays,
            features={**self.arrays.features, modality: frames},
            present={**self.arrays.present, modality: _tensor(present, self._spec.device)},
        )
        return other

    def _input(self, modality: str, chosen: np.ndarray, rows_BM: Tensor, real_BM: Tensor) -> Tensor:
        clip = self._spec.clip
        x = self._gather(modality, chosen, *_input_frames(rows_BM, real_BM, clip))
        if clip.frames == 1 or clip.feature != "mean":
            return x
        return _mean(_folded(x, clip.frames), _folded(real_BM, clip.frames))

    def _gather(self, modality: str, chosen: np.ndarray, rows_BL: Tensor, real_BL: Tensor) -> Tensor:
        """x of one modality, B x L x the shape of a frame: rows on the device, and the same windows for the host."""
        raw = self._raw(modality, chosen, rows_BL.flatten())
        seen = self.arrays.present[modality].index_select(0, rows_BL.flatten()) & real_BL.flatten()
        shown = seen.reshape(-1, *(1,) * (raw.ndim - 1))
        statistics = self.arrays.statistics[modality]
        if statistics is None:
            values = raw.masked_fill_(~shown, 0)
        else:
            # In place, for memory: `raw` is a copy. Narrow types are standardised in float32 and rounded once.
            values = raw.float().sub_(statistics[0]).div_(statistics[1]).mul_(shown).to(raw.dtype)
        return _shaped(values, real_BL.shape)

    def _raw(self, modality: str, chosen: np.ndarray, rows_N: Tensor) -> Tensor:
        """Frames of one modality as stored, a copy on the device."""
        held, kind = self.arrays.features[modality], self._kinds.get(modality)
        if kind is None and isinstance(held, Tensor):
            return held.index_select(0, rows_N)
        rows, real = (torch.from_numpy(array[chosen]) for array in (self.windows.rows, self.windows.real))
        wanted = _input_frames(rows, real, self._spec.clip)[0].flatten().numpy()
        if kind is not None:
            wanted = kind.rows(wanted, self._first_rows(wanted))
        if isinstance(held, Tensor):
            return _shaped(held.index_select(0, self._sent(wanted.ravel())), wanted.shape)
        return self._sent(held.take(wanted, axis=0))

    def _sent(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._spec.device.startswith("cuda"):
            # From pinned memory the copy runs while the GPU computes.
            tensor = tensor.pin_memory()
        return tensor.to(self._spec.device, non_blocking=True)


def _gathered_kind(store: FeatureStore, modality: str, wanted: str | None) -> ClipKind | None:
    """How to gather the wanted clips of a modality; None where it is used as it is stored."""
    stored = store.input_kind(modality)
    if wanted is None or wanted == stored:
        return None
    kind = clip_kind(wanted)
    if kind is None or kind.stored != stored:
        needed = kind.stored if kind is not None else wanted
        holds = f"raw {stored}" if stored is not None else "extracted features"
        raise UserError(
            f"{modality} of store {store.path.name} is {holds}, and the backbone needs {wanted}",
            f"run `crossfold prepare` with --{modality} raw:{needed}",
        )
    return kind


def _tensor(array: np.ndarray, device: str) -> Tensor:
    """The array on a device; for the CPU its own memory, which is that of a file and must not be written."""
    if device != "cpu":
        return gpu_cache.copied(array, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _columns(array: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Columns of [N, all targets]; a view where they stand side by side, so that a mapped file is not read."""
    first, last = columns[0], columns[-1] + 1
    return array[:, first:last] if list(columns) == list(range(first, last)) else array[:, columns]


def _input_frames(rows_BM: Tensor, real_BM: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
    """The frames of windows that become x, and which of them are real: rows int64 and bool [B, L or M].

    All of them, or of each clip the last or the middle one of those that are real.
    """
    if clip.frames == 1 or clip.feature == "mean":
        return rows_BM, real_BM
    # Padding stands at the end of a window, so the real frames of a clip are its first ones.
    count_BL = _folded(real_BM, clip.frames).sum(dim=2)
    last_BL = (count_BL - 1).clamp(min=0)
    place_BL = last_BL if clip.feature == "last" else last_BL // 2
    rows_BL = _folded(rows_BM, clip.frames).gather(2, place_BL.unsqueeze(2)).squeeze(2)
    return rows_BL, count_BL > 0


def _shaped(values: Tensor, shape: Sequence[int]) -> Tensor:
    """[*shape, ...] of [N, ...]."""
    return values.reshape(*shape, *values.shape[1:])


def _folded(values: Tensor, frames: int) -> Tensor:
    """B x L x F x ... of B x (L F) x ..."""
    return values.reshape(len(values), values.shape[1] // frames, frames, *values.shape[2:])


def _mean(values_BLFx: Tensor, weight_BLF: Tensor) -> Tensor:
    """Mean over the real frames of a clip; zero where there is none."""
    weight = weight_BLF.reshape(*weight_BLF.shape, *(1,) * (values_BLFx.ndim - weight_BLF.ndim)).to(values_BLFx.dtype)
    mean: Tensor = (values_BLFx * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1)
    return mean


def _label_of_clips(y_BLFT: Tensor, valid_BLFT: Tensor, clip: Clip) -> Tensor:
    """B x L x T, the label of a clip (D9): the mean of its labelled frames, or that of its last one."""
    if clip.label == "mean":
        return _mean(y_BLFT, valid_BLFT)
    # The last frame with a label: a clip cut off by the end of a video is shorter.
    place_F = torch.arange(1, clip.frames + 1, device=y_BLFT.device).reshape(1, 1, -1, 1)
    last_BLT = (place_F * valid_BLFT).argmax(dim=2)
    return y_BLFT.gather(2, last_BLT.unsqueeze(2)).squeeze(2)
