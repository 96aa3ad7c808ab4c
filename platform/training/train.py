"""One training loop for every system: epochs, schedule, best state, checkpoints."""

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.batches.source import WindowSource
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled, Diverged
from crossfold.platform.core.outcome import EpochReport, Reporter
from crossfold.platform.core.recipe import Optimizer
from crossfold.platform.core.seeds import batch_seed, crop_seed, dropout_seed
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.modeling.frame_encoder import release
from crossfold.platform.training import checkpoint
from crossfold.platform.training.data_parallel import SINGLE_PROCESS, ProcessGroup
from crossfold.platform.training.losses import BatchStatistics, loss_of
from crossfold.platform.training.lr_schedule import Schedule

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 2.0
"""A finished epoch is written down unless a checkpoint is younger than this; short cells write none."""

EXPLODED = 1e6
"""Labels lie on [-1, 1]: a loss beyond this is no longer one of predictions."""

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
    end: str
    """Why it ended: `epochs`, `patience`, or `exhausted`, the schedule's last stage done."""


def train(
    cell: Cell,
    model: EmotionModel,
    source: WindowSource,
    validate: Callable[[EmotionModel], dict[str, float]],
    reporter: Reporter,
    checkpoint: Path,
    replica: ProcessGroup = SINGLE_PROCESS,
) -> Trained:
    """Trains until the schedule of the recipe ends, resuming from `checkpoint` if it is there.

    validate: CCC per target on the split that picks the epoch. Raises `Diverged`, or what the reporter raises.
    """
    recipe = cell.recipe
    run = _Run(cell, model)
    run.restore(checkpoint)
    progress = run.progress
    written = time.monotonic()
    while (end := run.schedule.end) is None:
        started = time.monotonic()
        if not replica.first:
            # The first one's generator is in the checkpoint; the others' begin anew each epoch.
            torch.manual_seed(dropout_seed(cell, progress.epoch, replica.rank))
        train_loss = _train_epoch(cell, run, source, replica)
        scores = replica.share(lambda: validate(model))
        mean = sum(scores.values()) / len(scores)
        if not math.isfinite(mean):
            raise Diverged(f"epoch {progress.epoch + 1}: the selection CCC is {mean}; the predictions are not finite")
        if mean > progress.best_ccc:
            progress.best_ccc, progress.best_epoch = mean, progress.epoch
            run.best_state = _copy(model)
        rate = run.optimizer.param_groups[0]["lr"]
        if run.schedule.after_epoch(mean):
            run.begin_stage()
        if recipe.reload_best:
            model.load_state_dict(run.best_state)
        progress.curve.append(
            {"epoch": progress.epoch, "learning_rate": rate, "train_loss": train_loss}
            | {f"ccc_{target}": value for target, value in scores.items()}
        )
        progress.epoch += 1
        seconds = time.monotonic() - started
        progress.seconds += seconds
        if replica.first and time.monotonic() - written > CHECKPOINT_SECONDS:
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
            replica.share(partial(reporter.epoch, cell.cell_id, report))
        except Cancelled:
            if replica.first:
                run.save(checkpoint)
            raise
    return Trained(run.best_state, progress, end)


def _train_epoch(cell: Cell, run: "_Run", source: WindowSource, replica: ProcessGroup) -> float:
    """One pass over the windows; returns the mean loss per window."""
    recipe, model = cell.recipe, run.model
    epoch = run.progress.epoch
    order = np.random.default_rng(batch_seed(cell, epoch)).permutation(len(source))
    starts = range(0, len(order), recipe.batch)
    model.train()
    for encoder in model.frames.values():
        encoder.train_released(True)
    total = 0.0
    for step, start in enumerate(starts):
        run.set_rate(run.schedule.rate(step, len(starts)))
        chosen = order[start : start + recipe.batch]
        run.optimizer.zero_grad(set_to_none=True)
        loss = _backward(cell, run, source, replica.shard(chosen), replica, step)
        replica.sum_gradients(run.parameters)
        _bound_gradients(cell, run, epoch, step)
        run.optimizer.step()
        total += loss * len(chosen)
    return total / max(len(order), 1)


def _backward(
    cell: Cell, run: "_Run", source: WindowSource, mine: np.ndarray, replica: ProcessGroup, step: int
) -> float:
    """Gradients of this process's windows, part by part; returns the loss of the whole batch."""
    recipe, epoch = cell.recipe, run.progress.epoch
    parts = [part for part in np.array_split(mine, recipe.accumulate) if len(part)]
    batches = [source.batch(part) for part in parts]
    whole = None
    if recipe.accumulate > 1 or replica.world > 1:
        whole = _shared(BatchStatistics.of(batches, len(cell.targets), run.device), replica)
    losses, prediction_BLT = [], torch.zeros(())
    for part, batch in zip(parts, batches, strict=True):
        seeds = [crop_seed(cell, epoch, int(window)) for window in part] if run.model.frames else None
        prediction_BLT = run.model(batch.x, batch.real, seeds=seeds)
        loss = loss_of(prediction_BLT, batch, recipe.loss, whole)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    own = torch.stack(losses).sum() if losses else torch.zeros((), dtype=torch.float64)
    found = float(replica.total(own.double().to(run.device)) if replica.world > 1 else own)
    if not math.isfinite(found) or found > EXPLODED:
        raise Diverged(_culprit(run.model, prediction_BLT, found, epoch, step))
    return found


