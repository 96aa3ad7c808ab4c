"""The trials of a search on Ray: Ray Tune asks Optuna for configurations, and a scheduler stops weak ones.

Trials are thin (`tune_trial`); their number at a time only has to keep the workers busy. With several at a time Optuna
sees results in the order in which they end, so two runs of a search may choose differently; its cells, and the
winner's, are reproducible each by itself. With one at a time (`strict`) the sequence of trials is reproducible too: it
is that of a search without Ray, as Optuna's pruner stops trials there and here.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import itertools
import logging
import math
import shutil
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from crossfold.platform.edge.fleet.ray_connection import NAMESPACE, use_settings
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.search import tune_trial
from crossfold.platform.edge.search.samplers import tune_scheduler
from crossfold.platform.edge.search.study import Study
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.sweeps.sweep_files import Budget

MOST_TRIALS_AT_ONCE = 32

TRIALS_OF_A_RUN = 50
"""Tune keeps some 60 KB of each trial until its run ends, so a search of thousands has several runs, with one study."""

TRIAL_RESOURCES: dict[str, int | float] = {"memory": 8 * 2**20}
"""A trial sleeps; it must fit in where the workers hold every core, so it asks for a little memory only."""

TUNE_SETTINGS = {
    # The cells and the study are the state; Tune's snapshots and loggers would only cost time.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def load_tune(options: FleetOptions) -> None:
    """Imports Ray Tune, before the fleet imports Ray Train in its thread: they import each other in circles."""
    use_settings(own_cluster=options.cluster is None, more=TUNE_SETTINGS)
    importlib.import_module("ray.train.torch")
    importlib.import_module("crossfold.platform.edge.search.optuna_searcher")


def trials_at_once(workers: int, cells_per_trial: int) -> int:
    """So many that no worker idles while one trial waits for its last cells; more would leave Optuna guessing."""
    covering = math.ceil(1.5 * workers / cells_per_trial)
    relay = math.ceil(workers / cells_per_trial) + 1
    return min(max(covering, relay), MOST_TRIALS_AT_ONCE)


def run_trials(
    study: Study,
    workspace: Workspace,
    fleet: Fleet,
    limits: "Budget",
    stopping: threading.Event,
    ended: Callable[[str, float | None], None],
) -> None:
    """Runs trials until one of the limits is reached, several at a time. An interrupted one stays open, to be repeated.

    stopping: no trial begins once it is set. ended: called with state and value of each trial that ended.
    """
    from ray import tune

    from crossfold.platform.edge.search.optuna_searcher import StudyScheduler, StudySearcher

    # A trial whose cell failed raises, which Tune would print with its stack; the study and the failure log have it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    judge = functools.partial(
        tune_trial.judge, queue=fleet.queue_name, namespace=NAMESPACE, workspace=workspace.address
    )
    at_once = 1 if study.search.strict else trials_at_once(fleet.workers, study.cells_per_trial)
    # What the scheduler has seen of earlier runs it compares with.
    scheduler = tune_scheduler(study.search)
    pruned_by_study = study.search.strict and study.search.stops_by != "none"
    for number in itertools.count(1):
        if stopping.is_set() or study.is_over(limits):
            return
        name = f"search-{fleet.queue_name}-{study.name}-{number}"
        searcher = StudySearcher(study, limits, stopping, ended)
        missing = TRIALS_OF_A_RUN if limits.trials is None else limits.trials - study.judged
        tuner = tune.Tuner(
            tune.with_resources(judge, tune.PlacementGroupFactory([TRIAL_RESOURCES])),
            # Searcher and scheduler know the metric.
            tune_config=tune.TuneConfig(
                num_samples=min(missing, TRIALS_OF_A_RUN),
                search_alg=searcher,
                scheduler=StudyScheduler(searcher) if pruned_by_study else scheduler,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name=name, storage_path=str(workspace.paths.tune), verbose=0),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(workspace.paths.tune / name, ignore_errors=True)
        _return_memory()


def _return_memory() -> None:
    """Returns what ended trials leave to the system; in the heaps of a driver's threads it would pile up in pieces."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
