"""The tracker that mirrors a launch into MLflow while it runs, and the rebuilding of that mirror from the workspace."""

import contextlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossfold.platform.contracts import Cell, EpochReport, Failure
from crossfold.platform.edge.driver_lease import driver_lock
from crossfold.platform.edge.mlflow_mirror import CellRun, Mirror
from crossfold.platform.results import Workspace

logger = logging.getLogger(__name__)

CELLS_KEPT, EPOCHS_KEPT = 10_000, 1_000
"""Most cells, and epochs of a cell, that wait to be written; `sync` writes what is dropped beyond."""

TRIES = 3
"""How often the writing of one cell is tried."""

PAUSE_SECONDS = 30.0
"""Rest after two troubles in a row: a server that is gone is not asked for each cell."""

PATIENCE_SECONDS = 60.0
"""How long closing waits for a writer that makes no progress."""


@dataclass
class _Pending:
    """What happened to a cell since the last flush."""

    cell: Cell
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    finished: bool = False
    failure: Failure | None = None
    tries: int = 0

    def add(self, epoch: int, metrics: dict[str, float]) -> None:
        self.epochs[epoch] = metrics
        if len(self.epochs) > EPOCHS_KEPT:
            del self.epochs[next(iter(self.epochs))]


class MlflowTracker:
    """Implements `tracking.Tracker`. Calls only take notes; one thread writes them every few seconds."""

    def __init__(self, workspace: Workspace, uri: str | None = None, *, flush_seconds: float = 5.0) -> None:
        """`uri`: else `MLFLOW_TRACKING_URI`, else the database in the workspace."""
        self.troubles = 0
        """Calls to MLflow that failed. What they would have written is in the workspace; see `sync`."""
        self._mirror = Mirror(workspace, uri)
        self._workspace = workspace
        self._flush_seconds = flush_seconds
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        self._open: dict[str, CellRun] = {}
        self._sweep, self._cells, self._parent = "", 0, ""
        self._unwatch: Callable[[], None] | None = None
        self._in_a_row, self._paused_until, self._progress = 0, 0.0, time.monotonic()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def prepare(self) -> None:
        """Creates and migrates a local database. Done once, before anything else may touch it."""
        with self._kept("the tracking store could not be opened"):
            self._mirror.prepare()

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """Opens the experiment and a parent run, in the background."""
        self.close()
        self.prepare()
        self._sweep, self._cells, self._parent, self._unwatch = sweep, len(cells), "", None
        # Left behind by a driver that does not come to its end, or not to MLflow's.
        with contextlib.suppress(OSError):
            untold(self._workspace, sweep).parent.mkdir(parents=True, exist_ok=True)
            untold(self._workspace, sweep).touch()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def started(self, cell: Cell, attempt: int) -> None:
        """Notes that the cell runs; its run appears with the next flush."""
        with self._note(cell) as pending:
            pending.failure = None

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """Notes the epoch's metrics."""
        scores = {f"selection_ccc_{target}": value for target, value in report.ccc.items()}
        metrics = {"learning_rate": report.learning_rate, "train_loss": report.train_loss} | scores
        with self._note(cell) as pending:
            pending.add(report.epoch, metrics)

    def finished(self, cell: Cell) -> None:
        """Notes that the folder of the cell can be mirrored."""
        with self._note(cell) as pending:
            pending.finished = True

    def catch_up(self, cells: Iterable[Cell]) -> None:
        """Notes finished cells that have no run yet: an earlier driver was killed before it told of them."""
        for cell in cells:
            if not self._mirror.knows(cell.cell_id):
                self.finished(cell)

    def failed(self, cell: Cell, failure: Failure) -> None:
        """Notes the failed try."""
        with self._note(cell) as pending:
            pending.failure = failure

    def close(self) -> None:
        """Writes what is pending and ends the runs of this launch. Waits only while the writer makes progress."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._progress = time.monotonic()
        self._closing.set()
        while thread.is_alive() and time.monotonic() - self._progress < PATIENCE_SECONDS:
            thread.join(0.1)
        if thread.is_alive():
            self._trouble("MLflow does not answer; `crossfold mlflow sync` writes the rest later")
        elif not self.troubles and not self._pending:
            untold(self._workspace, self._sweep).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _note(self, cell: Cell) -> Iterator[_Pending]:
        with self._lock:
            full = len(self._pending) >= CELLS_KEPT and cell.cell_id not in self._pending
            yield _Pending(cell) if full else self._pending.setdefault(cell.cell_id, _Pending(cell))

    def _write(self) -> None:
        while not self._closing.wait(self._flush_seconds):
            self._flush()
        self._paused_until = 0.0
        self._flush()
        for cell_id in list(self._open):
            with self._kept("a run could not be ended"):
                self._mirror.close(self._open.pop(cell_id).run_id, "KILLED")
            if self._resting():
                return
        if self._unwatch is not None:
            with self._kept("the readings of the machine could not be ended"):
                self._unwatch()
        if self._parent:
            with self._kept("the launch could not be ended"):
                self._mirror.close(self._parent, "FINISHED")

    def _flush(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, {}
        if not self._resting() and not self._parent:
            with self._kept("the launch could not be written"):
                self._mirror.prepare()
                self._parent = self._mirror.open_launch(self._sweep, self._cells)
                self._unwatch = self._mirror.watch_machine(self._parent)
        for pending in batch.values():
            written = False
            if self._parent and not self._resting():
                with self._kept(f"{pending.cell.label} could not be written"):
                    self._write_cell(pending)
                    written = True
                pending.tries += not written
            if not written:
                self._put_back(pending)

    def _write_cell(self, pending: _Pending) -> None:
        cell_id = pending.cell.cell_id
        run = self._open.get(cell_id)
        if run is None:
            run = self._open[cell_id] = self._mirror.attach(pending.cell, self._sweep, self._parent)
        if pending.finished:
            record = self._workspace.read_exactly(cell_id)
            self._mirror.settle(run, record)
            del self._open[cell_id]
            return
        self._mirror.write_epochs(run, pending.epochs)
        if pending.failure is not None:
            self._mirror.fail(run, pending.failure)
            del self._open[cell_id]

    def _put_back(self, old: _Pending) -> None:
        """Keeps what could not be written, behind what came since."""
        if old.tries >= TRIES:
            return
        with self._note(old.cell) as new:
            new.epochs = old.epochs | new.epochs
            new.finished = old.finished or new.finished
            new.failure = new.failure or old.failure
            new.tries = old.tries

    def _resting(self) -> bool:
        return time.monotonic() < self._paused_until

    @contextlib.contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        """Keeps any trouble: a mirror never stops training."""
        try:
            yield
            self._in_a_row = 0
        except Exception as error:
            self._in_a_row += 1
            if self._in_a_row >= 2:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            self._trouble(f"MLflow: {what}: {type(error).__name__}: {error}")
        self._progress = time.monotonic()

    def _trouble(self, message: str) -> None:
        self.troubles += 1
        level = logging.WARNING if self.troubles == 1 else logging.DEBUG
        logger.log(level, "%s (further troubles are counted, not shown)", message)


def untold(workspace: Workspace, sweep: str) -> Path:
    """A file that is there while MLflow may lack something of a sweep that the workspace has."""
    return workspace.root / "status" / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', sweep)}.untold"


@dataclass(frozen=True)
class SyncSummary:
    """What `sync` found and wrote."""

    cells: int
    """Finished cells of the workspace."""
    created: int
    """Runs that were missing."""
    completed: int
    """Runs that were there but not complete."""

    def __str__(self) -> str:
        present = self.cells - self.created - self.completed
        return f"{self.cells} finished cells: {present} present, {self.completed} completed, {self.created} created"


def sync(workspace: Workspace, uri: str | None = None) -> SyncSummary:
    """Brings MLflow to what the workspace holds; what is complete is left alone. Here troubles are raised.

    A cell of several sweeps has its run in the experiment that first ran it; a rebuilt one in the first by name.
    Failed tries are told by the ledger of the workspace only.
    """
    with driver_lock(workspace):
        mirror = Mirror(workspace, uri)
        mirror.prepare()
        runs = mirror.cell_runs()
        mirror.remember_all(runs)
        cells = sorted(workspace.finished())
        complete = {cell_id for cell_id, run in runs.items() if run.info.status == "FINISHED"}
        missing = [cell_id for cell_id in cells if cell_id not in complete]
        for sweep, members in _by_sweep(workspace, missing).items():
            _rebuild(mirror, sweep, members)
    completed = sum(cell_id in runs for cell_id in missing)
    return SyncSummary(len(cells), len(missing) - completed, completed)


def _rebuild(mirror: Mirror, sweep: str, cells: Sequence[str]) -> None:
    parent = mirror.open_launch(sweep, len(cells))
    for cell_id in cells:
        record = mirror.workspace.read_exactly(cell_id)
        mirror.settle(mirror.attach(record.cell, sweep, parent), record)
    mirror.close(parent, "FINISHED")


def ui_command(workspace: Workspace, port: int, uri: str | None = None) -> list[str]:
    """The command of a local MLflow server with two processes instead of ten.

    Run it with `MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false` and `MLFLOW_DISABLE_TELEMETRY=true`.
    """
    store = Mirror(workspace, uri).uri
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *where]


def _by_sweep(workspace: Workspace, cells: Sequence[str]) -> dict[str, list[str]]:
    """Cells under the name of the first sweep or search that lists them; the rest under `cells`."""
    owner: dict[str, str] = {}
    for folder in (workspace.sweeps, workspace.root / "searches"):
        for path in sorted(folder.glob("*.json")):
            launched = json.loads(path.read_text())
            for cell_id in launched.get("cells", ()):
                owner.setdefault(cell_id, launched["name"])
    grouped: dict[str, list[str]] = {}
    for cell_id in cells:
        grouped.setdefault(owner.get(cell_id, "cells"), []).append(cell_id)
    return grouped
