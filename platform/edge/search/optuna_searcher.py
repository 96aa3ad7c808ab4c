"""What Ray Tune asks for configurations: its Optuna searcher, which also knows trials that were stopped.

Imports Ray and Optuna, so it is itself imported when the fleet runs.
"""

import threading
from collections.abc import Callable
from typing import Any, cast

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.searcher import Searcher

from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.search.tune_trial import METRIC


class StudySearcher(OptunaSearch):
    """Ray's `OptunaSearch` on an existing study, which it loads by name, so a search is topped up.

    It differs in three things: it reports a trial that ASHA stopped to Optuna as pruned (Ray reports it as complete,
    which could make it the best); an interrupted trial stays open, to be repeated; and Tune keeps no copy of its state,
    for the study is the state.
    """

    def __init__(self, study: Study, stopping: threading.Event, ended: Callable[[str, float | None], None]) -> None:
        """`stopping`: no more trials once it is set. `ended`: called with state and value of each trial that ended."""
        super().__init__(
            space=study.suggest,
            metric=METRIC,
            mode="max",
            sampler=study.sampler,
            storage=study.storage,
            study_name=study.name,
        )
        self._stopping = stopping
        self._ended = ended

    def suggest(self, trial_id: str) -> Any:
        """The next configuration, unless the search is being stopped."""
        return Searcher.FINISHED if self._stopping.is_set() else super().suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Reports to Optuna how a trial ended."""
        finished = bool(result and result.get("finished"))
        if self._stopping.is_set() and not finished:
            return
        if finished or error or not result:
            super().on_trial_complete(trial_id, result, error or not result)
        else:
            trial, study = self._ot_trials[trial_id], cast(optuna.Study, self._ot_study)
            trial.report(result[METRIC], result["epoch"])
            study.tell(trial, state=TrialState.PRUNED)
            self._completed_trials.add(trial_id)
        state = "complete" if finished else "pruned" if result and not error else "failed"
        self._ended(state, result[METRIC] if result else None)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""
