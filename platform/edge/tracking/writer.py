"""MLflow as a mirror of the workspace: what is written, one call after another, with explicit run ids.

Experiment = sweep, parent run = launch, child run = cell. A cell has one run for ever: its id is kept in
`mlflow-runs.jsonl` of the workspace and found again by the tag `cell_id`, so neither a restart nor a retry makes a
second one. What a run ends with comes from the workspace alone, so a rebuilt one is the same. Everything here may
raise; `mlflow_tracker` keeps the troubles.
"""

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.outcome import Failure
from crossfold.platform.edge.tracking.fields import (
    FAILURE_TAGS,
    SETTLED,
    Epochs,
    cell_params,
    cell_tags,
    curve_epochs,
    environment_tags,
    failure_tags,
    final_metrics,
    finished_at,
    milliseconds,
)
from crossfold.platform.edge.tracking.pyfunc_model import ARTIFACT as MODEL
from crossfold.platform.edge.tracking.pyfunc_model import write_model
from crossfold.platform.export.predictor import why_not_deployable
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.launches import Launch, LaunchIndex, launches, public_address, save_launch
from crossfold.platform.workspace.workspace import Workspace

RUNS_FILE = "mlflow-runs.jsonl"
ARTIFACTS = "mlflow-artifacts"
LARGE_ARTIFACT = 16 * 2**20
"""Bytes above which predictions and weights stay in the workspace only."""

WATCH_SECONDS = 10
"""From one reading of the machine to the next."""

BATCH_METRICS, BATCH_PARAMS = 1000, 100
PARAM_LENGTH, TAG_LENGTH = 6000, 8000
"""What MLflow accepts in one call, and in one value."""

PARENT = "mlflow.parentRunId"


@dataclass
class CellRun:
    """The run of one cell, and what it holds already."""

    run_id: str
    steps: set[int] = field(default_factory=set)
    settled: bool = False
    final: dict[str, float] = field(default_factory=dict)
    """Last value of each metric, by name."""
    tags: set[str] = field(default_factory=set)
    """Names of its tags."""


