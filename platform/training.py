"""One training loop for every system: epochs, schedule, best state, checkpoints."""

import copy
import hashlib
import io
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.windows import Batch, WindowSource
from crossfold.platform.config import Loss
from crossfold.platform.contracts import Cell, EpochReport, Reporter
from crossfold.platform.errors import Cancelled, Diverged
from crossfold.platform.metrics import ccc
from crossfold.platform.model import EmotionModel
from crossfold.platform.seeds import batch_seed

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 2.0
"""A finished epoch is written down unless a checkpoint is younger than this; short cells write none."""

State = dict[str, Tensor]


@dataclass
class Progress:
    """Where a training run stands: everything a checkpoint holds beside the tensors."""

    epoch: int = 0
    """Epochs finished."""
    best_ccc: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """The best state of a run, and how it came about."""

    best_state: State
    progress: Progress


def loss_of(prediction_BLT: Tensor, batch: Batch, params: Loss) -> Tensor:
    """`1 - CCC` summed over targets (004 eq 6, 002 eq 16; 001 eq 22), or the mean square of valid frames.

    scope `window`: a CCC per window, averaged; `batch`: one over all frames of the batch (E2).
    """
    if params.kind == "mse":
        square_BLT = (prediction_BLT - batch.y).square() * batch.valid
        return square_BLT.sum() / batch.valid.sum().clamp(min=1)
    if params.scope == "window":
        per_window_BT = ccc(prediction_BLT, batch.y, batch.valid, axis=1)
        labelled_BT = batch.valid.any(dim=1)
        mean_T = (per_window_BT * labelled_BT).sum(0) / labelled_BT.sum(0).clamp(min=1)
        windows: Tensor = (1 - mean_T).sum()
        return windows
    flat = (-1, prediction_BLT.shape[-1])
    whole_T = ccc(prediction_BLT.reshape(flat), batch.y.reshape(flat), batch.valid.reshape(flat), axis=0)
    whole: Tensor = (1 - whole_T).sum()
    return whole


def train(
    cell: Cell,
    model: EmotionModel,
    source: WindowSource,
    validate: Callable[[EmotionModel], dict[str, float]],
    reporter: Reporter,
    checkpoint: Path,
) -> Trained:
    """Trains until the epochs or the patience of the recipe run out, resuming from `checkpoint` if it is there.

    validate: CCC per target on the split that picks the epoch. Raises `Diverged`, or what the reporter raises.
    """
    recipe = cell.recipe
    optimizer = torch.optim.Adam(
        model.parameters(), lr=recipe.optimizer.lr, weight_decay=recipe.optimizer.weight_decay, fused=True
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="max",
        patience=recipe.optimizer.plateau_patience,
        factor=recipe.optimizer.plateau_factor,
        min_lr=recipe.optimizer.min_lr,
        threshold=0.0,
    )
    run = _Run(model, optimizer, plateau, Progress(), _copy(model))
    run.restore(checkpoint)
    written = time.monotonic()
    while run.progress.epoch < recipe.epochs and run.progress.epoch - run.progress.best_epoch <= recipe.patience:
        started = time.monotonic()
        progress = run.progress
        train_loss = _train_epoch(cell, run, source)
        scores = validate(model)
        mean = sum(scores.values()) / len(scores)
        if not math.isfinite(mean):
            raise Diverged(f"epoch {progress.epoch + 1}: the selection CCC is {mean}; the predictions are not finite")
        if mean > progress.best_ccc:
            progress.best_ccc, progress.best_epoch = mean, progress.epoch
            run.best_state = _copy(model)
        rate = optimizer.param_groups[0]["lr"]
        if progress.epoch >= recipe.optimizer.warmup_epochs:
            plateau.step(mean)
        if recipe.reload_best:
            model.load_state_dict(run.best_state)
        progress.curve.append(
            {"epoch": progress.epoch, "learning_rate": rate, "train_loss": train_loss}
            | {f"ccc_{target}": value for target, value in scores.items()}
        )
        progress.epoch += 1
        seconds = time.monotonic() - started
        progress.seconds += seconds
        if time.monotonic() - written > CHECKPOINT_SECONDS:
            run.save(checkpoint)
            written = time.monotonic()
        report = EpochReport(
            epoch=progress.epoch,
            epochs=recipe.epochs,
            learning_rate=rate,
            train_loss=train_loss,
            ccc=scores,
            best_ccc=progress.best_ccc,
            seconds=seconds,
        )
        try:
            reporter.epoch(cell.cell_id, report)
        except Cancelled:
            run.save(checkpoint)
            raise
    return Trained(run.best_state, run.progress)


