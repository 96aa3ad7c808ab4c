"""Searches: Ray Tune and Optuna choose configurations, the fleet trains their inner-fold cells, weak ones are stopped.

`tune_search` runs the trials on Ray, and without workers `local_search` runs them in this process, on the same study.
"""

import contextlib
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.fleet.queue_client import RayLink
from crossfold.platform.edge.fleet.ray_connection import NAMESPACE
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.search import local_search, tune_search
from crossfold.platform.edge.search.objective import TrialFailed, follow
from crossfold.platform.edge.search.result import SearchResult, save_result
from crossfold.platform.edge.search.retrain import fresh_cells
from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.drive import WorkerPool, drive
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.scheduling.monitor import Monitor, SilentView
from crossfold.platform.scheduling.stop_signals import StopRequest, stop_request
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.trials import trial_cells

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Budget, Search

SETTLE_SECONDS = 10.0
"""How long cells of stopped trials, which end with their epoch, are waited for."""


def run_searches(
    searches: Sequence["Search"],
    store: "FeatureStore",
    workspace: Workspace,
    options: FleetOptions,
    *,
    trials: int | None = None,
    tracker: Tracker | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> list[SearchResult] | None:
    """Brings each study to its budget, one after the other on one fleet, and returns what each search found.

    A killed search continues by the same call: trials with a verdict are kept, finished cells are read again. When the
    time of `options.stop_after` is up no trial starts and cells end their epoch; if trials are missing then, None is
    returned and the same call continues.
    trials: instead of the number in the budget. tracker: by default MLflow. show: receives lines of progress. Raises
    `KeyboardInterrupt` when a signal stopped the search, `FleetError` when the fleet cannot go on, `UserError` when no
    trial ran to its end.
    """
    jobs = []
    for search in searches:
        study = Study(search, functools.partial(trial_cells, search, store), workspace)
        known = [count for count in (trials or search.limits.trials, study.grid_size) if count]
        limits = search.limits.model_copy(update={"trials": min(known, default=None)})
        jobs.append(_Job(study, limits, store))
    missing = [job for job in jobs if not job.is_complete(workspace)]
    if missing:
        with stop_request(options.stop_after) as stop, _opened(workspace, options) as fleet:
            tracker, view = tracker or MlflowTracker(workspace), SilentView(show)
            for job in missing:
                name = job.study.search.name
                tracker.launch(name, ())
                try:
                    monitor = Monitor(name, workspace, view, lambda cell_id: tracker)
                    with _driven(fleet, monitor, stop):
                        _run(job, workspace, fleet, stop.active, show)
                finally:
                    tracker.close()
                if stop.active.is_set():
                    show(f"the time is up after {job} of {name}; the same command continues")
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

    def fresh(self, workspace: Workspace) -> list[Cell]:
        """Cells with fresh seeds that have not finished."""
        cells = list(itertools.chain.from_iterable(fresh_cells(self.study, self.store).values()))
        finished = workspace.finished_among(cell.cell_id for cell in cells)
        return [cell for cell in cells if cell.cell_id not in finished]

    def is_complete(self, workspace: Workspace) -> bool:
        """Whether the budget is spent, and the best configurations have been judged again."""
        return self.study.is_over(self.limits) and not self.fresh(workspace)


@contextlib.contextmanager
def _opened(workspace: Workspace, options: FleetOptions) -> Iterator[Fleet | LocalFleet]:
    if options.workers == 0:
        with LocalFleet(workspace, options) as local:
            yield local
        return
    tune_search.load_tune(options)
    with Fleet(workspace, options) as fleet:
        yield fleet


@contextlib.contextmanager
def _driven(fleet: WorkerPool, monitor: Monitor, stop: StopRequest) -> Iterator[None]:
    """Drives the fleet from a thread while the block runs, as the trials hold the main thread.

    No trial starts any more once `stop` is active: after a signal, when the time is up, or when the fleet cannot go on.
    """
    ended = threading.Event()
    errors: list[Exception] = []
    settled = math.inf

    def over() -> bool:
        return ended.is_set() and (not monitor.progress.left or time.monotonic() > settled)

    def run() -> None:
        try:
            drive(fleet, monitor, stop, over)
        except Exception as error:
            # Raised again in the main thread, once the trials have ended.
            errors.append(error)
            stop.active.set()
            with contextlib.suppress(Exception):
                fleet.cancel()

    thread = threading.Thread(target=run, name="search-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        settled = time.monotonic() + SETTLE_SECONDS
        ended.set()
        thread.join()
        monitor.write_status()
    if errors:
        raise errors[0]
    if stop.interrupted.is_set():
        raise KeyboardInterrupt


def _run(
    job: _Job,
    workspace: Workspace,
    fleet: Fleet | LocalFleet,
    stopping: threading.Event,
    show: Callable[[str], None],
) -> None:
    """The trials that a study lacks, then its best configurations with fresh seeds."""
    name = job.study.search.name

    numbers = itertools.count(job.study.judged + 1)
    wanted = f"/{job.limits.trials}" if job.limits.trials else ""

    def note(state: str, value: float | None) -> None:
        score = f", mean CCC {value:.4f}" if value is not None else ""
        show(f"{name}: trial {next(numbers)}{wanted} {state}{score}")

    if not job.study.is_over(job.limits):
        if isinstance(fleet, Fleet):
            tune_search.run_trials(job.study, workspace, fleet, job.limits, stopping, note)
        else:
            local_search.run_trials(job.study, workspace, fleet, job.limits, stopping, note)
    again = job.fresh(workspace)
    if again and not stopping.is_set():
        show(f"{name}: {len(again)} cells judge the best configurations again, with fresh seeds")
        # A configuration of which one fails is not judged again; the failure log has why.
        with contextlib.suppress(TrialFailed):
            texts = [cell.model_dump_json() for cell in again]
            for _ in follow(texts, _queue_of(fleet), workspace, stopping=stopping):
                pass


def _queue_of(fleet: Fleet | LocalFleet) -> CellQueue:
    if isinstance(fleet, LocalFleet):
        return fleet.queue
    import ray

    return cast(CellQueue, RayLink(ray.get_actor(fleet.queue_name, namespace=NAMESPACE)))
