"""A search: Ray Tune and Optuna choose configurations, the fleet trains their inner-fold cells, ASHA stops the weak.

`tune_search` runs the trials on Ray, and without workers `local_search` runs them in this process, on the same study.
"""

import contextlib
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.search import local_search, tune_search
from crossfold.platform.edge.search.result import SearchResult, save_result
from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.drive import WorkerPool, drive
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.scheduling.monitor import Monitor, SilentView
from crossfold.platform.scheduling.stop_signals import StopRequest, stop_request
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Search

SETTLE_SECONDS = 10.0
"""How long cells of stopped trials, which end with their epoch, are waited for."""


def run_search(
    search: "Search",
    store: "FeatureStore",
    workspace: Workspace,
    options: FleetOptions,
    *,
    trials: int | None = None,
    tracker: Tracker | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> SearchResult | None:
    """Tops the study of this search up to `trials` trials and returns the best configuration.

    A killed search continues by the same call: trials with a verdict are kept, finished cells are read again. When the
    time of `options.stop_after` is up no trial starts and cells end their epoch; if trials are missing then, None is
    returned and the same call continues.
    tracker: by default MLflow. show: receives lines of progress. Raises `KeyboardInterrupt` when a signal stopped the
    search, `FleetError` when the fleet cannot go on, `UserError` when no trial ran to its end.
    """
    from crossfold.sweeps.trials import trial_cells

    study = Study(search, functools.partial(trial_cells, search, store), workspace)
    wanted = search.trials if trials is None else trials
    if wanted > study.judged:
        fleet = LocalFleet(workspace, options) if options.workers == 0 else Fleet(workspace, options)
        if isinstance(fleet, Fleet):
            tune_search.load_tune(options)
        tracker, view = tracker or MlflowTracker(workspace), SilentView(show)
        tracker.launch(search.name, ())
        try:
            monitor = Monitor(search.name, workspace, view, lambda cell_id: tracker)
            note = _announcement(study, wanted, show)
            with stop_request(options.stop_after) as stop, fleet, _driven(fleet, monitor, stop):
                if isinstance(fleet, Fleet):
                    tune_search.run_trials(study, workspace, fleet, wanted, stop.active, note)
                else:
                    local_search.run_trials(study, workspace, fleet, wanted, stop.active, note)
        finally:
            tracker.close()
        if stop.active.is_set():
            show(f"the time is up after {study.judged} of {wanted} trials; the same command continues")
            return None
    return save_result(search, store, study, workspace)


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


def _announcement(study: Study, wanted: int, show: Callable[[str], None]) -> Callable[[str, float | None], None]:
    """Shows a line for each trial that ended, given its state and value."""
    numbers = itertools.count(study.judged + 1)

    def note(state: str, value: float | None) -> None:
        score = f", mean CCC {value:.4f}" if value is not None else ""
        show(f"trial {next(numbers)}/{wanted} {state}{score}")

    return note
