"""The one writer to MLflow: it brings a run of a tracking store to what the records of the workspace say.

Experiment = sweep, parent run = launch, child run = cell. A cell has one run for ever, found by the tag `cell_id`, so
neither a restart nor a retry makes a second one. Everything here may raise; `tracker` counts what fails.
"""

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.files import temporary_folder, whole_file
from crossfold.platform.core.layout import CELL_FILES, sqlite_path, sqlite_uri
from crossfold.platform.edge.tracking.records import FAILURE_TAGS, Run, curve_epochs, metric_name
from crossfold.platform.edge.tracking.saved_views import VIEW, has_view, scores, widen
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.logged_runs import add_logged_run, logged_runs, store_digest
from crossfold.platform.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

LARGE_ARTIFACT = 16 * 2**20
"""Bytes above which predictions and weights stay in the workspace only."""

WATCH_SECONDS = 10
"""From one reading of the machine to the next."""

BATCH_METRICS, BATCH_PARAMS = 800, 100
PARAM_LENGTH, TAG_LENGTH = 6000, 8000
"""MLflow takes 100 parameters, 100 tags and 1,000 values of any kind in one call, and so many characters a value."""

PARENT = "mlflow.parentRunId"

KEY_TAGS = ("cell_id", "launch", "trial")
"""The tag that holds the key of a run, by its kind: a cell, a launch, or a search or trial."""
KIND = "mlflow.experimentKind"
EXPERIMENT_TAGS = {
    # Training, with metrics and charts, and not traces of language models.
    KIND: "custom_model_development",
    "mlflow.note.content": "A sweep of Crossfold. Each parent run is one launch of it, and each child run is one cell: "
    "one system, fold, target and seed. Tables with intervals and verdicts: `crossfold report`.",
}

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # Standard output is ours: lines of progress, or JSON.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that does not answer is given up soon.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

_MAKING = threading.Lock()
"""Sweeps of one launch have a writer each; a database that a second one made would replace that of the first."""


