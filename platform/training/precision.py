"""Which precision a cell trains in: what its recipe says, or the quicker one on this machine (`precision: auto`)."""

import copy
import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from crossfold.datasets.batches.source import Batch, WindowSource
from crossfold.platform.core.cell import Cell
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.training.losses import loss_of

TURNS = 5
"""Timed steps in each precision; the median counts."""
MARGIN = 1.1
"""How many times quicker bfloat16 must be to be taken: less is within the noise, and float32 is more exact."""


@dataclass(frozen=True)
class Precision:
    """What a cell trains in."""

    kind: Literal["float32", "bf16"]
    ratio: float | None = None
    """Time of a step in float32 over that in bfloat16, where it was measured."""

    def facts(self) -> dict[str, Any]:
        """For the record of a cell."""
        return {"precision": self.kind} | ({"precision_ratio": self.ratio} if self.ratio is not None else {})


def precision_of(cell: Cell, model: EmotionModel, source: WindowSource) -> Precision:
    """The precision of the recipe; with `auto`, that of the quicker steps on a batch of the cell.

    Neither the model nor the generators that dropout draws from are changed.
    """
    asked = cell.recipe.precision
    if asked != "auto":
        return Precision(asked)
    batch = source.batch(np.arange(min(cell.recipe.batch, len(source))))
    trial = copy.deepcopy(model).train()
    device = batch.real.device
    took: dict[bool, list[float]] = {False: [], True: []}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for turn in range(TURNS + 1):
            for narrow, times in took.items():
                trial.narrow = narrow
                seconds = _seconds_of_step(cell, trial, batch)
                if turn:  # the first step finds memory and kernels
                    times.append(seconds)
    return chosen(median(took[False]) / median(took[True]))


def chosen(ratio: float) -> Precision:
    """The precision for a time of float32 that is `ratio` times that of bfloat16."""
    return Precision("bf16" if ratio >= MARGIN else "float32", round(ratio, 3))


def _seconds_of_step(cell: Cell, model: EmotionModel, batch: Batch) -> float:
    """Of the forward and the backward pass; the optimiser works in float32 in any case."""
    model.zero_grad(set_to_none=True)
    began = _clock(batch.real.device)
    seeds = [0] * len(batch.real) if model.frames else None
    loss_of(model(batch.x, batch.real, seeds=seeds), batch, cell.recipe.loss).backward()  # type: ignore[no-untyped-call]
    return _clock(batch.real.device) - began


def _clock(device: torch.device) -> float:
    """Processor time of a single thread, which other processes do not lengthen; else the time of day, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.thread_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()