def _shared(whole: BatchStatistics, replica: ProcessGroup) -> BatchStatistics:
    return BatchStatistics(replica.total(whole.windows), replica.total(whole.frames))


def _bound_gradients(cell: Cell, run: "_Run", epoch: int, step: int) -> None:
    """Clips the norm where the recipe says so; names a gradient that left the numbers before it spoils the weights.

    In float32 without clipping the norm is not computed for this alone: the next loss tells.
    """
    largest = cell.recipe.optimizer.clip_norm
    if largest is not None:
        norm = torch.nn.utils.clip_grad_norm_(run.parameters, largest)
    elif cell.recipe.precision != "float32" or run.model.frames:
        norm = torch.nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])
    else:
        return
    if not torch.isfinite(norm):
        for name, parameter in run.model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                where = f"epoch {epoch + 1}, step {step + 1}: the gradient is not finite"
                raise Diverged(f"{where}; that of {name} {tuple(parameter.shape)} is the first, the loss still was")


class _Run:
    """What changes from epoch to epoch, and how it is written down."""

    def __init__(self, cell: Cell, model: EmotionModel) -> None:
        self.cell = cell
        self.model = model
        self.parameters = list(model.parameters())
        self.schedule = Schedule(cell.recipe)
        self.optimizer = make_optimizer(self.parameters, cell.recipe.optimizer)
        self.progress = Progress()
        release(model.frames, cell.recipe, self.schedule.groups)
        self.best_state = _copy(model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.parameters[0].device

    def set_rate(self, rate: float) -> None:
        """For the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def begin_stage(self) -> None:
        """Releases what the new stage of the schedule releases."""
        release(self.model.frames, self.cell.recipe, self.schedule.groups)
        if self.cell.recipe.thaw.reset_optimizer:
            self.model.load_state_dict(self.best_state)
            self.optimizer = make_optimizer(self.parameters, self.cell.recipe.optimizer)

    def save(self, path: Path) -> None:
        """Writes the checkpoint."""
        checkpoint.write(
            path,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "best_state": self.best_state,
                "progress": vars(self.progress),
                "generators": _generators(self.device),
            },
        )

    def restore(self, path: Path) -> None:
        """Takes up a checkpoint; one that cannot be read is set aside and the run starts over."""
        if not path.is_file():
            return
        before = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), self.schedule.state_dict()))
        try:
            self._take_up(path)
        except Exception as error:  # torch raises many kinds for a damaged file; each means the same here
            logger.warning("checkpoint %s cannot be used (%s); starting over", path.name, error)
            path.unlink(missing_ok=True)
            self.model.load_state_dict(before[0])
            self.optimizer.load_state_dict(before[1])
            self.schedule.load_state_dict(before[2])
        release(self.model.frames, self.cell.recipe, self.schedule.groups)

    def _take_up(self, path: Path) -> None:
        saved = checkpoint.read(path)
        progress, best_state, generators = Progress(**saved["progress"]), saved["best_state"], saved["generators"]
        if {name: t.shape for name, t in best_state.items()} != {name: t.shape for name, t in self.best_state.items()}:
            raise ValueError("its weights have other names or shapes")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        vars(self.progress).update(vars(progress))
        self.best_state = {name: tensor.to(self.device) for name, tensor in best_state.items()}
        torch.set_rng_state(generators[0])
        if self.device.type == "cuda" and len(generators) > 1:
            torch.cuda.set_rng_state(generators[1], self.device)


def _generators(device: torch.device) -> list[Tensor]:
    """States of what dropout draws from: the CPU's generator, and that of the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def make_optimizer(parameters: Sequence[torch.nn.Parameter], params: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of a recipe over all parameters; frozen ones have no gradient, and are left alone."""
    if params.kind == "sgd":
        return torch.optim.SGD(
            parameters, lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay, fused=True
        )
    kind = torch.optim.Adam if params.kind == "adam" else torch.optim.AdamW
    return kind(parameters, lr=params.lr, weight_decay=params.weight_decay, fused=True)


def _copy(model: EmotionModel) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _culprit(model: EmotionModel, prediction: Tensor, loss: float, epoch: int, step: int) -> str:
    """Names the first tensor that is not finite, looking at the weights, then at the prediction."""
    where = f"epoch {epoch + 1}, step {step + 1}: the loss is not finite"
    if math.isfinite(loss):
        where = f"epoch {epoch + 1}, step {step + 1}: the loss is {loss:.3g}, beyond {EXPLODED:.0e}"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{where}; weight {name} {tuple(parameter.shape)} is the first that is not"
    if not torch.isfinite(prediction).all():
        return f"{where}; all weights are finite, the prediction {tuple(prediction.shape)} is not"
    if math.isfinite(loss):
        size = float(prediction.detach().abs().max())
        return f"{where}; the prediction {tuple(prediction.shape)} reaches {size:.3g}, where labels lie on [-1, 1]"
    return f"{where}; weights and prediction are finite, the labels or the loss itself are not"
