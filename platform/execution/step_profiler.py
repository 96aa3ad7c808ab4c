"""A few timed steps of a cell, and how often the whole cell takes each of them: its length before it ran.

Legend: B batch, L indices of a window, N real indices (frames) that pass a backbone, F shape of one.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, thread_time

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.batches.source import Batch, WindowSource
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.evaluation_config import strengths_of
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.evaluation.evaluate import evaluation_of
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.emotion_model import EmotionModel, build_model, modalities_of
from crossfold.platform.modeling.frame_encoder import FrameEncoder, release
from crossfold.platform.modeling.inputs import input_widths
from crossfold.platform.training.cell_data import CellData, open_data
from crossfold.platform.training.losses import loss_of
from crossfold.platform.training.train import make_optimizer

REPEATS = 3
"""Timed calls of a step; the median counts."""
LONG_ENOUGH = 0.4
"""Seconds from which on one call is enough: a step is not repeated, and no more frames are timed."""
OVERHEAD = 0.25
"""Seconds of any cell that are in none of its steps: scores, the count of operations, files; measured on one core."""


@dataclass(frozen=True)
class PassSize:
    """One pass over a split, or several."""

    windows: int
    frames: int
    """Real indices of all windows, overlaps counted again: what passes the backbones."""

    @classmethod
    def of(cls, source: WindowSource, recipe: Recipe) -> "PassSize":
        """Of the windows that a recipe cuts."""
        real = source.windows.real
        return cls(len(source), int(real.reshape(len(real), -1, recipe.clip.held).any(axis=2).sum()))

    def __add__(self, other: "PassSize") -> "PassSize":
        return PassSize(self.windows + other.windows, self.frames + other.frames)

    def times(self, count: int) -> "PassSize":
        """Of `count` such passes."""
        return PassSize(count * self.windows, count * self.frames)


@dataclass(frozen=True)
class Work:
    """What a cell does if it uses all its epochs, as `run_cell` does it."""

    epochs: Mapping[int, int]
    """Groups of backbone layers that are released -> epochs that train so."""
    training: PassSize
    """Of one epoch."""
    predicted: PassSize
    """Of all passes without training: the selection split once per epoch; the reported one once, and once per entry of
    the stress suite that can change anything; the training split for post-processing that is fitted."""

    @classmethod
    def of(cls, data: CellData) -> "Work":
        """Of a cell with its data opened."""
        cell, recipe = data.cell, data.cell.recipe
        evaluation, used = evaluation_of(cell), modalities_of(cell)
        stress = strengths_of(evaluation.stress, data.store.modalities)
        damaged = [modality for _, modality, strength in stress if modality in used and strength != 0]
        training = PassSize.of(data.training.source, recipe)
        reported = PassSize.of(data.reported.source, recipe)
        # All entries are fused; a backbone sees what they damage, and once for all of them what they leave whole.
        again = sum(modality in recipe.backbones for modality in damaged)
        again += any(modality != other for modality in recipe.backbones for other in damaged)
        predicted = (
            PassSize.of(data.selection.source, recipe).times(recipe.epochs)
            + PassSize((1 + len(damaged)) * reported.windows, (1 + again) * reported.frames)
            + training.times(int(evaluation.post.fitted))
        )
        return cls(released_epochs(recipe), training, predicted)

    @property
    def trained(self) -> int:
        """Windows of all training steps."""
        return sum(self.epochs.values()) * self.training.windows

    def seconds(self, costs: "Costs") -> float:
        """How long all of it takes."""
        frames = sum(n * self.training.frames * costs.step_frame[groups] for groups, n in self.epochs.items())
        predicted = self.predicted.windows * costs.predict + self.predicted.frames * costs.predict_frame
        return OVERHEAD + costs.setup + self.trained * costs.step + frames + predicted


@dataclass(frozen=True)
class Costs:
    """Seconds on one core, measured."""

    setup: float
    """Of the data and the model."""
    step: float
    """A window of a training step, optimiser included, backbones excluded."""
    predict: float
    """A window that is only predicted, backbones excluded."""
    predict_frame: float = 0.0
    """A frame through all backbones without training."""
    step_frame: Mapping[int, float] = field(default_factory=lambda: Counter[int]())
    """A frame through all backbones in training, by released groups."""


def released_epochs(recipe: Recipe) -> dict[int, int]:
    """Groups of layers -> epochs that train with so many: stages end as scores decide; here all are equally long.

    A recipe of fewer epochs than stages has the first ones only.
    """
    stages = recipe.groups_to_thaw()
    if not stages:
        return {0: recipe.epochs}
    long = -(-recipe.epochs // stages)
    return dict(Counter(1 + epoch // long for epoch in range(recipe.epochs)))


class StepProfiler:
    """Times cells. What several of them share, their backbones, is timed once."""

    def __init__(self) -> None:
        self._encoders: dict[tuple[object, ...], float] = {}

    def seconds(self, cell: Cell, store_path: Path) -> float:
        """Predicted seconds of the whole cell on one core. Raises what the cell itself would raise."""
        threads = torch.get_num_threads()
        try:
            with arithmetic(cell):
                torch.set_num_threads(1)
                began = monotonic()
                data = open_data(cell, store_path, "cpu")
                model = data.new_model()
                costs = self._costs(data, model, setup=monotonic() - began)
        finally:
            torch.set_num_threads(threads)
        return Work.of(data).seconds(costs)

    def _costs(self, data: CellData, model: EmotionModel, setup: float) -> Costs:
        recipe, source = data.cell.recipe, data.training.source
        size = min(recipe.batch, len(source))
        if not model.frames:
            chosen = np.arange(size)
            step, predict = _of_a_step(data, model, lambda: source.batch(chosen))
            return Costs(setup, step / size, predict / size)
        # The fullest window has the most frames to time.
        window = int(source.windows.real.sum(axis=1).argmax())
        began = monotonic()
        one = source.batch(np.array([window]))
        gather = monotonic() - began
        # The rest of the model is timed on random features: a batch of raw frames need not fit into memory.
        bare = data.cell.model_copy(update={"recipe": recipe.model_copy(update={"backbones": {}})})
        widths = input_widths(recipe, data.store, modalities_of(data.cell))
        batch = _of_features(one, widths, size)
        step, predict = _of_a_step(data, build_model(bare, widths), lambda: batch)
        return Costs(
            setup,
            step / size + gather,
            predict / size + gather,
            self._frame(data, model, one, None),
            {groups: self._frame(data, model, one, groups) for groups in released_epochs(recipe)},
        )

    def _frame(self, data: CellData, model: EmotionModel, one: Batch, groups: int | None) -> float:
        """Seconds of a frame through all backbones, with `groups` released in training; None: without training."""
        recipe, training, total = data.cell.recipe, groups is not None, 0.0
        # What is frozen needs no gradient, which makes a training step cheaper.
        if groups is not None:
            release(model.frames, recipe, groups)
        for m, encoder in model.frames.items():
            what = (encoder.backbone.name, encoder.chunk, encoder.pretrained, training and encoder.groups, training)
            key = (*what, data.store.content_hash, recipe.precision, recipe.determinism)
            if key not in self._encoders:
                x_NF = one.x[m][0][one.real[0]]
                self._encoders[key] = _of_a_frame(encoder, x_NF, training, recipe.precision == "bf16")
            total += self._encoders[key]
        return total


def _of_features(one: Batch, widths: Mapping[str, int], size: int) -> Batch:
    """A batch of `size` windows like the given one, with features of the backbones' widths in place of raw frames."""
    real_BL = one.real.expand(size, -1)
    x = {m: torch.rand(*real_BL.shape, width) for m, width in widths.items()}
    return Batch(x=x, y=one.y.expand(size, -1, -1), valid=one.valid.expand(size, -1, -1), real=real_BL)


