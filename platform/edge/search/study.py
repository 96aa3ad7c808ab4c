"""The Optuna study of a search: its memory over restarts. Only the driver touches it."""

import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.layout import sqlite_uri
from crossfold.platform.edge.search.samplers import sampler_of
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.trials import corners, fixed_params, grid, grid_values, is_drawn

if TYPE_CHECKING:
    from crossfold.sweeps.sweep_files import Budget, Range, Search


CellsOf = Callable[[Mapping[str, Any]], Sequence[Cell]]
"""The inner-fold cells of one configuration."""

STATES = ("complete", "pruned", "failed")

REPEATED = "repeated"
"""An attribute of a trial that a dead driver left running, and that another trial repeats."""

MOST_FAILURES = 20
"""A search ends when so many trials in a row have failed."""
DIRECTIONS: Mapping[str, Literal["maximize", "minimize"]] = {
    "ccc": "maximize",
    "parameters": "minimize",
    "flops": "minimize",
    "seconds": "minimize",
}


class Study:
    """The trials of one search on one store, kept in `<workspace>/optuna.db`.

    Its name holds a hash of the space and of all that a cell's identity holds, so trials of another recipe, protocol
    or revision are never mixed in.
    """

    def __init__(self, search: "Search", cells_of: CellsOf, workspace: Workspace) -> None:
        """Opens the study. Trials that a dead driver left running are marked failed, and queued to run again first.

        Their configurations are repeated because their finished cells need not be.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.search, self.space = search, search.space
        self._cells_of, self._fixed = cells_of, fixed_params(search)
        cells = cells_of(next(corners(search)))
        self.cells_per_trial = len(cells)
        self.name = f"{search.name}-{_fingerprint(search, cells)}"
        workspace.root.mkdir(parents=True, exist_ok=True)
        # With Optuna's memory of ended trials, which is kept once for all who read the study.
        self.storage = optuna.storages.get_storage(sqlite_uri(workspace.paths.optuna))
        self._study = optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            directions=[DIRECTIONS[name] for name in search.objective],
            load_if_exists=True,
        )
        self.grid_size = len(grid(search)) if search.sampler == "grid" else 0
        """How many configurations the grid has; 0 for other samplers."""
        self._failed_in_a_row = 0
        self._began, self._seconds_before = time.monotonic(), float(self._study.user_attrs.get("seconds", 0.0))
        if not self._study.get_trials(deepcopy=False):
            for configuration in search.start:
                self._study.enqueue_trial(dict(configuration), skip_if_exists=True)
        self._recover()

    @property
    def sampler(self) -> Any:
        """The sampler of the next trial."""
        known = self._study.get_trials(deepcopy=False)
        # One that is repeated counts once, so that an interruption changes no configuration that follows.
        return sampler_of(self.search, sum(bool(trial.params) and REPEATED not in trial.user_attrs for trial in known))

    @property
    def judged(self) -> int:
        """Trials with a verdict: those that ran to their end, and those that were stopped as hopeless."""
        return len(self._judged())

    @property
    def spent(self) -> dict[str, float]:
        """What the search has cost by now, in the units of its budget."""
        epochs = sum(trial.user_attrs.get("cell_epochs", 0) for trial in self._study.get_trials(deepcopy=False))
        hours = float(self._study.user_attrs.get("seconds", 0.0)) / 3600
        return {"trials": self.judged, "hours": hours, "cell_epochs": epochs}

    def is_over(self, limits: "Budget") -> bool:
        """Whether one of the limits is reached, or so many trials have failed that all will."""
        spent = self.spent
        if self._failed_in_a_row >= MOST_FAILURES or self._grid_is_done():
            return True
        return any(limit is not None and spent[name] >= limit for name, limit in limits.model_dump().items())

    @property
    def best(self) -> tuple[dict[str, Any], float] | None:
        """Parameters and CCC of the best trial that ran to its end; a stopped or failed one is never best."""
        found = self.best_trials(1)
        return (dict(found[0].params), float(found[0].values[0])) if found else None

    def complete(self) -> list[Any]:
        """The trials that ran to their end."""
        return [trial for trial in self._judged() if trial.state.name == "COMPLETE"]

    def best_trials(self, count: int) -> list[Any]:
        """The best trials that ran to their end, by CCC, each configuration once."""
        distinct: dict[str, Any] = {}
        for trial in sorted(self.complete(), key=lambda trial: (-trial.values[0], trial.number)):
            distinct.setdefault(canonical_json(trial.params), trial)
        return list(distinct.values())[:count]

    @property
    def front(self) -> list[int]:
        """Numbers of the trials that no other one beats in every objective."""
        return sorted(trial.number for trial in self._study.best_trials)

    def note_ended(self, trial: Any, state: str, cell_epochs: int) -> None:
        """Keeps what a trial has cost; `state` is one of `STATES`."""
        trial.set_user_attr("cell_epochs", cell_epochs)
        self._failed_in_a_row = self._failed_in_a_row + 1 if state == "failed" else 0
        self._study.set_user_attr("seconds", self._seconds_before + time.monotonic() - self._began)

    @property
    def cells(self) -> list[str]:
        """Identities of all cells that trials asked for."""
        # Two trials of the same configuration ask for the same cells.
        asked = (cell_id for trial in self._study.trials for cell_id in trial.user_attrs.get("cells", ()))
        return list(dict.fromkeys(asked))

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draws a configuration; returns the cells that judge it, as constants of the trial."""
        chosen: dict[str, Any] = {}
        for key, dimension in self.space.items():
            if is_drawn(dimension, chosen, self._fixed):
                chosen[key] = _draw(trial, key, dimension, grid=self.search.sampler == "grid")
        cells = self._cells_of(chosen)
        assert all(cell.inner is not None for cell in cells), "a search never sees the reported split"
        trial.set_user_attr("cells", [cell.cell_id for cell in cells])
        return {"cells": [cell.model_dump_json() for cell in cells]}

    def table(self) -> pd.DataFrame:
        """One row a trial: number, state, value, epochs, seconds, parameters."""
        rows, costs = [], [column_of(name) for name in self.search.objective[1:]]
        unknown = [float("nan")] * len(costs)
        for trial in self._study.trials:
            if not trial.params:
                continue
            state = state_name(trial.state)
            seen = trial.intermediate_values
            last = seen[max(seen)] if seen else float("nan")
            rows.append(
                {
                    "number": trial.number,
                    "state": state,
                    "value": trial.values[0] if state == "complete" else last,
                    **dict(zip(costs, trial.values[1:] if state == "complete" else unknown, strict=True)),
                    "epochs": max(seen, default=0),
                    "seconds": trial.duration.total_seconds() if trial.duration else float("nan"),
                    **trial.params,
                }
            )
        return pd.DataFrame(rows, columns=["number", "state", "value", *costs, "epochs", "seconds", *self.space])

    def _grid_is_done(self) -> bool:
        """Whether each configuration of a grid has run; one whose cells failed would fail again."""
        if not self.grid_size:
            return False
        known = self._study.get_trials(deepcopy=False)
        ended = {canonical_json(trial.params) for trial in known if trial.state.is_finished() and trial.params}
        return len(ended) >= self.grid_size and all(trial.state.is_finished() for trial in known)

    def _judged(self) -> list[Any]:
        known = self._study.get_trials(deepcopy=False)
        return [trial for trial in known if trial.state.name in ("COMPLETE", "PRUNED")]

    def _recover(self) -> None:
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            # Set once every parameter was drawn.
            drawn = "cells" in trial.user_attrs
            if drawn:
                self.storage.set_trial_user_attr(trial._trial_id, REPEATED, True)
            self._study.tell(trial.number, state=TrialState.FAIL)
            if drawn:
                self._study.enqueue_trial(trial.params)
                logging.getLogger(__name__).info("trial %s of %s is repeated", trial.number, self.name)


