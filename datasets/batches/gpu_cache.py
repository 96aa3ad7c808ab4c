"""Features that stay in the memory of a GPU from one cell to the next, so that a batch moves its indices only."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.store.feature_store import FeatureStore

logger = logging.getLogger(__name__)

SHARE = 0.5
"""Of the free memory that features may take; the rest is for the model, its gradients and activations."""

PIECE_BYTES = 64 * 2**20
"""How much of a store is on its way to a device at a time."""

_KEPT: dict[tuple[str, str], Tensor] = {}
"""Features of the cell that this process ran last, by file and device: the next one mostly needs the same."""
_REPORTED: set[tuple[str, str]] = set()


def load(store: FeatureStore, fold: int, modalities: Sequence[str], device: str) -> dict[str, Tensor]:
    """Features [N, *frame shape] as stored, on the device: the smallest modality first, as long as they fit.

    A modality that does not fit is absent, and the log says so once per process. What an earlier cell left here and
    this one does not need is released.
    """
    arrays = {m: store.features(m, fold) for m in modalities}
    keys = {m: (str(getattr(array, "filename", f"{store.path}/{m}@{fold}")), device) for m, array in arrays.items()}
    for key in _KEPT.keys() - keys.values():
        del _KEPT[key]
    # The smallest first, so that most modalities fit.
    for m in sorted(arrays, key=lambda m: arrays[m].nbytes):
        if keys[m] in _KEPT:
            continue
        space = SHARE * free_bytes(device)
        if arrays[m].nbytes <= space:
            _KEPT[keys[m]] = copied(arrays[m], device)
        elif (str(store.path), m) not in _REPORTED:
            _REPORTED.add((str(store.path), m))
            logger.warning(
                f"{m} of store {store.path.name} ({arrays[m].nbytes / 2**30:.1f} GiB) does not fit into "
                f"{space / 2**30:.1f} GiB, the part of the free memory of {device} that features may take: the host "
                "gathers its windows, and each batch is copied"
            )
    return {m: _KEPT[keys[m]] for m in modalities if keys[m] in _KEPT}


def clear() -> None:
    """Releases what is kept for the next cell, as after a cell that ran out of memory."""
    _KEPT.clear()


def free_bytes(device: str) -> int:
    """Of a GPU's memory: what no process has taken, and what torch holds here without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def copied(array: np.ndarray, device: str) -> Tensor:
    """The array on the device, carried there piece by piece: a store may be larger than the memory of the host."""
    first = torch.from_numpy(np.array(array[:1]))
    copy = torch.empty(array.shape, dtype=first.dtype, device=device)
    rows = max(1, PIECE_BYTES // max(first.nbytes, 1))
    for start in range(0, len(array), rows):
        # A copy: mapped files cannot be written, and torch would warn of it.
        copy[start : start + rows] = torch.from_numpy(np.array(array[start : start + rows]))
    return copy
