"""MLflow as a mirror of the workspace: what is written, one call after another, with explicit run ids.

Experiment = sweep, parent run = launch, child run = cell. A cell has one run for ever: its id is kept in
`mlflow-runs.jsonl` of the workspace and found again by the tag `cell_id`, so neither a restart nor a retry makes a
second one. Everything here may raise; `mlflow_tracker` keeps the troubles.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfold.datasets.store import FeatureStore
from crossfold.platform.contracts import Cell, Failure
from crossfold.platform.deployment import why_not_deployable
from crossfold.platform.edge.mlflow_fields import (
    SETTLED,
    Epochs,
    cell_params,
    cell_tags,
    curve_epochs,
    environment_tags,
    final_metrics,
    finished_at,
)
from crossfold.platform.edge.mlflow_model import ARTIFACT as MODEL
from crossfold.platform.edge.mlflow_model import write_model
from crossfold.platform.results import CELL_FILES, CellRecord, Workspace

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


class Mirror:
    """Writes to one MLflow tracking store for one workspace."""

    def __init__(self, workspace: Workspace, uri: str | None = None) -> None:
        """`uri`: else `MLFLOW_TRACKING_URI`, else the database in the workspace."""
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or workspace.mlflow_uri
        self.workspace = workspace
        self._identity = hashlib.sha256(str(workspace.root).encode()).hexdigest()[:12]
        # A tracking URI may hold a password, so it is written down as a hash.
        self._store = hashlib.sha256(self.uri.encode()).hexdigest()[:12]
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, str] = {}
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
        self._client = client

    def open_launch(self, sweep: str, cells: int) -> str:
        """A parent run for a launch. What a dead driver left open in this experiment is settled or closed first."""
        if not self._runs:
            self.remember_all(self.cell_runs())
        self._settle_stale(self._experiment(sweep))
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        return self._create(sweep, f"{sweep} {stamp}", {"kind": "launch", "sweep": sweep, "cells": str(cells)})

    def watch_machine(self, run_id: str) -> Callable[[], None]:
        """Logs processor, memory, disk, network and GPU of this machine into a run; returns what ends it."""
        from mlflow.system_metrics import system_metrics_monitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        library: Any = system_metrics_monitor
        monitor = library.SystemMetricsMonitor(run_id, sampling_interval=WATCH_SECONDS, tracking_uri=self.uri)
        monitor.start()
        finish: Callable[[], None] = monitor.finish
        return finish

    def close(self, run_id: str, status: str) -> None:
        """Ends a run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status)

    def attach(self, cell: Cell, sweep: str, parent: str) -> CellRun:
        """The run of a cell, made if there is none; one that was left is taken up, with the steps it holds."""
        known = self._runs.get(cell.cell_id)
        found = self._find(known) if known else None
        if found is None:
            tags = cell_tags(cell) | {"sweep": sweep, PARENT: parent}
            run = CellRun(self._create(sweep, cell.label, tags))
            self._remember(cell.cell_id, run.run_id)
            self._write_params(run, cell)
            return run
        run = self._reopened(found)
        self._client.set_tag(run.run_id, PARENT, parent)
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
        if not run.settled:
            final = _metrics({0: final_metrics(record)})
            self._client.log_batch(run.run_id, metrics=final, tags=_tags(environment_tags(record)))
            run.settled = True
        for name in CELL_FILES:
            path = record.path / name
            if path.is_file() and path.stat().st_size <= LARGE_ARTIFACT:
                self._client.log_artifact(run.run_id, str(path))
        self._log_model(run, record)
        self._client.set_terminated(run.run_id, "FINISHED", end_time=finished_at(record))

    def _log_model(self, run: CellRun, record: CellRecord) -> None:
        """Logs what `mlflow.pyfunc.load_model` needs; cells on raw frames, or whose store is elsewhere, have none."""
        cell = record.cell
        place = self.workspace.store_path(cell.corpus, cell.store)
        weights = record.path / "best.safetensors"
        if why_not_deployable(cell) or not place.is_dir() or weights.stat().st_size > LARGE_ARTIFACT:
            return
        with tempfile.TemporaryDirectory(prefix="crossfold-model-") as folder:
            write_model(record, FeatureStore(place), Path(folder))
            self._client.log_artifacts(run.run_id, folder, MODEL)

    def fail(self, run: CellRun, failure: Failure) -> None:
        """Ends the run as failed; another try takes it up again."""
        tags = {"failure": str(failure.kind), "failure_message": failure.message, "attempt": str(failure.attempt)}
        self._client.log_batch(run.run_id, tags=_tags(tags))
        self._client.set_terminated(run.run_id, "FAILED")

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
                self._remember(cell_id, run.info.run_id)

    def knows(self, cell_id: str) -> bool:
        """Whether a run of the cell is on record here, by the workspace's own list; no store is asked."""
        return cell_id in self._runs

    def _settle_stale(self, experiment: str) -> None:
        # A failed or killed try may have been followed by a good one that its driver did not live to tell of.
        stale = self.cell_runs([experiment], "attributes.status != 'FINISHED'")
        self.remember_all(stale)
        finished = self.workspace.finished()
        for cell_id, found in stale.items():
            if cell_id in finished:
                self.settle(self._reopened(found), self.workspace.read_exactly(cell_id))
            elif found.info.status == "RUNNING":
                self.close(found.info.run_id, "KILLED")
        for run in self._search([experiment], "attributes.status = 'RUNNING'"):
            if run.data.tags.get("kind") == "launch" and run.data.tags.get("workspace") == self._identity:
                self.close(run.info.run_id, "KILLED")

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
        return CellRun(found.info.run_id, {metric.step for metric in history}, SETTLED in found.data.metrics)

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

    def _create(self, sweep: str, name: str, tags: Mapping[str, str]) -> str:
        tags = {key: value[:TAG_LENGTH] for key, value in tags.items()} | {"workspace": self._identity}
        run = self._client.create_run(self._experiment(sweep), tags=tags, run_name=name)
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
                if entry["store"] == self._store:
                    runs[entry["cell"]] = entry["run"]
        return runs

    def _remember(self, cell_id: str, run_id: str) -> None:
        self._runs[cell_id] = run_id
        with (self.workspace.root / RUNS_FILE).open("a") as file:
            # The leading line break ends the half line of a driver that was killed.
            file.write("\n" + json.dumps({"cell": cell_id, "run": run_id, "store": self._store}))


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
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }
    os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)