def _of_a_step(data: CellData, model: EmotionModel, gather: Callable[[], Batch]) -> tuple[float, float]:
    """Seconds of one training step and of one prediction of a batch, gathering included."""
    recipe = data.cell.recipe
    model.narrow = recipe.precision == "bf16"  # `auto` takes no longer than float32
    optimizer = make_optimizer(list(model.parameters()), recipe.optimizer)

    def step() -> None:
        batch = gather()
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(batch.x, batch.real), batch, recipe.loss).backward()  # type: ignore[no-untyped-call]
        if recipe.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()

    @torch.no_grad()
    def predict() -> None:
        batch = gather()
        model(batch.x, batch.real).float().numpy()

    model.train()
    trained = _timed(step)
    model.eval()
    return trained, _timed(predict)


def _of_a_frame(encoder: FrameEncoder, x_NF: Tensor, training: bool, narrow: bool) -> float:
    """Seconds of one frame through a backbone, measured on as few frames as suffice."""
    encoder.train(training)
    encoder.train_released(training)
    seeds = [0] if training else None

    def through(frames: int) -> float:
        began = thread_time()
        mask_1L = torch.ones(1, frames, dtype=torch.bool)
        with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            y_1LW = encoder(x_NF[:frames].unsqueeze(0), mask_1L, seeds)
            if y_1LW.requires_grad:
                y_1LW.float().square().mean().backward()
        return thread_time() - began

    most = min(len(x_NF), encoder.chunk)
    # Batch normalisation that learns refuses a single frame; the first call also finds its kernels.
    frames = min(2, most)
    through(frames)
    took = through(frames)
    while took < LONG_ENOUGH and frames < most:
        frames = min(2 * frames, most)
        took = through(frames)
    encoder.zero_grad(set_to_none=True)
    return took / frames


def _timed(act: Callable[[], None]) -> float:
    """Processor seconds of a call that is not the first, which also finds memory and kernels.

    One thread works, so they are those of the clock on a core of its own, whatever else this machine does now.
    """
    act()
    taken: list[float] = []
    while len(taken) < REPEATS and not (taken and taken[-1] > LONG_ENOUGH):
        began = thread_time()
        act()
        taken.append(thread_time() - began)
    return median(taken)