def state_name(state: Any) -> str:
    """One of `STATES`, for a state of Optuna's; a trial that was left open counts as failed."""
    return {"COMPLETE": "complete", "PRUNED": "pruned"}.get(state.name, "failed")


def column_of(objective: str) -> str:
    """The column of the table of trials with a further objective; `seconds` is that of the whole trial."""
    return f"objective_{objective}"


def describe_space(space: "Mapping[str, Range]") -> dict[str, Any]:
    """The space as it is written in the sweep file."""
    return {key: dimension.model_dump(mode="json", exclude_none=True) for key, dimension in space.items()}


def _fingerprint(search: "Search", cells: Sequence[Cell]) -> str:
    known: dict[str, Any] = {"space": describe_space(search.space), "cells": [cell.identity() for cell in cells]}
    # Those that say nothing new are left out, so that studies of earlier versions go on.
    others = {
        "sampler": (search.sampler, "tpe"),
        "scheduler": (search.stops_by, "asha"),
        "objective": (list(search.objective), ["ccc"]),
        "repeat": (search.repeat, 0),
        "strict": (search.strict, False),
    }
    known |= {name: value for name, (value, usual) in others.items() if value != usual}
    return hashlib.sha256(canonical_json(known).encode()).hexdigest()[:12]


def _draw(trial: Any, key: str, dimension: "Range", *, grid: bool) -> Any:
    if grid:
        return trial.suggest_categorical(key, list(grid_values(dimension)))
    if dimension.int is not None:
        return trial.suggest_int(key, *dimension.int)
    if dimension.log is not None:
        return trial.suggest_float(key, *dimension.log, log=True)
    if dimension.linear is not None:
        return trial.suggest_float(key, *dimension.linear)
    return trial.suggest_categorical(key, list(dimension.choice or ()))
