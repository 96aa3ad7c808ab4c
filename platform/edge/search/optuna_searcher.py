"""What Ray Tune asks for configurations: its Optuna searcher, which also knows trials that were stopped.

In a strict search it also decides which trials are stopped, by what the study holds.

Imports Ray and Optuna, so it is itself imported when the fleet runs.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.searcher import Searcher

from crossfold.platform.edge.search.samplers import METRIC, pruner_of
from crossfold.platform.edge.search.study import DIRECTIONS, Study, column_of

if TYPE_CHECKING:
    from crossfold.sweeps.sweep_files import Budget


class StudySearcher(OptunaSearch):
    """Ray's `OptunaSearch` on an existing study, which it loads by name, so a search is topped up.

    It differs in five things: the sampler is seeded for each trial by its number; a trial that the scheduler stopped is
    reported to Optuna as pruned (Ray reports it as complete, which could make it the best); a value is kept under its
    epoch, not under the number of the report; an interrupted trial stays open, to be repeated; and Tune keeps no copy
    of its state, for the study is the state.
    """

    def __init__(
        self,
        study: Study,
        limits: "Budget",
        stopping: threading.Event,
        ended: Callable[[str, float | None], None],
    ) -> None:
        """`limits`: no trial begins when one of them is reached, or once `stopping` is set.

        ended: called with state and value of each trial that ended.
        """
        objectives = study.search.objective
        metrics = [METRIC, *map(column_of, objectives[1:])]
        modes = ["max" if DIRECTIONS[name] == "maximize" else "min" for name in objectives]
        super().__init__(
            space=study.suggest,
            # With lists Optuna's study has several objectives.
            metric=metrics if len(metrics) > 1 else METRIC,
            mode=modes if len(modes) > 1 else "max",
            sampler=study.sampler,
            storage=study.storage,
            study_name=study.name,
        )
        self._own, self._limits = study, limits
        self._stopping = stopping
        self._ended = ended
        self._kept: dict[str, int] = {}
        """The last epoch of each running trial that Optuna has."""

    def suggest(self, trial_id: str) -> Any:
        """The next configuration, unless the search is over or is being stopped."""
        if self._stopping.is_set() or self._own.is_over(self._limits):
            return Searcher.FINISHED
        opened = cast(optuna.Study, self._ot_study)
        opened.sampler, opened.pruner = self._own.sampler, pruner_of(self._own.search)
        return super().suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports the value of an epoch to Optuna, once; of several objectives it takes none before the end."""
        if len(self._own.search.objective) == 1 and result["epoch"] > self._kept.get(trial_id, 0):
            self._ot_trials[trial_id].report(result[METRIC], result["epoch"])
            self._kept[trial_id] = result["epoch"]

    def should_prune(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether Optuna's pruner would stop the trial after this result."""
        self.on_trial_result(trial_id, result)
        return not result["finished"] and bool(self._ot_trials[trial_id].should_prune())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Reports to Optuna how a trial ended."""
        finished = bool(result and result.get("finished"))
        if self._stopping.is_set() and not finished:
            return
        trial, study = self._ot_trials[trial_id], cast(optuna.Study, self._ot_study)
        state = "complete" if finished else "pruned" if result and not error else "failed"
        self._own.note_ended(trial, state, int(result["cell_epochs"]) if result else 0)
        if result:
            self.on_trial_result(trial_id, result)
        self._kept.pop(trial_id, None)
        if state == "pruned":
            study.tell(trial, state=TrialState.PRUNED)
            self._completed_trials.add(trial_id)
        else:
            super().on_trial_complete(trial_id, result if finished else None, not finished)
        self._ended(state, result[METRIC] if result else None)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""


class StudyScheduler(FIFOScheduler):
    """Stops the trials that Optuna's pruner would stop, so that a search on Ray has the trials of one without it.

    The pruner judges by the study, so an interruption does not change its verdicts either.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        """searcher: of the same run of Tune."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The verdict on a trial after an epoch."""
        stops = self._searcher.should_prune(trial.trial_id, result)
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        return {}
