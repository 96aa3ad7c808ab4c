"""A search: Ray Tune and Optuna choose configurations, the fleet trains their inner-fold cells, ASHA stops the weak.

Trials are thin (`tune_trial`); their number at a time only has to keep the workers busy. With several at a time Optuna
sees results in the order in which they end, so two runs of a search may choose differently; its cells, and the
winner's, are reproducible each by itself.
"""

import contextlib
import functools
import importlib
import itertools
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crossfold.platform.edge.fleet.ray_connection import NAMESPACE, use_settings
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.search import tune_trial
from crossfold.platform.edge.search.result import GRACE_EPOCHS, REDUCTION, SearchResult, save_result
from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.drive import drive
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import Monitor, SilentView
from crossfold.platform.scheduling.stop_signals import StopRequest, stop_request
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Search

NEVER = 10**6
"""An epoch at which ASHA would end a trial; cells end by themselves."""
MOST_TRIALS_AT_ONCE = 32
SETTLE_SECONDS = 10.0
"""How long cells of stopped trials, which end with their epoch, are waited for."""

TRIAL_RESOURCES: dict[str, int | float] = {"memory": 8 * 2**20}
"""A trial sleeps; it must fit in where the workers hold every core, so it asks for a little memory only."""

TUNE_SETTINGS = {
    # The cells and the study are the state; Tune's snapshots and loggers would only cost time.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


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
        # Before the fleet does so in its thread: Train and Tune import each other in circles.
        use_settings(own_cluster=options.cluster is None, more=TUNE_SETTINGS)
        importlib.import_module("ray.train.torch")
        importlib.import_module("crossfold.platform.edge.search.optuna_searcher")
        tracker, view = tracker or MlflowTracker(workspace), SilentView(show)
        tracker.launch(search.name, ())
        try:
            monitor = Monitor(search.name, workspace, view, lambda cell_id: tracker)
            with (
                stop_request(options.stop_after) as stop,
                Fleet(workspace, options) as fleet,
                _driven(fleet, monitor, stop),
            ):
                _tune(study, workspace, fleet, wanted, stop.active, show)
        finally:
            tracker.close()
        if stop.active.is_set():
            show(f"the time is up after {study.judged} of {wanted} trials; the same command continues")
            return None
    return save_result(search, store, study, workspace)


def trials_at_once(workers: int, cells_per_trial: int) -> int:
    """So many that no worker idles while one trial waits for its last cells; more would leave Optuna guessing."""
    covering = math.ceil(1.5 * workers / cells_per_trial)
    relay = math.ceil(workers / cells_per_trial) + 1
    return min(max(covering, relay), MOST_TRIALS_AT_ONCE)


@contextlib.contextmanager
def _driven(fleet: Fleet, monitor: Monitor, stop: StopRequest) -> Iterator[None]:
    """Drives the fleet from a thread while the block runs, as Tune holds the main thread.

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
            # Raised again in the main thread, once Tune has ended its trials.
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


def _tune(
    study: Study,
    workspace: Workspace,
    fleet: Fleet,
    wanted: int,
    stopping: threading.Event,
    show: Callable[[str], None],
) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from crossfold.platform.edge.search.optuna_searcher import StudySearcher

    # A trial whose cell failed raises, which Tune would print with its stack; the study and the failure log have it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    missing = wanted - study.judged
    numbers = itertools.count(study.judged + 1)

    def note(state: str, value: float | None) -> None:
        score = f", mean CCC {value:.4f}" if value is not None else ""
        show(f"trial {next(numbers)}/{wanted} {state}{score}")

    judge = functools.partial(
        tune_trial.judge, queue=fleet.queue_name, namespace=NAMESPACE, workspace=workspace.address
    )
    name = f"search-{fleet.queue_name}"
    tuner = tune.Tuner(
        tune.with_resources(judge, tune.PlacementGroupFactory([TRIAL_RESOURCES])),
        tune_config=tune.TuneConfig(
            metric=tune_trial.METRIC,
            mode="max",
            num_samples=missing,
            search_alg=StudySearcher(study, stopping, note),
            scheduler=ASHAScheduler(
                time_attr="epoch", max_t=NEVER, grace_period=GRACE_EPOCHS, reduction_factor=REDUCTION
            ),
            max_concurrent_trials=trials_at_once(fleet.workers, study.cells_per_trial),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=name, storage_path=str(workspace.paths.tune), verbose=0),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(workspace.paths.tune / name, ignore_errors=True)
