"""A search: Ray Tune and Optuna choose configurations, the fleet trains their inner-fold cells, ASHA stops the weak.

Trials are thin (`search_trial`); their number at a time only has to keep the workers busy. With several at a time
Optuna sees results in the order in which they end, so two runs of a search may choose differently; its cells, and the
winner's, are reproducible each by itself.
"""

import contextlib
import functools
import importlib
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.edge.fleet.cluster import NAMESPACE, OWN_CLUSTER_SETTINGS, RAY_SETTINGS
from crossfold.platform.edge.fleet.ray_fleet import TRIAL, Fleet
from crossfold.platform.edge.search import tune_trial
from crossfold.platform.edge.search.study import STATES, Study, describe_space
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.monitor import Monitor, SilentView, View
from crossfold.platform.scheduling.stop_signals import interruptions
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Search


NEVER = 10**6
"""An epoch at which ASHA would end a trial; cells end by themselves."""

GRACE_EPOCHS, REDUCTION = 3, 3
"""ASHA: no trial is stopped before the third epoch; at each rung the best third goes on."""

MOST_TRIALS_AT_ONCE = 32
SETTLE_SECONDS = 10.0

TRIAL_RESOURCES: dict[str, int | float] = {"memory": 8 * 2**20}
"""A trial sleeps; it must find room where the workers hold every core, so it asks for a little memory only."""

