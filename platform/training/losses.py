"""The training loss, over a whole batch or over a part of one.

Legend: B batch, L frames, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossfold.datasets.batches.source import Batch
from crossfold.platform.core.metrics import ccc
from crossfold.platform.core.recipe import Loss


@dataclass(frozen=True)
class BatchStatistics:
    """What the loss of a part needs of the whole batch, so that the losses of the parts add up to the batch's.

    windows: [T], windows with a label; frames: [], labels of all targets. Both float64.
    """

    windows: Tensor
    frames: Tensor

    @classmethod
    def of(cls, parts: Sequence[Batch], targets: int, device: torch.device) -> "BatchStatistics":
        """Of the parts at hand, of which there may be none; on several devices they are still to be summed."""
        windows, frames = (torch.zeros(n, dtype=torch.float64, device=device) for n in ((targets,), ()))
        for part in parts:
            windows += part.valid.any(dim=1).sum(0)
            frames += part.valid.sum()
        return cls(windows, frames)


def loss_of(prediction_BLT: Tensor, batch: Batch, params: Loss, whole: BatchStatistics | None = None) -> Tensor:
    """`1 - CCC` summed over targets (004 eq 6, 002 eq 16; 001 eq 22), the mean square of valid frames, or both.

    scope `window`: a CCC per window, averaged; `batch`: one over all frames of the batch (E2).
    `whole`: the batch this is a part of. Then the losses of the parts sum to that of the batch, and so do their
    gradients; a CCC over the batch has no parts.
    """
    terms = []
    if params.kind != "mse":
        terms.append(_ccc_loss(prediction_BLT, batch, params, whole))
    if params.kind != "ccc":
        square_BLT = (prediction_BLT - batch.y).square() * batch.valid
        frames = batch.valid.sum() if whole is None else whole.frames.to(square_BLT.dtype)
        mean_square = square_BLT.sum() / frames.clamp(min=1)
        terms.append(mean_square if params.kind == "mse" else params.mse_weight * mean_square)
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _ccc_loss(prediction_BLT: Tensor, batch: Batch, params: Loss, whole: BatchStatistics | None) -> Tensor:
    if params.scope == "window":
        per_window_BT = ccc(prediction_BLT, batch.y, batch.valid, axis=1)
        labelled_BT = batch.valid.any(dim=1)
        here_T = labelled_BT.sum(0)
        among_T = (here_T if whole is None else whole.windows).clamp(min=1)
        # A part answers for its share of the 1; a whole batch for all of it, labelled or not.
        share_T: Tensor | float = 1.0 if whole is None else here_T / among_T
        windows: Tensor = (share_T - (per_window_BT * labelled_BT).sum(0) / among_T).sum()
        return windows
    assert whole is None, "one CCC over the batch has no parts"
    flat = (-1, prediction_BLT.shape[-1])
    whole_T = ccc(prediction_BLT.reshape(flat), batch.y.reshape(flat), batch.valid.reshape(flat), axis=0)
    one: Tensor = (1 - whole_T).sum()
    return one
