"""The tracker that mirrors a launch into MLflow while it runs, and the rebuilding of that mirror from the workspace."""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure
from crossfold.platform.edge.tracking.writer import CellRun, Mirror
from crossfold.platform.workspace.launches import (
    Launch,
    Unfinished,
    delete_unfinished,
    save_launch,
    save_unfinished,
    unfinished_cell,
)
from crossfold.platform.workspace.workspace import Workspace

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
    began: bool = False
    """Whether this launch works on it, instead of telling what an earlier one did."""

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
        self._notes: dict[str, Unfinished] = {}
        self._launch, self._parent = Launch("", 0, ()), ""
        self._asked: set[str] = set()
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
        self._launch = Launch(sweep, len(cells), tuple(cell.cell_id for cell in cells))
        self._asked = set(self._launch.cells)
        self._parent, self._unwatch = "", None
        # Left behind by a driver that does not come to its end, or not to MLflow's.
        with contextlib.suppress(OSError):
            save_launch(self._workspace, self._launch)
            self._mirror.look_up_launches()
            pending_marker(self._workspace, sweep).parent.mkdir(parents=True, exist_ok=True)
            pending_marker(self._workspace, sweep).touch()
        self.prepare()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def started(self, cell: Cell, attempt: int) -> None:
        """Notes that the cell runs; its run appears with the next flush."""
        with self._note(cell) as pending:
            pending.failure, pending.began = None, True

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
            pending_marker(self._workspace, self._launch.sweep).unlink(missing_ok=True)

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
        self._launch = replace(self._launch, ended=utc_now())
        with contextlib.suppress(OSError):
            save_launch(self._workspace, self._launch)
        for cell_id in list(self._open):
            with self._kept("a run could not be ended"):
                self._mirror.leave(cell_id, self._open.pop(cell_id).run_id)
            if self._resting():
                return
        if self._unwatch is not None:
            with self._kept("the readings of the machine could not be ended"):
                self._unwatch()
        if self._parent:
            with self._kept("the launch could not be ended"):
                self._mirror.close_launch(self._launch)

    def _flush(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, {}
        with self._kept("what a rebuilt mirror needs could not be kept"):
            self._write_down(batch.values())
        if not self._resting() and not self._parent:
            with self._kept("the launch could not be written"):
                self._mirror.prepare()
                self._parent = self._mirror.open_launch(self._launch)
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
            run = self._open[cell_id] = self._mirror.attach(pending.cell, self._launch)
        if pending.finished:
            record = self._workspace.read_exactly(cell_id)
            self._mirror.settle(run, record)
            del self._open[cell_id]
            return
        self._mirror.write_epochs(run, pending.epochs)
        if pending.failure is not None:
            self._mirror.fail(run, cell_id, pending.failure)
            del self._open[cell_id]

    def _write_down(self, batch: Iterable[_Pending]) -> None:
        """Keeps in the workspace what else only MLflow would know: who ran what, and epochs of unfinished cells."""
        with contextlib.suppress(OSError):
            new = tuple(told.cell.cell_id for told in batch if told.began and told.cell.cell_id not in self._asked)
            if new:
                self._asked.update(new)
                self._launch = replace(self._launch, cells=self._launch.cells + new)
                save_launch(self._workspace, self._launch)
                self._mirror.look_up_launches()
            self._launch = self._mirror.adopt(self._launch, (told.cell.cell_id for told in batch if told.finished))
            for told in batch:
                cell_id = told.cell.cell_id
                if told.finished:
                    self._notes.pop(cell_id, None)
                    delete_unfinished(self._workspace, [cell_id])
                    continue
                before = self._notes.get(cell_id) or unfinished_cell(self._workspace, cell_id)
                sweep, epochs = (before.sweep, before.epochs) if before else (self._launch.sweep, {})
                self._notes[cell_id] = Unfinished(told.cell, sweep, self._launch.launch_id, {**epochs, **told.epochs})
                save_unfinished(self._workspace, self._notes[cell_id])

    def _put_back(self, old: _Pending) -> None:
        """Keeps what could not be written, behind what came since."""
        if old.tries >= TRIES:
            return
        with self._note(old.cell) as new:
            new.epochs = old.epochs | new.epochs
            new.finished = old.finished or new.finished
            new.failure, new.began = new.failure or old.failure, old.began or new.began
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


def pending_marker(workspace: Workspace, sweep: str) -> Path:
    """A file that is there while MLflow may lack something of a sweep that the workspace has."""
    return workspace.root / "status" / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', sweep)}.untold"
