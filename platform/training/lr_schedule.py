"""The learning rate, the release of backbone layers, and the end of training, as one state machine without tensors.

Training steps it with the validation CCC of each epoch; `crossfold explain --recipe` steps it with an assumed one.
Torch's own plateau scheduler ignores reductions below 1e-8, which is where the recipes of 001 and 002 go.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from crossfold.platform.core.recipe import Optimizer, Recipe

End = Literal["epochs", "patience", "exhausted"]
"""Why training ends: out of epochs, of patience, or the last group's rate fell below its minimum (E5)."""


@dataclass
class _State:
    """All that changes: plain numbers, written into every checkpoint."""

    epoch: int = 0
    stage: int = 0
    stage_start: int = 0
    rate: float = 0.0
    bad_epochs: int = 0
    best: float = -math.inf
    waited: int = 0
    exhausted: bool = False


class Schedule:
    """Where a run of a recipe stands. Epochs and stages count from 0."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._stages = recipe.groups_to_thaw()
        self._state = _State(rate=recipe.optimizer.lr)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self._state.epoch

    @property
    def stage(self) -> int:
        """The current stage; groups 0 to `stage` of the backbones train, where the recipe fine-tunes any."""
        return self._state.stage

    @property
    def groups(self) -> int:
        """Groups of backbone layers that are released now."""
        return self._state.stage + 1 if self._stages else 0

    @property
    def end(self) -> End | None:
        """Why no further epoch follows, or None."""
        if self._state.exhausted:
            return "exhausted"
        if self._state.epoch >= self._recipe.epochs:
            return "epochs"
        return "patience" if self._state.waited >= self._recipe.patience else None

    def rate(self, step: int, steps: int) -> float:
        """The rate of one step of the current epoch, of `steps` in all."""
        optimizer = self._recipe.optimizer
        if (forced := _forced(optimizer, self._state.epoch)) is not None:
            return forced
        inside = self._state.epoch - self._state.stage_start
        if inside < optimizer.warmup_epochs:
            return warmed_up(optimizer, inside, step, steps)
        return self._state.rate

    def after_epoch(self, score: float) -> bool:
        """Takes the selection CCC of the epoch that ended; True where a new stage begins.

        Scores of warm-up epochs count as the best to beat, and are not held against the rate (release of 002).
        """
        state, optimizer = self._state, self._recipe.optimizer
        warming = state.epoch - state.stage_start < optimizer.warmup_epochs
        state.epoch += 1
        if score > state.best:
            state.best, state.bad_epochs, state.waited = score, 0, 0
            return False
        state.waited += 1
        if not warming:
            state.bad_epochs += 1
        if state.bad_epochs <= optimizer.plateau_patience:
            return False
        # As torch's plateau scheduler: one reduction, then the count starts again.
        state.bad_epochs = 0
        return self._lower()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict`. Raises `TypeError` for that of another version."""
        self._state = _State(**state)

    def _lower(self) -> bool:
        state, optimizer = self._state, self._recipe.optimizer
        lowered = state.rate * optimizer.plateau_factor
        # Rounding must not decide whether four reductions of 1e-5 reach 1e-8.
        below = lowered < optimizer.min_lr * (1 - 1e-9)
        if not below or not self._stages:
            state.rate = max(lowered, min(optimizer.min_lr, state.rate))
            return False
        if state.stage + 1 >= self._stages:
            state.exhausted = True
            return False
        state.stage += 1
        state.stage_start = state.epoch
        state.rate = optimizer.lr
        if self._recipe.thaw.reset_patience:
            state.waited = 0
        return True


def warmed_up(optimizer: Optimizer, epoch: int, step: int, steps: int) -> float:
    """The rate in a warm-up epoch (E4)."""
    if optimizer.warmup == "printed":
        return optimizer.lr * (step + 1) / steps
    return optimizer.lr * step / steps * (epoch + 1) / optimizer.warmup_epochs**2


def _forced(optimizer: Optimizer, epoch: int) -> float | None:
    """G2(e): from epoch `after` + 1 on, the rate is lr x factor^k, whatever else was configured."""
    forced = optimizer.forced
    if forced is None or epoch <= forced.after:
        return None
    return forced.lr * forced.factor ** ((epoch - forced.after) // forced.every)


@dataclass(frozen=True)
class Planned:
    """One epoch as the schedule would run it."""

    epoch: int
    stage: int
    groups: int
    first_rate: float
    last_rate: float
    event: str = ""


@dataclass
class Simulation:
    """A whole run under assumed validation scores."""

    epochs: list[Planned] = field(default_factory=list)
    end: str = ""


def simulate(recipe: Recipe, steps: int, scores: Sequence[float] | Iterator[float]) -> Simulation:
    """Runs the schedule alone: `scores` are the selection CCC epoch by epoch, at least as many as the run needs."""
    schedule, found, given = Schedule(recipe), Simulation(), iter(scores)
    while (end := schedule.end) is None:
        epoch, stage, groups = schedule.epoch, schedule.stage, schedule.groups
        first, last = schedule.rate(0, steps), schedule.rate(steps - 1, steps)
        before = schedule.state_dict()["rate"]
        started = schedule.after_epoch(next(given))
        event = ""
        if started:
            event = f"stage {schedule.stage + 1} begins"
        elif schedule.end == "exhausted":
            event = "rate below its minimum, no group left"
        elif (after := schedule.state_dict()["rate"]) < before:
            event = f"rate falls to {after:.3g}"
        found.epochs.append(Planned(epoch, stage, groups, first, last, event))
    found.end = end
    return found
