"""The Optuna study of a search: its memory over restarts. Only the driver touches it."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.layout import sqlite_uri
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.sweeps.sweep_files import Range, Search


CellsOf = Callable[[Mapping[str, Any]], Sequence[Cell]]
"""The inner-fold cells of one configuration."""

STATES = ("complete", "pruned", "failed")


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
        self.space = search.space
        self._cells_of = cells_of
        corner = {key: _bounds(dimension)[0] for key, dimension in search.space.items()}
        cells = cells_of(corner)
        self.cells_per_trial = len(cells)
        self.name = f"{search.name}-{_fingerprint(search, cells)}"
        workspace.root.mkdir(parents=True, exist_ok=True)
        self.storage = optuna.storages.RDBStorage(sqlite_uri(workspace.paths.optuna))
        self._study = optuna.create_study(
            storage=self.storage, study_name=self.name, direction="maximize", load_if_exists=True
        )
        self._recover()
        self.sampler = optuna.samplers.TPESampler(
            # The sampler begins anew with each launch; the same seed would repeat the first configurations.
            seed=search.sampler_seed + len(self._study.trials),
            multivariate=True,
            constant_liar=True,
        )

    @property
    def judged(self) -> int:
        """Trials with a verdict: those that ran to their end, and those that were stopped as hopeless."""
        return len(self._judged())

    @property
    def best(self) -> tuple[dict[str, Any], float] | None:
        """Parameters and value of the best trial that ran to its end; a stopped or failed one is never best."""
        complete = [trial for trial in self._judged() if trial.state.name == "COMPLETE"]
        if not complete:
            return None
        found = max(complete, key=lambda trial: (trial.value, -trial.number))
        return dict(found.params), float(found.value)

    @property
    def cells(self) -> list[str]:
        """Identities of all cells that trials asked for."""
        # Two trials of the same configuration ask for the same cells.
        asked = (cell_id for trial in self._study.trials for cell_id in trial.user_attrs.get("cells", ()))
        return list(dict.fromkeys(asked))

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draws a configuration; returns the cells that judge it, as constants of the trial."""
        chosen = {key: _draw(trial, key, dimension) for key, dimension in self.space.items()}
        cells = self._cells_of(chosen)
        assert all(cell.inner is not None for cell in cells), "a search never sees the reported split"
        trial.set_user_attr("cells", [cell.cell_id for cell in cells])
        return {"cells": [cell.model_dump_json() for cell in cells]}

    def table(self) -> pd.DataFrame:
        """One row a trial: number, state, value, epochs, seconds, parameters."""
        rows = []
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
                    "value": trial.value if state == "complete" else last,
                    "epochs": max(seen, default=0),
                    "seconds": trial.duration.total_seconds() if trial.duration else float("nan"),
                    **trial.params,
                }
            )
        return pd.DataFrame(rows, columns=["number", "state", "value", "epochs", "seconds", *self.space])

    def _judged(self) -> list[Any]:
        return [trial for trial in self._study.trials if trial.state.name in ("COMPLETE", "PRUNED")]

    def _recover(self) -> None:
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
            if set(trial.params) == set(self.space):
                self._study.enqueue_trial(trial.params)
                logging.getLogger(__name__).info("trial %s of %s is repeated", trial.number, self.name)


def state_name(state: Any) -> str:
    """One of `STATES`, for a state of Optuna's; a trial that was left open counts as failed."""
    return {"COMPLETE": "complete", "PRUNED": "pruned"}.get(state.name, "failed")


def describe_space(space: "Mapping[str, Range]") -> dict[str, Any]:
    """The space as it is written in the sweep file."""
    return {key: dimension.model_dump(mode="json", exclude_none=True) for key, dimension in space.items()}


def _fingerprint(search: "Search", cells: Sequence[Cell]) -> str:
    known = {"space": describe_space(search.space), "cells": [cell.identity() for cell in cells]}
    return hashlib.sha256(canonical_json(known).encode()).hexdigest()[:12]


def _bounds(dimension: "Range") -> tuple[Any, ...]:
    return dimension.int or dimension.log or dimension.linear or dimension.choice or ()


def _draw(trial: Any, key: str, dimension: "Range") -> Any:
    if dimension.int is not None:
        return trial.suggest_int(key, *dimension.int)
    if dimension.log is not None:
        return trial.suggest_float(key, *dimension.log, log=True)
    if dimension.linear is not None:
        return trial.suggest_float(key, *dimension.linear)
    return trial.suggest_categorical(key, list(dimension.choice or ()))
