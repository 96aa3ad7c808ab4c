"""Searches: Ray Tune and Optuna choose configurations, the fleet trains their inner-fold cells, weak ones are stopped.

`tune_search` runs the trials on Ray, and without workers `local_search` runs them in this process, on the same study.
"""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.search import local_search, tune_search
from crossfold.platform.edge.search.fleet_access import KeptFleet, SearchFleet, driven, queue_of
from crossfold.platform.edge.search.objective import TrialFailed, follow
from crossfold.platform.edge.search.result import SearchResult, save_result
from crossfold.platform.edge.search.retrain import fresh_cells
from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.stop_signals import stop_request
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.trials import trial_cells

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Budget, Search


def run_searches(
    searches: Sequence["Search"],
    store: "FeatureStore",
    workspace: Workspace,
    options: FleetOptions,
    *,
    trials: int | None = None,
    tracker: Tracker | None = None,
    show: Callable[[str], None] = lambda line: None,
    kept: KeptFleet | None = None,
) -> list[SearchResult] | None:
    """Brings each study to its budget, one after the other on one fleet, and returns what each search found.

    A killed search continues by the same call: trials with a verdict are kept, finished cells are read again. When the
    time of `options.stop_after` is up no trial starts and cells end their epoch; if trials are missing then, None is
    returned and the same call continues.
    trials: instead of the number in the budget. tracker: by default MLflow. show: receives lines of progress. kept: the
    workers, where they stay for more than these searches. Raises `KeyboardInterrupt` when a signal stopped the search,
    `FleetError` when the fleet cannot go on, `UserError` when no trial ran to its end.
    """
    jobs = []
    for search in searches:
        study = Study(search, functools.partial(trial_cells, search, store), workspace)
        known = [count for count in (trials or search.limits.trials, study.grid_size) if count]
        limits = search.limits.model_copy(update={"trials": min(known, default=None)})
        jobs.append(_Job(study, limits, store))
    missing = [job for job in jobs if not job.is_complete(workspace)]
    if missing:
        with stop_request(options.stop_after) as stop, contextlib.ExitStack() as closing:
            fleet = (kept or closing.enter_context(KeptFleet(workspace, options))).opened(show)
            tracker = tracker or MlflowTracker(workspace)
            for job in missing:
                name = job.study.search.name
                said = show if len(jobs) == 1 else functools.partial(_say_of, name, show)
                tracker.launch(name, ())
                try:
                    with driven(fleet, name, workspace, tracker, stop, show):
                        _run(job, workspace, fleet, stop.active, said)
                finally:
                    tracker.close()
                if stop.active.is_set():
                    said(f"the time is up after {job}; the same command continues")
                    return None
    return [save_result(job.study, job.limits, store, workspace) for job in jobs]


def run_search(search: "Search", *others: Any, **more: Any) -> SearchResult | None:
    """`run_searches` of one search."""
    found = run_searches([search], *others, **more)
    return found[0] if found else None


@dataclass(frozen=True)
class _Job:
    """A study and what it may cost."""

    study: Study
    limits: "Budget"
    store: "FeatureStore"

    def __str__(self) -> str:
        wanted = f" of {self.limits.trials}" if self.limits.trials else ""
        return f"{self.study.judged}{wanted} trials"

    def fresh(self, workspace: Workspace) -> list[str]:
        """Cells with fresh seeds that have not finished, as JSON."""
        cells = list(itertools.chain.from_iterable(fresh_cells(self.study, self.store).values()))
        finished = workspace.finished_among(cell.cell_id for cell in cells)
        return [cell.model_dump_json() for cell in cells if cell.cell_id not in finished]

    def is_complete(self, workspace: Workspace) -> bool:
        """Whether the budget is spent, and the best configurations have been judged again."""
        return self.study.is_over(self.limits) and not self.fresh(workspace)


def _say_of(name: str, show: Callable[[str], None], line: str) -> None:
    show(f"{name}: {line}")


def _run(
    job: _Job,
    workspace: Workspace,
    fleet: SearchFleet,
    stopping: threading.Event,
    show: Callable[[str], None],
) -> None:
    """The trials that a study lacks, then its best configurations with fresh seeds."""
    wanted = f"/{job.limits.trials}" if job.limits.trials else ""

    def note(state: str, value: float | None) -> None:
        score = f", mean CCC {value:.4f}" if value is not None else ""
        # A failed one does not count, and another trial follows.
        which = "a trial" if state == "failed" else f"trial {job.study.judged}{wanted}"
        show(f"{which} {state}{score}")

    if not job.study.is_over(job.limits):
        if isinstance(fleet, Fleet):
            tune_search.run_trials(job.study, workspace, fleet, job.limits, stopping, note)
        else:
            local_search.run_trials(job.study, workspace, fleet, job.limits, stopping, note)
    again = job.fresh(workspace)
    if again and not stopping.is_set():
        show(f"{len(again)} cells judge the best configurations again, with fresh seeds")
        # A configuration of which one fails is not judged again; the failure log has why.
        with contextlib.suppress(TrialFailed):
            for _ in follow(again, queue_of(fleet), workspace, stopping=stopping):
                pass