TUNE_SETTINGS = {
    # The cells and the study are the state; Tune's snapshots and loggers would only cost time.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    best_params: dict[str, Any]
    best_value: float
    """Mean over inner folds, targets and seeds of the best selection CCC."""
    trials: pd.DataFrame
    """One row a trial: number, state, value, epochs, seconds, parameters."""


def run_search(
    search: "Search",
    store: "FeatureStore",
    workspace: Workspace,
    *,
    trials: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    tracker: Tracker | None = None,
    view: View | None = None,
    tell: Callable[[str], None] = lambda text: None,
    trial: str = TRIAL,
    plugins: Sequence[Path] = (),
    stop_after: float | None = None,
) -> SearchResult | None:
    """Tops the study of this search up to `trials` trials and returns the best configuration.

    A killed search continues by the same call: trials with a verdict are kept, finished cells are read again.
    stop_after: seconds after which no trial starts and cells end their epoch; if trials are missing then, None is
    returned and the same call continues.
    tracker: else the MLflow mirror of the workspace. trial: what the fleet's workers run for a cell. Raises
    `KeyboardInterrupt` when a signal stopped the search, `FleetError` when the fleet broke.
    """
    from crossfold.sweeps.trials import trial_cells

    ends = None if stop_after is None else time.monotonic() + stop_after
    study = Study(search, functools.partial(trial_cells, search, store), workspace)
    wanted = search.trials if trials is None else trials
    missing = wanted - study.judged
    if missing > 0:
        _import_ray(address)
        fleet = Fleet(workspace, workers=workers, address=address, trial=trial, plugins=plugins)
        tracker, view = tracker or MlflowTracker(workspace), view or SilentView()
        tracker.launch(search.name, ())
        try:
            monitor = Monitor(search.name, workspace, tracker, view)
            with interruptions() as interrupted, view.showing(monitor.progress), fleet:
                monitor.progress.workers = fleet.workers
                with _watched(fleet, monitor, interrupted, ends) as stopping:
                    _tune(study, workspace, fleet, missing, stopping, tell)
        finally:
            tracker.close()
        if stopping.is_set():
            tell(f"the time is up after {study.judged} of {wanted} trials; the same command continues")
            return None
    return _save(search, store, study, workspace)


def trials_at_once(workers: int, cells_per_trial: int) -> int:
    """So many that no worker idles while one trial waits for its last cells; more would leave Optuna guessing."""
    covering = math.ceil(1.5 * workers / cells_per_trial)
    relay = math.ceil(workers / cells_per_trial) + 1
    return min(max(covering, relay), MOST_TRIALS_AT_ONCE)


def _import_ray(address: str | None) -> None:
    """Imports all of Ray before the fleet does so in its thread: Train and Tune import each other in circles."""
    own = not (address or os.environ.get("RAY_ADDRESS"))
    settings = RAY_SETTINGS | TUNE_SETTINGS | (OWN_CLUSTER_SETTINGS if own else {})
    os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
    importlib.import_module("ray.train.torch")
    importlib.import_module("crossfold.platform.edge.search.optuna_searcher")


@contextlib.contextmanager
def _watched(
    fleet: Fleet, monitor: Monitor, interrupted: threading.Event, ends: float | None
) -> Iterator[threading.Event]:
    """Passes the fleet's events on while the block runs; yields the event that says no more trials.

    It is set by a signal, by a fleet that broke, and at `ends` of the monotonic clock.
    """
    stopping, over = threading.Event(), threading.Event()
    broken: list[FleetError] = []

    def watch() -> None:
        while True:
            last = over.wait(fleet.poll_seconds)
            try:
                over_time = ends is not None and time.monotonic() >= ends
                if (interrupted.is_set() or over_time) and not stopping.is_set():
                    stopping.set()
                    fleet.cancel()
                monitor.feed(fleet.drain())
                if last:
                    _settle(fleet, monitor)
            except FleetError as error:
                broken.append(error)
                stopping.set()
                with contextlib.suppress(FleetError):
                    fleet.cancel()
                return
            if last:
                return

    thread = threading.Thread(target=watch, name="search-events", daemon=True)
    thread.start()
    try:
        yield stopping
    finally:
        over.set()
        thread.join()
        monitor.write_status()
    if broken:
        raise broken[0]
    if interrupted.is_set():
        raise KeyboardInterrupt


def _settle(fleet: Fleet, monitor: Monitor) -> None:
    """Waits a moment for the cells of stopped trials, which end with their epoch."""
    until = time.monotonic() + SETTLE_SECONDS
    while monitor.progress.left and time.monotonic() < until:
        time.sleep(fleet.poll_seconds)
        monitor.feed(fleet.drain())


def _tune(
    study: Study,
    workspace: Workspace,
    fleet: Fleet,
    missing: int,
    stopping: threading.Event,
    tell: Callable[[str], None],
) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from crossfold.platform.edge.search.optuna_searcher import StudySearcher

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    before = study.judged
    ended = 0

    def note(state: str, value: float | None) -> None:
        nonlocal ended
        ended += 1
        score = f", mean CCC {value:.4f}" if value is not None else ""
        tell(f"trial {before + ended}/{before + missing} {state}{score}")

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
        run_config=tune.RunConfig(name=name, storage_path=str(workspace.root / "tune"), verbose=0),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(workspace.root / "tune" / name, ignore_errors=True)


def _save(search: "Search", store: "FeatureStore", study: Study, workspace: Workspace) -> SearchResult:
    """Writes `searches/<name>.json` and, beside it, the table of trials."""
    table, best = study.table(), study.best
    if best is None:
        raise UserError(
            f"search {search.name}: none of {len(table)} trials ran to its end",
            "`crossfold status` lists the failures of their cells",
        )
    folder = workspace.root / "searches"
    write_json(
        folder / f"{search.name}.json",
        {
            "name": search.name,
            "corpus": store.corpus,
            "store": store.content_hash,
            "study": study.name,
            "search": search.model_dump(mode="json"),
            "space": describe_space(search.space),
            "sampler": {"kind": "tpe", "seed": search.sampler_seed, "multivariate": True, "constant_liar": True},
            "scheduler": {"kind": "asha", "grace_epochs": GRACE_EPOCHS, "reduction": REDUCTION},
            "objective": "mean over inner folds, targets and seeds of the best selection CCC",
            "trials": {state: int((table["state"] == state).sum()) for state in STATES},
            "best_params": best[0],
            "best_value": best[1],
            "cells": study.cells,
        },
    )
    table.to_parquet(folder / f"{search.name}.parquet", index=False)
    return SearchResult(best[0], best[1], table)