def _train_epoch(cell: Cell, run: "_Run", source: WindowSource) -> float:
    """One pass over the windows; returns the mean loss per window."""
    recipe, model, optimizer = cell.recipe, run.model, run.optimizer
    epoch = run.progress.epoch
    order = np.random.default_rng(batch_seed(cell, epoch)).permutation(len(source))
    starts = range(0, len(order), recipe.batch)
    model.train()
    total = 0.0
    for step, start in enumerate(starts):
        if epoch < recipe.optimizer.warmup_epochs:
            _set_rate(optimizer, recipe.optimizer.lr * (step + 1) / len(starts))
        chosen = order[start : start + recipe.batch]
        batch = source.batch(chosen)
        optimizer.zero_grad(set_to_none=True)
        prediction_BLT = model(batch.x, batch.real)
        loss = loss_of(prediction_BLT, batch, recipe.loss)
        if not torch.isfinite(loss):
            raise Diverged(_culprit(model, prediction_BLT, epoch, step))
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()
        total += float(loss.detach()) * len(chosen)
    return total / max(len(order), 1)


@dataclass
class _Run:
    """What changes from epoch to epoch, and how it is written down."""

    model: EmotionModel
    optimizer: torch.optim.Optimizer
    plateau: torch.optim.lr_scheduler.ReduceLROnPlateau
    progress: Progress
    best_state: State

    def save(self, path: Path) -> None:
        """Writes the checkpoint beside its place and renames it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        held = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "plateau": self.plateau.state_dict(),
                "best_state": self.best_state,
                "progress": vars(self.progress),
                "generator": torch.get_rng_state(),
            },
            held,
        )
        # A name of its own: a second attempt at the cell may be writing too.
        handle, beside = tempfile.mkstemp(prefix=".last-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(seal(held.getvalue()))
        Path(beside).replace(path)

    def restore(self, path: Path) -> None:
        """Takes up a checkpoint; one that cannot be read is set aside and the run starts over."""
        if not path.is_file():
            return
        before = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), self.plateau.state_dict()))
        try:
            self._take_up(path)
        except Exception as error:  # torch raises many kinds for a damaged file; each means the same here
            logger.warning("checkpoint %s cannot be used (%s); starting over", path.name, error)
            path.unlink(missing_ok=True)
            self.model.load_state_dict(before[0])
            self.optimizer.load_state_dict(before[1])
            self.plateau.load_state_dict(before[2])

    def _take_up(self, path: Path) -> None:
        saved: dict[str, Any] = torch.load(io.BytesIO(unseal(path.read_bytes())), weights_only=True)
        progress, best_state, generator = Progress(**saved["progress"]), saved["best_state"], saved["generator"]
        if {name: t.shape for name, t in best_state.items()} != {name: t.shape for name, t in self.best_state.items()}:
            raise ValueError("its weights have other names or shapes")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.plateau.load_state_dict(saved["plateau"])
        self.progress, self.best_state = progress, best_state
        torch.set_rng_state(generator)


def seal(content: bytes) -> bytes:
    """The content behind its SHA-256, so that a flipped bit is noticed."""
    return hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes:
    """The content, or `ValueError` where it is not what was sealed."""
    content = sealed[32:]
    if hashlib.sha256(content).digest() != sealed[:32]:
        raise ValueError("its checksum is wrong")
    return content


def _copy(model: EmotionModel) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _culprit(model: EmotionModel, prediction: Tensor, epoch: int, step: int) -> str:
    """Names the first tensor that is not finite, looking at the weights, then at the prediction."""
    where = f"epoch {epoch + 1}, step {step + 1}: the loss is not finite"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{where}; weight {name} {tuple(parameter.shape)} is the first that is not"
    if not torch.isfinite(prediction).all():
        return f"{where}; all weights are finite, the prediction {tuple(prediction.shape)} is not"
    return f"{where}; weights and prediction are finite, the labels or the loss itself are not"
