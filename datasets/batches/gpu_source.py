"""Features that stay in the memory of a GPU, and windows that are gathered there: a batch moves its indices only.

Legend: N frames of the store, W windows, B batch, L frames of a window, D features, K pictures of a clip, T targets.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.batches.windows import Batch, Frames, Windows, WindowSource, clips_of
from crossfold.datasets.store.feature_store import FeatureStore, Normalisation

logger = logging.getLogger(__name__)

SHARE = 0.5
"""Of the free memory that features may take; the rest is for the model, its gradients and activations."""


PIECE_BYTES = 64 * 2**20
"""Of a store, on its way to a device."""


@dataclass(frozen=True)
class Resident:
    """What of a store lies on a device."""

    device: str
    features: Mapping[str, Tensor]
    """[N, *frame_shape] as stored, of the modalities that fit."""
    labels: Tensor
    """float32 [N, T], each target's range on [-1, 1]."""
    valid: Tensor
    """bool [N, T]."""
    present: Mapping[str, Tensor]
    """bool [N] of every modality."""
    first_rows: Tensor
    """int64 [N]: the row at which the clip of a row begins."""


def free_bytes(device: str) -> int:
    """Of a GPU's memory: what no process has taken, and what torch holds here without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


_KEPT: dict[tuple[str, str], Tensor] = {}
"""Features of the cell that this process ran last, by file and device: the next one mostly needs the same."""
_TOLD: set[tuple[str, str]] = set()


def place(
    store: FeatureStore,
    fold: int,
    modalities: Sequence[str],
    targets: Sequence[str],
    device: str,
    *,
    free: Callable[[str], int] = free_bytes,
) -> Resident:
    """Moves what a cell feeds on to its device, the smallest modality first, as long as it fits.

    A modality that does not is gathered by the host and copied batch by batch, from pinned memory; the log says so once
    a process. What an earlier cell left here and this one does not need is let go.
    """
    arrays = {m: store.features(m, fold) for m in modalities}
    keys = {m: (str(getattr(array, "filename", f"{store.path}/{m}@{fold}")), device) for m, array in arrays.items()}
    for key in _KEPT.keys() - keys.values():
        del _KEPT[key]
    features: dict[str, Tensor] = {}
    for m in sorted(arrays, key=lambda m: arrays[m].nbytes):
        if keys[m] not in _KEPT:
            room = SHARE * free(device)
            if arrays[m].nbytes > room:
                _tell(store, m, arrays[m].nbytes, room, device)
                continue
            _KEPT[keys[m]] = _moved(arrays[m], device)
        features[m] = _KEPT[keys[m]]
    columns = [store.targets.index(target) for target in targets]
    labels = np.asarray(store.labels)[:, columns]
    units = np.stack([store.target(name).to_unit(labels[:, t]) for t, name in enumerate(targets)], axis=1)
    plain = all(store.target(name).plain for name in targets)
    return Resident(
        device,
        features,
        _moved(labels if plain else units, device),
        _moved(np.asarray(store.valid)[:, columns], device),
        {m: _moved(store.present(m), device) for m in modalities},
        _moved(store.first_rows(np.arange(store.frames)), device),
    )


def forget() -> None:
    """Lets go of what is kept for the next cell, as after a cell that ran out of memory."""
    _KEPT.clear()


class ResidentSource:
    """`WindowSource` on a device: the same windows, bit for bit, gathered where the features are."""

    def __init__(
        self,
        store: FeatureStore,
        windows: Windows,
        *,
        fold: int,
        modalities: Sequence[str],
        targets: Sequence[str],
        resident: Resident,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        """`resident`: of the same store, fold and targets; `inputs`: see `WindowSource`."""
        self.windows = windows
        self._store, self._fold, self._targets = store, fold, targets
        self._inputs = inputs or {}
        self._resident = resident
        self._modalities = tuple(modalities)
        self._rows = _moved(windows.rows, resident.device)
        self._real = _moved(windows.real, resident.device)
        self._back = {
            m: _moved(np.arange(kind.length - 1, -1, -1) * kind.step, resident.device)
            for m in modalities
            if (kind := clips_of(store, m, self._inputs.get(m))) is not None
        }
        self._normalisation = {m: store.normalisation(m, fold) for m in modalities}
        self._statistics = {m: self._on_device(found) for m, found in self._normalisation.items()}
        # Gathered by the host: what did not fit, and what is damaged on purpose.
        self._from_host = {m: self._host(m) for m in modalities if m not in resident.features}

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, chosen: np.ndarray) -> Batch:
        """The windows of these indices, int [B]."""
        index_B = _sent(chosen, self._resident.device)
        rows_BL, real_BL = self._rows[index_B], self._real[index_B]
        flat = rows_BL.reshape(-1)
        valid = self._resident.valid[flat].reshape(*rows_BL.shape, -1) & real_BL.unsqueeze(-1)
        labels = self._resident.labels[flat].reshape(*rows_BL.shape, -1)
        x = {}
        for m in self._modalities:
            host = self._from_host.get(m)
            x[m] = host.batch(chosen).x[m] if host is not None else self._gather(m, flat, real_BL)
        return Batch(x=x, y=labels.masked_fill(~valid, 0.0), valid=valid, real=real_BL)

    def with_frames(self, modality: str, frames: Frames, present: np.ndarray) -> "ResidentSource":
        """The same windows with other content of one modality, as `WindowSource.with_frames`."""
        other = copy.copy(self)
        host = self._from_host.get(modality) or self._host(modality)
        other._from_host = {**self._from_host, modality: host.with_frames(modality, frames, present)}
        return other

    def with_statistics(self, statistics: Mapping[str, Normalisation | None]) -> "ResidentSource":
        """The same windows, normalised by other statistics than those of the fold."""
        other = copy.copy(self)
        other._normalisation = {**self._normalisation, **statistics}
        other._statistics = {m: self._on_device(found) for m, found in other._normalisation.items()}
        other._from_host = {m: host.with_statistics(statistics) for m, host in self._from_host.items()}
        return other

    def _on_device(self, found: Normalisation | None) -> tuple[Tensor, Tensor] | None:
        if found is None:
            return None
        return _moved(found.mean, self._resident.device), _moved(found.std, self._resident.device)

    def _host(self, modality: str) -> WindowSource:
        source = WindowSource(
            self._store,
            self.windows,
            fold=self._fold,
            modalities=(modality,),
            targets=self._targets,
            device=self._resident.device,
            inputs=self._inputs,
        )
        return source.with_statistics({modality: self._normalisation[modality]})

    def _gather(self, modality: str, flat: Tensor, real_BL: Tensor) -> Tensor:
        seen = self._resident.present[modality][flat] & real_BL.reshape(-1)
        if modality in self._back:
            first = self._resident.first_rows[flat]
            flat = torch.maximum(flat.unsqueeze(1) - self._back[modality], first.unsqueeze(1))
        raw = self._resident.features[modality][flat]
        shown = seen.reshape(-1, *(1,) * (raw.ndim - 1))
        statistics = self._statistics[modality]
        if statistics is None:
            return raw.masked_fill(~shown, 0).reshape(*real_BL.shape, *raw.shape[1:])
        mean, std = statistics
        return ((raw - mean) / std * shown).to(raw.dtype).reshape(*real_BL.shape, *raw.shape[1:])


def _moved(array: np.ndarray, device: str) -> Tensor:
    """The array on the device, carried there piece by piece: a store may be larger than the memory of the host."""
    first = torch.from_numpy(np.array(array[:1]))
    moved = torch.empty(array.shape, dtype=first.dtype, device=device)
    rows = max(1, PIECE_BYTES // max(first.nbytes, 1))
    for start in range(0, len(array), rows):
        # A copy: mapped files cannot be written, and torch would warn of it.
        moved[start : start + rows] = torch.from_numpy(np.array(array[start : start + rows]))
    return moved


def _sent(index: np.ndarray, device: str) -> Tensor:
    tensor = torch.from_numpy(index.astype(np.int64))
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _tell(store: FeatureStore, modality: str, size: int, room: float, device: str) -> None:
    key = (str(store.path), modality)
    if key not in _TOLD:
        _TOLD.add(key)
        logger.warning(
            "%s of store %s (%.1f GiB) does not fit into %.1f GiB, the part of the free memory of %s that features may "
            "take: the host gathers its windows, and each batch is copied",
            modality,
            store.path.name,
            size / 2**30,
            room / 2**30,
            device,
        )