class RunWriter:
    """Writes to one MLflow tracking store for one workspace."""

    def __init__(self, workspace: Workspace, uri: str | None = None) -> None:
        """`uri`: else `MLFLOW_TRACKING_URI`, else the database in the workspace."""
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or workspace.paths.mlflow_uri
        self.workspace = workspace
        # All runs of the workspace's own database are its runs, also after somebody moved the folder.
        self._own = self.uri == workspace.paths.mlflow_uri
        self._identity = hashlib.sha256(str(workspace).encode()).hexdigest()[:12]
        self._artifacts = workspace.paths.mlflow_artifacts.as_uri()
        self._ids: dict[str, str] = {}
        self._experiment_of: dict[str, str] = {}
        self._found: dict[str, Any] = {}
        self._found_all = False
        self._open: dict[str, tuple[str, Run]] = {}
        self._client: Any = None
        self._monitor: Any = None
        self._columns: dict[str, set[str]] = {}
        self._stray: Path | None = None

    def recall(self) -> None:
        """Reads which runs the workspace lists; MLflow is neither asked nor imported."""
        store = store_digest(self.uri)
        for entry in logged_runs(self.workspace):
            self._experiment_of.setdefault(entry["cell"], entry.get("sweep", ""))
            if entry.get("store") == store:
                self._ids[entry["cell"]] = entry["run"]

    def prepare(self) -> None:
        """Opens the store; a local database is created, migrated, and switched to write-ahead logging."""
        if self._client is not None:
            return
        self.workspace.root.mkdir(parents=True, exist_ok=True)
        if self.uri.startswith("sqlite:///"):
            # MLflow makes a folder of the address as it is written, with `%25` for the `%` of the path.
            folder = Path(self.uri.removeprefix("sqlite:///")).parent
            self._stray = None if folder == sqlite_path(self.uri).parent or folder.exists() else folder
            _make_database(sqlite_path(self.uri))
        if self._own:
            _move_artifacts(self.workspace.paths.mlflow, self._artifacts)
        self.recall()
        client = _quiet_client(self.uri)
        for sweep in sorted(set(self._experiment_of.values())):
            _restore(client, client.get_experiment_by_name(sweep) if sweep else None)
        self._client = client
        self._remove_stray()

    def pages(self, most: int) -> dict[str, str]:
        """Where MLflow shows the latest experiments that Crossfold made, by name: with columns of metrics, if any.

        MLflow 3.17 begins with its pages for language models, whatever kind an experiment has, unless the address says
        that it is of training.
        """
        ours = [each for each in self._client.search_experiments() if KIND in each.tags][:most]
        views = {each.name: f"&viewStateShareKey={VIEW}" if has_view(self._client, each) else "" for each in ours}
        return {
            each.name: f"/#/experiments/{each.experiment_id}/runs?workflowType=machine_learning{views[each.name]}"
            for each in ours
        }

    def knows(self, cell_id: str) -> bool:
        """Whether the workspace lists a run of the cell; the store is not asked."""
        return cell_id in self._ids

    def find_runs(self, where: str = "") -> dict[str, Any]:
        """Runs of this workspace's cells and launches by identity, of several the oldest; `write` uses what is found.

        where: a condition in MLflow's own words.
        """
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        found: dict[str, Any] = {}
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(experiments, where, max_results=1000, page_token=token or None)
            for run in page:
                key = next((run.data.tags[tag] for tag in KEY_TAGS if tag in run.data.tags), "")
                ours = self._own or run.data.tags.get("workspace") == self._identity
                if key and (ours or self._ids.get(key) == run.info.run_id):
                    found[key] = min(found.get(key, run), run, key=lambda run: run.info.start_time)
            token = page.token or None
        self._found |= found
        self._found_all |= not where
        return found

    def write(self, run: Run) -> Literal["present", "completed", "created"]:
        """Brings the store to hold this run; a second call changes nothing."""
        # A run that could not be written is read again the next time: part of it may have arrived.
        held, found = self._open.pop(run.key, None), None
        if held is None:
            found = self._find(run)
            if found is not None and self._is_complete(found, run):
                return "present"
        tags = {**run.tags, PARENT: self._id_of(run.parent)} if run.parent else dict(run.tags)
        epochs = curve_epochs(run.record) if run.record else run.epochs
        epochs = {step: {metric_name(key): value for key, value in values.items()} for step, values in epochs.items()}
        final = {metric_name(key): value for key, value in run.final.items()}
        tags |= {f"metric.{metric_name(key)}": key for key in run.final if metric_name(key) != key}
        tags = {key: value[:TAG_LENGTH] for key, value in tags.items()}
        wanted = replace(run, tags=tags, final=final, epochs=epochs)
        run_id, before = held or (self._create(wanted) if found is None else self._read(found, wanted))
        self._log(run_id, before, wanted)
        # The end comes last: a run that has it holds everything else.
        if run.record is not None:
            self._log_files(run_id, run.record)
        if run.status == "RUNNING":
            if found is not None:
                self._client.update_run(run_id, status="RUNNING")
            final, epochs = {**before.final, **wanted.final}, {**before.epochs, **epochs}
            self._open[run.key] = (run_id, replace(wanted, final=final, epochs=epochs))
        else:
            self._client.set_terminated(run_id, run.status, end_time=run.ended)
            self._widen_view(wanted)
        return "created" if held is None and found is None else "completed"

    def watch_machine(self, launch_id: str) -> None:
        """Logs processor, memory, disk, network and GPU of this machine into a launch, until `stop_watching`."""
        from mlflow.system_metrics import system_metrics_monitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        library: Any = system_metrics_monitor
        run_id, every = self._ids[launch_id], WATCH_SECONDS
        self._monitor = library.SystemMetricsMonitor(run_id, sampling_interval=every, tracking_uri=self.uri)
        self._monitor.start()

    def stop_watching(self) -> None:
        """Ends the readings of the machine."""
        if self._monitor is not None:
            self._monitor.finish()
        self._monitor = None
        self._remove_stray()

    def _remove_stray(self) -> None:
        if self._stray is not None:
            with contextlib.suppress(OSError):
                self._stray.rmdir()

    def _find(self, run: Run) -> Any:
        """The run as the store holds it; None if it holds none."""
        # A search takes longer the more runs there are, so that one for each cell of a large sweep would add up.
        absent = run.key not in self._ids and (run.fresh or self._found_all)
        if run.key not in self._found and not absent:
            self.find_runs(f"tags.{next((tag for tag in KEY_TAGS if tag in run.tags), 'cell_id')} = '{run.key}'")
        found = self._found.pop(run.key, None)
        if found is not None:
            self._remember(run, found.info.run_id, found.data.tags.get("sweep", ""))
        return found

    def _is_complete(self, found: Any, run: Run) -> bool:
        """Whether a run has ended as it should; its end is written last."""
        ended = found.info.status == run.status != "RUNNING" and run.ended in (None, found.info.end_time)
        # A search that goes on may have another winner.
        changed = "trial" in run.tags and any(found.data.tags.get(key) != value for key, value in run.tags.items())
        return ended and not changed and (run.parent is None or found.data.tags.get(PARENT) == self._id_of(run.parent))

    def _id_of(self, launch: Run) -> str:
        if launch.key not in self._ids:
            self.write(launch)
        return self._ids[launch.key]

    def _read(self, found: Any, run: Run) -> tuple[str, Run]:
        """What a run of the store holds; of epochs only their steps."""
        history = self._client.get_metric_history(found.info.run_id, "train_loss")
        tags, params, final = found.data.tags, found.data.params, found.data.metrics
        epochs: dict[int, dict[str, float]] = {metric.step: {} for metric in history}
        return found.info.run_id, replace(run, tags=tags, params=params, final=final, epochs=epochs)

    def _create(self, run: Run) -> tuple[str, Run]:
        # A rebuilt run lies in the experiment in which the first one lay, whichever store that was in.
        sweep = self._experiment_of.get(run.key) or run.experiment
        tags = {**run.tags, "sweep": sweep, "workspace": self._identity}
        tags |= {"mlflow.source.name": "crossfold", "mlflow.source.type": "LOCAL"}
        run_id: str = self._client.create_run(self._experiment(sweep), run.began, tags, run.name).info.run_id
        if run.dataset:
            self._client.log_inputs(run_id, [_dataset(*run.dataset)])
        self._remember(run, run_id, sweep)
        return run_id, replace(run, tags=tags, params={}, final={}, epochs={})

    def _experiment(self, sweep: str) -> str:
        """The experiment of a sweep, which is made where there is none; one of an earlier version gets its kind."""
        found = _restore(self._client, self._client.get_experiment_by_name(sweep))
        if found is None:
            remote = self.uri.startswith(("http://", "https://", "databricks"))
            made: str = self._client.create_experiment(sweep, None if remote else self._artifacts, EXPERIMENT_TAGS)
            return made
        for key, value in EXPERIMENT_TAGS.items() if KIND not in found.tags else ():
            self._client.set_experiment_tag(found.experiment_id, key, value)
        return str(found.experiment_id)

    def _widen_view(self, run: Run) -> None:
        """Shows the scores of a finished run as columns, once for all runs that have the same."""
        sweep = self._experiment_of.get(run.key) or run.experiment
        shown, names = self._columns.setdefault(sweep, set()), set(scores(run.tags.get("kind", ""), run.final))
        if not names <= shown and (experiment := self._client.get_experiment_by_name(sweep)) is not None:
            widen(self._client, experiment, run.tags, run.final, run.params)
            shown |= names

    def _remember(self, run: Run, run_id: str, sweep: str) -> None:
        if "cell_id" in run.tags and self._ids.get(run.key) != run_id:
            add_logged_run(self.workspace, run.key, run_id, self.uri, sweep)
        self._ids[run.key] = run_id

    def _log(self, run_id: str, before: Run, wanted: Run) -> None:
        """Logs what the run lacks in as few calls as MLflow allows, and never splits an epoch over two of them."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        fresh = {step: wanted.epochs[step] for step in sorted(wanted.epochs.keys() - before.epochs.keys())}
        # A cell that was computed once more has other times; MLflow shows the last value.
        fresh[0] = {key: value for key, value in wanted.final.items() if before.final.get(key) != value}
        metrics = [[Metric(key, value, now, step) for key, value in fresh[step].items()] for step in fresh]
        params = [Param(key, wanted.params[key][:PARAM_LENGTH]) for key in wanted.params.keys() - before.params.keys()]
        tags = [RunTag(key, value) for key, value in wanted.tags.items() if before.tags.get(key) != value]
        while params or tags or any(metrics):
            batch: list[Any] = []
            while metrics and len(batch) + len(metrics[0]) <= BATCH_METRICS:
                batch += metrics.pop(0)
            self._client.log_batch(run_id, batch, params[:BATCH_PARAMS], tags)
            params, tags = params[BATCH_PARAMS:], []
        for key in FAILURE_TAGS & before.tags.keys() - wanted.tags.keys():
            self._client.delete_tag(run_id, key)

    def _log_files(self, run_id: str, record: CellRecord) -> None:
        """Logs the files of a finished cell, and what `mlflow.pyfunc.load_model` needs.

        Cells on raw frames or clips, and those whose store lies elsewhere, have no model.
        """
        # It imports torch, which a launch needs not before its first cell is finished.
        from crossfold.platform.edge.tracking.pyfunc_model import ARTIFACT, write_model
        from crossfold.platform.export.predictor import why_not_deployable

        small = [
            path for path in map(record.file, CELL_FILES) if path.is_file() and path.stat().st_size <= LARGE_ARTIFACT
        ]
        # Not by the client, which keeps what it opens for each of the last 1,024 runs, some 15 KB.
        repository = _artifact_repository(self._client.get_run(run_id).info.artifact_uri, self.uri)
        for path in small:
            repository.log_artifact(str(path))
        store = self.workspace.paths.store(record.cell.corpus, record.cell.store)
        if store.is_dir() and record.file("best.safetensors") in small and not why_not_deployable(record.cell):
            # Not in the system's temporary folder, which may be small: the space here is checked.
            with temporary_folder(self.workspace.root, "deployed-model") as folder:
                write_model(record, FeatureStore(store), folder)
                repository.log_artifacts(str(folder), ARTIFACT)


def _artifact_repository(address: str, uri: str) -> Any:
    """Where the files of a run go, by the address that tracking store `uri` has of it; as MLflow's client opens it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    address = add_databricks_profile_info_to_artifact_uri(address, uri)  # type: ignore[no-untyped-call]
    return get_artifact_repository(address, tracking_uri=uri)


