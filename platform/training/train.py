"""One training loop for every system: epochs, schedule, best state, checkpoints."""

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.batches.modality_dropout import dropped_windows, without
from crossfold.datasets.batches.source import Batch, WindowSource
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled, Diverged
from crossfold.platform.core.outcome import EpochReport, Reporter
from crossfold.platform.core.recipe import Optimizer
from crossfold.platform.core.seeds import batch_seed, crop_seed, dropout_seed
from crossfold.platform.modeling.emotion_model import EmotionModel, modalities_of
from crossfold.platform.modeling.frame_encoder import release
from crossfold.platform.training import checkpoint
from crossfold.platform.training.data_parallel import SINGLE_PROCESS, ProcessGroup
from crossfold.platform.training.graphed_step import GraphedStep
from crossfold.platform.training.losses import BatchStatistics, loss_of
from crossfold.platform.training.lr_schedule import Schedule
from crossfold.platform.training.precision import Precision, precision_of

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 2.0
"""A finished epoch is saved unless a checkpoint is younger than this; short cells save none."""
CHECKPOINT_PAUSE = 20.0
"""Nor is it saved before so many times what the last one took have gone by: weights of gigabytes take their time."""

EXPLODED = 1e6
"""Labels lie on [-1, 1]: a loss beyond this is no longer one of predictions."""

State = dict[str, Tensor]


@dataclass
class Progress:
    """Where a training run stands: everything a checkpoint holds but the tensors."""

    epoch: int = 0
    """Epochs finished."""
    best_ccc: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def add(self, report: EpochReport) -> None:
        """Counts the epoch that was just finished."""
        self.epoch = report.epoch
        self.seconds += report.seconds
        self.curve.append(
            {"epoch": report.epoch - 1, "learning_rate": report.learning_rate, "train_loss": report.train_loss}
            | {f"ccc_{target}": value for target, value in report.ccc.items()}
        )


@dataclass(frozen=True)
class Trained:
    """The best state of a run, and how it came about."""

    best_state: State
    progress: Progress
    end: str
    """Why it ended: `epochs`, `patience`, or `exhausted`, the schedule's last stage done."""
    precision: Precision
    """What it trained in."""


