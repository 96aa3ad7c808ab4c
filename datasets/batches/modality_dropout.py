"""Modality dropout: in training, some windows lose a modality as a whole, so that a system learns to do without it.

Legend: B windows of a batch, W windows of the training split, K modalities of `MODALITIES`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from crossfold.datasets.batches.source import Batch
from crossfold.platform.core.cell import MODALITIES, Cell
from crossfold.platform.core.seeds import modality_dropout_seed


def dropped_windows(cell: Cell, modalities: Sequence[str], windows: int, epoch: int) -> dict[str, np.ndarray]:
    """bool [W] by modality: the windows that lose it in an epoch; empty where the recipe drops none.

    modalities: those that the system reads. Each is lost with the probability of the recipe, independently (ModDrop,
    Neverova et al. 2016, section 4.2); a window that would lose all of them keeps them. The draws depend on neither the
    system nor the batches.
    """
    shares: Mapping[Any, float] = cell.recipe.modality_dropout
    if not any(modality in shares for modality in modalities):
        return {}
    draws_WK = np.random.default_rng(modality_dropout_seed(cell, epoch)).random((windows, len(MODALITIES)))
    lost = {m: draws_WK[:, MODALITIES.index(m)] < shares.get(m, 0.0) for m in modalities}
    all_lost_W = np.logical_and.reduce(list(lost.values()))
    return {m: lost_W & ~all_lost_W for m, lost_W in lost.items()}


def without(batch: Batch, lost_B: Mapping[str, np.ndarray]) -> Batch:
    """The batch with the lost windows of each modality at zero, as a modality is that is missing; changes it in place.

    lost_B: bool [B] by modality.
    """
    for modality, lost in lost_B.items():
        if lost.any():
            values = batch.x[modality]
            where = torch.from_numpy(lost).to(values.device)
            values.masked_fill_(where.reshape(-1, *(1,) * (values.ndim - 1)), 0)
    return batch