def _dataset(corpus: str, store: str) -> Any:
    """The feature store of a cell as an input of its run. MLflow takes up to 36 characters of a hash."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"corpus": corpus, "store": store})
    return DatasetInput(
        Dataset(corpus, store[:36], "crossfold feature store", source), [InputTag("mlflow.data.context", "training")]
    )


def _restore(client: Any, experiment: Any) -> Any:
    """The experiment; one that a user deleted in MLflow's pages is restored, since MLflow keeps its name for ever."""
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        logger.warning("MLflow: experiment %s had been deleted there, and is restored", experiment.name)
    return experiment


def _make_database(path: Path) -> None:
    """Creates and migrates a database in another folder, so that one that is in place is whole."""
    with _MAKING:
        if path.is_file():
            return
        with whole_file(path) as draft:
            _quiet_client(sqlite_uri(draft)).search_experiments(max_results=1)
            with contextlib.closing(sqlite3.connect(draft)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                database.execute("PRAGMA journal_mode=delete")
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=wal")


def _move_artifacts(database: Path, place: str) -> None:
    """MLflow keeps absolute addresses of artifacts; in a workspace that somebody moved they follow it."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        known = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in known:
            if old.endswith(place[place.rindex("/") :]) and old != place:
                connection.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (place, old)
                )
                connection.execute(
                    "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", (f"{old}/", f"{place}/")
                )


def _quiet_client(uri: str) -> Any:
    """An MLflow client that prints nothing and does not wait long."""
    os.environ.update({key: value for key, value in SETTINGS.items() if key not in os.environ})
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs the stack of each error of the database that it raises, such as that of a full disk.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)