class Mirror:
    """Writes to one MLflow tracking store for one workspace."""

    def __init__(self, workspace: Workspace, uri: str | None = None) -> None:
        """`uri`: else `MLFLOW_TRACKING_URI`, else the database in the workspace."""
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or workspace.mlflow_uri
        self.workspace = workspace
        self._identity = hashlib.sha256(str(workspace).encode()).hexdigest()[:12]
        # A tracking URI may hold a password, so it is written down as a hash.
        self._store = hashlib.sha256(self.uri.encode()).hexdigest()[:12]
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, str] = {}
        self._sweep_of: dict[str, str] = {}
        self._launch_runs: dict[str, str] = {}
        self._book = LaunchIndex(())
        self._current = ""
        self._client: Any = None

    def prepare(self) -> None:
        """Opens the store; a local database is created, migrated, and switched to write-ahead logging."""
        if self._client is not None:
            return
        self.workspace.root.mkdir(parents=True, exist_ok=True)
        if self.uri.startswith("sqlite:///"):
            _make_database(Path(self.uri.removeprefix("sqlite:///")))
        client = _quiet_client(self.uri)
        self._runs = self._remembered()
        self.look_up_launches()
        self._client = client

    def look_up_launches(self) -> None:
        """Learns of launches, and of what they ran, from the workspace."""
        self._book = LaunchIndex(launches(self.workspace))

    def open_launch(self, launch: Launch) -> str:
        """The run of a launch that begins. What a dead driver left open in this experiment is settled or closed."""
        if not self._runs:
            self.remember_all(self.cell_runs())
        self._current = launch.launch_id
        run_id = self.launch_run(launch)
        self._settle_stale(self._experiment(launch.sweep))
        return run_id

    def launch_run(self, launch: Launch) -> str:
        """The run of a launch, made where there is none; that of an earlier one is over."""
        name = launch.launch_id
        if name not in self._launch_runs:
            found = next(iter(self._search([self._experiment(launch.sweep)], f"tags.launch = '{name}'")), None)
            if found is None:
                tags = {"kind": "launch", "launch": name, "sweep": launch.sweep, "cells": str(launch.count)}
                self._launch_runs[name] = self._create(launch.sweep, launch.name, tags, launch.at)
                if name != self._current:
                    self.close_launch(launch)
            else:
                self._launch_runs[name] = found.info.run_id
        return self._launch_runs[name]

    def close_launch(self, launch: Launch) -> None:
        """Ends the run of a launch: FINISHED, or KILLED where nobody wrote down that it ended."""
        status, at = ("FINISHED", milliseconds(launch.ended)) if launch.ended else ("KILLED", None)
        self._client.set_terminated(self.launch_run(launch), status, end_time=at)

    def watch_machine(self, run_id: str) -> Callable[[], None]:
        """Logs processor, memory, disk, network and GPU of this machine into a run; returns what ends it."""
        from mlflow.system_metrics import system_metrics_monitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        library: Any = system_metrics_monitor
        monitor = library.SystemMetricsMonitor(run_id, sampling_interval=WATCH_SECONDS, tracking_uri=self.uri)
        monitor.start()
        finish: Callable[[], None] = monitor.finish
        return finish

    def leave(self, cell_id: str, run_id: str) -> None:
        """Ends the run of a cell that nobody works on any more: FAILED if a try failed before, else KILLED."""
        if self.workspace.failures_of(cell_id):
            self.fail(CellRun(run_id), cell_id)
        else:
            self._client.set_terminated(run_id, "KILLED")

    def attach(self, cell: Cell, launch: Launch) -> CellRun:
        """The run of a cell, made if there is none; one that was left is taken up, with the steps it holds.

        launch: which the run belongs to until it ends; `settle` and `fail` know better.
        """
        known = self._runs.get(cell.cell_id)
        found = self._find(known) if known else None
        if found is None:
            # A rebuilt run lies in the experiment in which the first one lay, whichever store that was in.
            sweep = self._sweep_of.get(cell.cell_id, launch.sweep)
            tags = cell_tags(cell) | {"sweep": sweep, PARENT: self.launch_run(launch)}
            run = CellRun(self._create(sweep, cell.label, tags))
            self._remember(cell.cell_id, run.run_id, sweep)
            self._write_params(run, cell)
            return run
        run = self._reopened(found)
        self._client.set_tag(run.run_id, PARENT, self.launch_run(launch))
        if not run.settled:
            self._client.update_run(run.run_id, status="RUNNING")
            self._write_params(run, cell)
        return run

    def write_epochs(self, run: CellRun, epochs: Epochs) -> None:
        """Logs the epochs that the run does not hold yet."""
        fresh = sorted(step for step in epochs if step not in run.steps)
        width = max((len(epochs[step]) for step in fresh), default=1)
        per_batch = max(BATCH_METRICS // width, 1)
        for first in range(0, len(fresh), per_batch):
            # An epoch is never split over two calls, so a killed driver leaves it whole or not at all.
            steps = fresh[first : first + per_batch]
            self._client.log_batch(run.run_id, metrics=_metrics({step: epochs[step] for step in steps}))
            run.steps.update(steps)

    def settle(self, run: CellRun, record: CellRecord) -> None:
        """Completes the run of a finished cell from its folder, and ends it."""
        self.write_epochs(run, curve_epochs(record))
        tries = self.workspace.failures_of(record.cell_id)
        tags = environment_tags(record) | failure_tags(tries, finished=True)
        tags |= self._parent(record.cell_id, str(record.env.get("finished_at", "")))
        # A cell that was computed once more has other times; MLflow shows the last value.
        final = {key: value for key, value in final_metrics(record).items() if run.final.get(key) != value}
        self._client.log_batch(run.run_id, metrics=_metrics({0: final}), tags=_tags(tags))
        for name in run.tags & FAILURE_TAGS - tags.keys():
            self._client.delete_tag(run.run_id, name)
        run.settled = True
        for name in CELL_FILES:
            path = record.file(name)
            if path.is_file() and path.stat().st_size <= LARGE_ARTIFACT:
                self._client.log_artifact(run.run_id, str(path))
        self._log_model(run, record)
        self._client.set_terminated(run.run_id, "FINISHED", end_time=finished_at(record))

    def _log_model(self, run: CellRun, record: CellRecord) -> None:
        """Logs what `mlflow.pyfunc.load_model` needs; cells on raw frames, or whose store is elsewhere, have none."""
        cell = record.cell
        place = self.workspace.store_path(cell.corpus, cell.store)
        weights = record.file("best.safetensors")
        if why_not_deployable(cell) or not place.is_dir() or weights.stat().st_size > LARGE_ARTIFACT:
            return
        with tempfile.TemporaryDirectory(prefix="crossfold-model-") as folder:
            write_model(record, FeatureStore(place), Path(folder))
            self._client.log_artifacts(run.run_id, folder, MODEL)

    def fail(self, run: CellRun, cell_id: str, told: Failure | None = None) -> None:
        """Ends the run as failed, by the ledger of the workspace; another try takes it up again.

        told: what to say where the ledger has nothing, as when the disk was full.
        """
        tries = self.workspace.failures_of(cell_id) or ([told] if told else [])
        self._client.log_batch(run.run_id, tags=_tags(failure_tags(tries) | self._parent(cell_id, tries[-1].at)))
        self._client.set_terminated(run.run_id, "FAILED", end_time=milliseconds(tries[-1].at))

    def _parent(self, cell_id: str, at: str) -> dict[str, str]:
        """The tag that hangs a run under the launch which a cell ended in."""
        launch = self._book.of(cell_id, at)
        return {PARENT: self.launch_run(launch)} if launch else {}

    def cell_runs(self, experiments: Iterable[str] | None = None, where: str = "") -> dict[str, Any]:
        """Runs of this workspace's cells by cell id; of several the oldest."""
        found: dict[str, Any] = {}
        for run in self._search(experiments, where):
            cell_id = run.data.tags.get("cell_id")
            mine = run.data.tags.get("workspace") == self._identity or self._runs.get(str(cell_id)) == run.info.run_id
            if cell_id and mine:
                before = found.get(cell_id)
                if before is None or run.info.start_time < before.info.start_time:
                    found[cell_id] = run
        return found

    def remember_all(self, runs: Mapping[str, Any]) -> None:
        """Takes over run ids that were found in the store."""
        for cell_id, run in runs.items():
            if self._runs.get(cell_id) != run.info.run_id:
                self._remember(cell_id, run.info.run_id, run.data.tags.get("sweep", ""))

    def knows(self, cell_id: str) -> bool:
        """Whether a run of the cell is on record here, by the workspace's own list; no store is asked."""
        return cell_id in self._runs

    def adopt(self, launch: Launch, cell_ids: Iterable[str]) -> Launch:
        """The launch, with those cells that no launch has: of another workspace, or from before launches were kept."""
        orphaned = tuple(cell_id for cell_id in cell_ids if self.launch_of(cell_id) is None)
        if orphaned:
            launch = replace(launch, cells=launch.cells + orphaned)
            save_launch(self.workspace, launch)
            self.look_up_launches()
        return launch

    def launch_of(self, cell_id: str) -> Launch | None:
        """The launch that had a cell first, if any had."""
        return self._book.of(cell_id, "")

    def closed_launches(self) -> set[str]:
        """Identities of launches whose runs are there and ended."""
        found = self._search(None, "tags.kind = 'launch'")
        return {run.data.tags.get("launch", "") for run in found if run.info.status != "RUNNING"}

    def _settle_stale(self, experiment: str) -> None:
        # A failed or killed try may have been followed by a good one that its driver did not live to tell of.
        stale = self.cell_runs([experiment], "attributes.status != 'FINISHED'")
        self.remember_all(stale)
        finished = self.workspace.finished()
        for cell_id, found in stale.items():
            if cell_id in finished:
                self.settle(self._reopened(found), self.workspace.read_exactly(cell_id))
            elif found.info.status == "RUNNING":
                self.leave(cell_id, found.info.run_id)
        known = {launch.launch_id: launch for launch in launches(self.workspace)}
        for run in self._search([experiment], "attributes.status = 'RUNNING'"):
            mine = run.data.tags.get("kind") == "launch" and run.data.tags.get("workspace") == self._identity
            other = run.data.tags.get("launch", "")
            if mine and other in known and other != self._current:
                self.close_launch(known[other])
            elif mine and other != self._current:
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _search(self, experiments: Iterable[str] | None, where: str) -> Iterator[Any]:
        if experiments is None:
            experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        token = None
        while True:
            page = self._client.search_runs(list(experiments), where, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _find(self, run_id: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _reopened(self, found: Any) -> CellRun:
        history = self._client.get_metric_history(found.info.run_id, "train_loss")
        final = dict(found.data.metrics)
        steps = {metric.step for metric in history}
        return CellRun(found.info.run_id, steps, SETTLED in final, final, set(found.data.tags))

    def _experiment(self, sweep: str) -> str:
        if sweep not in self._experiments:
            found = self._client.get_experiment_by_name(sweep)
            self._experiments[sweep] = found.experiment_id if found else self._new_experiment(sweep)
        return self._experiments[sweep]

    def _new_experiment(self, sweep: str) -> str:
        remote = self.uri.startswith(("http://", "https://", "databricks"))
        place = None if remote else (self.workspace.root / ARTIFACTS).as_uri()
        experiment: str = self._client.create_experiment(sweep, artifact_location=place)
        return experiment

    def _create(self, sweep: str, name: str, tags: Mapping[str, str], at: str = "") -> str:
        tags = {key: value[:TAG_LENGTH] for key, value in tags.items()} | {"workspace": self._identity}
        began = milliseconds(at) if at else None
        run = self._client.create_run(self._experiment(sweep), tags=tags, run_name=name, start_time=began)
        run_id: str = run.info.run_id
        return run_id

    def _write_params(self, run: CellRun, cell: Cell) -> None:
        from mlflow.entities import Param

        params = [Param(key, value[:PARAM_LENGTH]) for key, value in cell_params(cell).items()]
        for first in range(0, len(params), BATCH_PARAMS):
            self._client.log_batch(run.run_id, params=params[first : first + BATCH_PARAMS])

    def _remembered(self) -> dict[str, str]:
        path = self.workspace.root / RUNS_FILE
        runs = {}
        for line in path.read_text().splitlines() if path.is_file() else ():
            # A driver that was killed may have left half a line.
            with contextlib.suppress(ValueError, KeyError):
                entry = json.loads(line)
                if entry.get("sweep"):
                    self._sweep_of.setdefault(entry["cell"], entry["sweep"])
                if entry["store"] == self._store:
                    runs[entry["cell"]] = entry["run"]
        return runs

    def _remember(self, cell_id: str, run_id: str, sweep: str) -> None:
        self._runs[cell_id] = run_id
        self._sweep_of.setdefault(cell_id, sweep)
        with (self.workspace.root / RUNS_FILE).open("a") as file:
            # The leading line break ends the half line of a driver that was killed.
            entry = {"cell": cell_id, "run": run_id, "store": self._store, "sweep": sweep}
            if server := public_address(self.uri):
                entry["server"] = server
            file.write("\n" + json.dumps(entry))


def _metrics(epochs: Epochs) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, value, now, step) for step, values in epochs.items() for key, value in values.items()]


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value[:TAG_LENGTH]) for key, value in tags.items()]


def _make_database(path: Path) -> None:
    """Creates and migrates a database under another name, so that one that is there is whole."""
    if path.is_file():
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _quiet_client(f"sqlite:///{beside}").search_experiments(max_results=1)
        with contextlib.closing(sqlite3.connect(beside)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("PRAGMA journal_mode=delete")
        beside.replace(path)
    finally:
        for left in path.parent.glob(f"{beside.name}*"):
            left.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=wal")


def _quiet_client(uri: str) -> Any:
    """An MLflow client that neither chatters nor waits long for a server that is gone."""
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        # Standard output is ours: lines of progress, or JSON.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }
    os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)