def train(
    cell: Cell,
    model: EmotionModel,
    source: WindowSource,
    validate: Callable[[EmotionModel], dict[str, float]],
    reporter: Reporter,
    checkpoint: Path,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Trained:
    """Trains until the schedule of the recipe ends, resuming from `checkpoint` if it is there.

    validate: CCC per target on the split that picks the epoch. Whatever it trained in, the model then predicts in
    float32, so that what is reported depends on no machine. Raises `Diverged`, or what the reporter raises.
    """
    run = _Run(cell, model, source, group)
    run.restore(checkpoint)
    progress = run.progress
    written, pause = time.monotonic(), CHECKPOINT_SECONDS
    while (end := run.schedule.end) is None:
        started = time.monotonic()
        if not group.first:
            # The first one's generator is in the checkpoint; the others' start again each epoch.
            torch.manual_seed(dropout_seed(cell, progress.epoch, group.rank))
        train_loss = run.train_epoch()
        scores = group.broadcast(lambda: validate(model))
        mean = sum(scores.values()) / len(scores)
        if not math.isfinite(mean):
            raise Diverged(f"epoch {progress.epoch + 1}: the selection CCC is {mean}; the predictions are not finite")
        rate = run.optimizer.param_groups[0]["lr"]
        run.finish_epoch(mean)
        report = EpochReport(
            epoch=progress.epoch + 1,
            epochs=cell.recipe.epochs,
            learning_rate=rate,
            train_loss=train_loss,
            ccc=scores,
            best_ccc=progress.best_ccc,
            seconds=time.monotonic() - started,
        )
        progress.add(report)
        # After the last epoch only the scores are missing, which take less than the epochs that could be lost.
        if group.first and run.schedule.end is None and time.monotonic() - written > pause:
            began = time.monotonic()
            run.save(checkpoint)
            written = time.monotonic()
            pause = max(CHECKPOINT_SECONDS, CHECKPOINT_PAUSE * (written - began))
        try:
            group.broadcast(partial(reporter.epoch, cell.cell_id, report))
        except Cancelled:
            if group.first:
                run.save(checkpoint)
            raise
    model.narrow = False
    return Trained(run.best_state, progress, end, run.precision)


class _Run:
    """What changes from epoch to epoch, and its checkpoint."""

    def __init__(self, cell: Cell, model: EmotionModel, source: WindowSource, group: ProcessGroup) -> None:
        self.cell = cell
        self.model = model
        self.source = source
        self.group = group
        self.parameters = list(model.parameters())
        self.schedule = Schedule(cell.recipe)
        self.optimizer = make_optimizer(self.parameters, cell.recipe.optimizer)
        self.progress = Progress()
        release(model.frames, cell.recipe, self.schedule.groups)
        self.lost: dict[str, np.ndarray] = {}
        # Until an epoch has a score, these are the best weights.
        self.best_state = _copy(model)
        cell.recipe.check_device(self.device.type)
        graphed = GraphedStep(self._pass, self.parameters, cell.recipe.batch)
        self.step_of = graphed if cell.recipe.cuda_graph else self._pass
        self.precision = group.broadcast(partial(precision_of, cell, model, source))
        model.narrow = self.precision.kind == "bf16"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.parameters[0].device

    def train_epoch(self) -> float:
        """One pass over the windows; returns the mean loss per window."""
        batch = self.cell.recipe.batch
        # From its own seed, so that a resumed run has the order of one that was never stopped.
        order = np.random.default_rng(batch_seed(self.cell, self.progress.epoch)).permutation(len(self.source))
        self.lost = dropped_windows(self.cell, modalities_of(self.cell), len(self.source), self.progress.epoch)
        starts = range(0, len(order), batch)
        self.model.train()
        for encoder in self.model.frames.values():
            encoder.train_released(True)
        total, waiting = 0.0, _Waiting()
        for step, start in enumerate(starts):
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = self.schedule.rate(step, len(starts))
            chosen = order[start : start + batch]
            self.optimizer.zero_grad(set_to_none=True)
            loss, prediction_BLT = self._backward(self.group.shard(chosen))
            self.group.sum_gradients(self.parameters, len(chosen))
            norm = self._clip_gradients()
            if self.device.type == "cpu":
                found = float(loss)
                self._check_loss(found, step, prediction_BLT)
                self._check_gradients(norm is None or bool(torch.isfinite(norm)), step)
                total += found * len(chosen)
            else:
                waiting.add(loss, norm)
            self.optimizer.step()
        # A GPU is not waited for before the epoch ends: it computes while the host prepares the next steps.
        for step, (found, norm_found) in enumerate(waiting.read()):
            self._check_loss(found, step, None)
            self._check_gradients(math.isfinite(norm_found), step)
            total += found * len(order[step * batch : (step + 1) * batch])
        return total / max(len(order), 1)

    def _check_loss(self, loss: float, step: int, prediction_BLT: Tensor | None) -> None:
        if not math.isfinite(loss) or loss > EXPLODED:
            where = f"epoch {self.progress.epoch + 1}, step {step + 1}"
            raise Diverged(_cause(self.model, prediction_BLT, loss, where))

    def _backward(self, mine: np.ndarray) -> tuple[Tensor, Tensor]:
        """Gradients of this process's windows, part by part; the loss of the whole batch, and the last prediction."""
        recipe, epoch, group = self.cell.recipe, self.progress.epoch, self.group
        parts = [part for part in np.array_split(mine, recipe.accumulate) if len(part)]
        lost = self.lost
        batches = [without(self.source.batch(part), {m: of_all[part] for m, of_all in lost.items()}) for part in parts]
        whole = None
        if recipe.accumulate > 1 or group.world > 1:
            own = BatchStatistics.of(batches, len(self.cell.targets), self.device)
            whole = BatchStatistics(group.total(own.windows), group.total(own.frames))
        total, prediction_BLT = torch.zeros((), dtype=torch.float64), torch.zeros(())
        losses = []
        for part, batch in zip(parts, batches, strict=True):
            if whole is None and not self.model.frames:
                loss, prediction_BLT = self.step_of(batch)
            else:
                seeds = [crop_seed(self.cell, epoch, int(window)) for window in part] if self.model.frames else None
                loss, prediction_BLT = self._pass(batch, whole, seeds)
            losses.append(loss)
        if losses:
            total = torch.stack(losses).sum()
        if group.world > 1:
            total = group.total(total.double().to(self.device))
        return total, prediction_BLT

    def _pass(
        self, batch: Batch, whole: BatchStatistics | None = None, seeds: list[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch, or of a part of the whole one, and the prediction; gradients add to the weights'."""
        prediction_BLT = self.model(batch.x, batch.real, seeds=seeds)
        loss = loss_of(prediction_BLT, batch, self.cell.recipe.loss, whole)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), prediction_BLT.detach()

    def _clip_gradients(self) -> Tensor | None:
        """Clips the norm where the recipe says so, and returns it, or None.

        In float32 without clipping the norm is not computed for this alone: the next loss shows it.
        """
        largest = self.cell.recipe.optimizer.clip_norm
        if largest is not None:
            return torch.nn.utils.clip_grad_norm_(self.parameters, largest)
        if self.model.narrow or self.model.frames:
            return torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return None

    def _check_gradients(self, finite: bool, step: int) -> None:
        """Names a gradient that is not finite; on a CPU, before it reaches the weights."""
        if finite:
            return
        where = f"epoch {self.progress.epoch + 1}, step {step + 1}: the gradient is not finite"
        if self.device.type != "cpu":
            raise Diverged(f"{where}, the loss still was")
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise Diverged(f"{where}; that of {name} {tuple(parameter.shape)} is the first, the loss still was")

    def finish_epoch(self, score: float) -> None:
        """Keeps the best state, and moves the schedule on by the selection CCC of the epoch."""
        recipe = self.cell.recipe
        if score > self.progress.best_ccc:
            self.progress.best_ccc, self.progress.best_epoch = score, self.progress.epoch
            self.best_state = _copy(self.model)
        if self.schedule.after_epoch(score):
            release(self.model.frames, recipe, self.schedule.groups)
            if recipe.thaw.reset_optimizer:
                self.model.load_state_dict(self.best_state)
                self.optimizer = make_optimizer(self.parameters, recipe.optimizer)
        if recipe.reload_best:
            self.model.load_state_dict(self.best_state)

    def save(self, path: Path) -> None:
        """Writes the checkpoint."""
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        checkpoint.write(
            path,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "best_state": self.best_state,
                "progress": vars(self.progress),
                # Of `auto`: another measurement might find the other one, and a run has one precision.
                "precision": vars(self.precision),
                # What dropout draws from: the CPU's generator, and that of the device.
                "generators": [torch.get_rng_state(), *cuda],
            },
        )

    def restore(self, path: Path) -> None:
        """Resumes from a checkpoint; one that cannot be read is removed, and the run starts over."""
        if not path.is_file():
            return
        parts: list[Any] = [self.model, self.optimizer, self.schedule]
        before = copy.deepcopy([part.state_dict() for part in parts])
        try:
            self._load(checkpoint.read(path))
        except Exception as error:  # torch raises many kinds for a damaged file; each means the same here
            logger.warning("checkpoint %s cannot be used (%s); starting over", path.name, error)
            path.unlink(missing_ok=True)
            for part, state in zip(parts, before, strict=True):
                part.load_state_dict(state)
        release(self.model.frames, self.cell.recipe, self.schedule.groups)

    def _load(self, saved: dict[str, Any]) -> None:
        progress, best_state, generators = Progress(**saved["progress"]), saved["best_state"], saved["generators"]
        if {name: t.shape for name, t in best_state.items()} != {name: t.shape for name, t in self.best_state.items()}:
            raise ValueError("its weights have other names or shapes")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        vars(self.progress).update(vars(progress))
        if "precision" in saved:  # in checkpoints since `precision: auto`
            self.precision = Precision(**saved["precision"])
            self.model.narrow = self.precision.kind == "bf16"
        self.best_state = {name: tensor.to(self.device) for name, tensor in best_state.items()}
        torch.set_rng_state(generators[0])
        if self.device.type == "cuda" and len(generators) > 1:
            torch.cuda.set_rng_state(generators[1], self.device)


class _Waiting:
    """Losses and norms of gradients of an epoch's steps, on the device until the epoch ends."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def add(self, loss: Tensor, norm: Tensor | None) -> None:
        """Of one step; no norm was asked for where it is None."""
        loss = loss.double()
        self.values += [loss, torch.zeros_like(loss) if norm is None else norm.double()]

    def read(self) -> list[tuple[float, float]]:
        """Waits for the device, once."""
        found = to_host(torch.stack(self.values)) if self.values else []
        return list(zip(found[::2], found[1::2], strict=True))


def to_host(values_N: Tensor) -> list[float]:
    """The one place of an epoch where the host waits for a device."""
    values: list[float] = values_N.tolist()
    return values


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


def _cause(model: EmotionModel, prediction: Tensor | None, loss: float, where: str) -> str:
    """Names the first tensor that is not finite: one of the weights, else the prediction where it is known still."""
    finite = math.isfinite(loss)
    where += f": the loss is {loss:.3g}, beyond {EXPLODED:.0e}" if finite else ": the loss is not finite"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{where}; weight {name} {tuple(parameter.shape)} is the first that is not"
    if prediction is None:
        return f"{where}; all weights are finite"
    shape = tuple(prediction.shape)
    if not torch.isfinite(prediction).all():
        return f"{where}; all weights are finite, the prediction {shape} is not"
    if finite:
        size = float(prediction.detach().abs().max())
        return f"{where}; the prediction {shape} reaches {size:.3g}, where labels lie on [-1, 1]"
    return f"{where}; weights and prediction are finite, the labels or the loss itself are not"
