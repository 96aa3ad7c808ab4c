"""Logs a launch to MLflow while it runs. MLflow is a mirror: losing it loses nothing."""

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure
from crossfold.platform.edge.tracking.records import LiveCell, Records, milliseconds
from crossfold.platform.edge.tracking.writer import RunWriter
from crossfold.platform.workspace import launches
from crossfold.platform.workspace.launches import Launch, Unfinished
from crossfold.platform.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 30.0
"""Rest after two failures in a row: a server that does not answer is not asked for each cell."""

PATIENCE_SECONDS = 60.0
"""How long closing waits for a writer that makes no progress."""


class MlflowTracker:
    """Implements `scheduling.Tracker`. Its methods only put events; one thread writes them every few seconds."""

    def __init__(self, workspace: Workspace, uri: str | None = None, *, flush_seconds: float = 5.0) -> None:
        """`uri`: else `MLFLOW_TRACKING_URI`, else the database in the workspace."""
        self.troubles = 0
        """Calls to MLflow that failed. What they would have written is in the workspace; see `sync`."""
        self._workspace, self._writer, self._flush_seconds = workspace, RunWriter(workspace, uri), flush_seconds
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._closing, self._progress = threading.Event(), time.monotonic()
        self._thread: threading.Thread | None = None
        # What follows belongs to the writing thread while there is one.
        self._launch, self._opened = Launch("", 0, ()), False
        self._asked: dict[str, None] = {}
        self._cells: dict[str, LiveCell] = {}
        self._in_a_row, self._paused_until = 0, 0.0

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """Opens the experiment and a parent run, in the background."""
        self.close()
        self._asked = dict.fromkeys(cell.cell_id for cell in cells)
        self._launch, self._opened = Launch(sweep, len(cells), tuple(self._asked)), False
        self._save_launch()
        # It stays behind where the driver is killed or cannot reach MLflow.
        marker = pending_marker(self._workspace, sweep)
        with contextlib.suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        self._attempt("the runs of the workspace could not be read", self._writer.recall)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def started(self, cell: Cell, attempt: int) -> None:
        """The cell runs; its run appears with the next flush."""
        self._events.put((cell, "running", None, (), milliseconds(utc_now())))

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """An epoch of the cell has ended."""
        metrics = {"learning_rate": report.learning_rate, "train_loss": report.train_loss}
        metrics |= {f"selection_ccc_{target}": value for target, value in report.ccc.items()}
        self._events.put((cell, "running", None, {report.epoch: metrics}))

    def finished(self, cell: Cell) -> None:
        """The cell lies in the workspace."""
        self._events.put((cell, "finished"))

    def failed(self, cell: Cell, failure: Failure) -> None:
        """An attempt at the cell has failed."""
        self._events.put((cell, "failed", failure))

    def catch_up(self, cells: Iterable[Cell]) -> None:
        """Logs finished cells that have no run yet: an earlier driver was killed before it logged them."""
        for cell in cells:
            if not self._writer.knows(cell.cell_id):
                self.finished(cell)

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

    def _write(self) -> None:
        # Here, as MLflow takes seconds to import, in which the workers start.
        self._attempt("the tracking store could not be opened", self._writer.prepare)
        while not self._closing.wait(self._flush_seconds):
            self._flush()
        self._paused_until = 0.0
        self._flush(last=True)
        self._save_launch(ended=utc_now())
        if self._opened:
            self._attempt("the readings of the machine could not be ended", self._writer.stop_watching)
            self._attempt("the launch could not be ended", functools.partial(self._write_run, self._launch.launch_id))
        if not self.troubles:
            pending_marker(self._workspace, self._launch.sweep).unlink(missing_ok=True)

    def _flush(self, *, last: bool = False) -> None:
        while not self._events.empty():
            self._take(*self._events.get())
        for live in self._cells.values():
            if last and live.state == "running":
                # A cell that has not ended by now was interrupted.
                live.state, live.changed = "stopped", True
        changed = {cell_id: live for cell_id, live in self._cells.items() if live.changed}
        with contextlib.suppress(OSError, ValueError, KeyError):
            self._save_notes(changed)
        self._opened = self._opened or self._attempt("the launch could not be written", self._open_launch)
        for cell_id, live in changed.items() if self._opened else ():
            problem, step = f"{live.note.cell.label} could not be written", functools.partial(self._write_run, cell_id)
            live.changed = not self._attempt(problem, step)
            if not live.changed and live.state != "running":
                del self._cells[cell_id]

    def _take(
        self, cell: Cell, state: Any, failure: Failure | None = None, epochs: Any = (), began: int | None = None
    ) -> None:
        """Takes in one event."""
        known = self._cells.get(cell.cell_id)
        before = known.note if known else launches.unfinished_cell(self._workspace, cell.cell_id)
        note = Unfinished(cell, before.sweep if before else self._launch.sweep, self._launch.launch_id)
        if state != "finished":
            # Of a finished cell the workspace has the curve, so an outage of MLflow does not fill the memory.
            note = replace(note, epochs={**(before.epochs if before else {}), **dict(epochs)})
            self._asked[cell.cell_id] = None
        began = known.began if known and known.began else began
        self._cells[cell.cell_id] = LiveCell(note, state, failure, began=began)

    def _save_notes(self, changed: Mapping[str, LiveCell]) -> None:
        """Keeps in the workspace what else only MLflow would know: who ran what, and epochs of unfinished cells."""
        if len(self._asked) > len(self._launch.cells):
            self._save_launch(cells=tuple(self._asked))
        finished = [cell_id for cell_id, live in changed.items() if live.state == "finished"]
        if orphaned := self._records.orphaned(finished):
            launches.assign_launches(self._workspace, orphaned)
            self._save_launch()
        launches.delete_unfinished(self._workspace, finished)
        for cell_id in changed.keys() - finished:
            launches.save_unfinished(self._workspace, changed[cell_id].note)

    def _write_run(self, key: str) -> None:
        self._writer.write(self._records.find(key))

    def _open_launch(self) -> None:
        self._writer.prepare()
        self._write_run(self._launch.launch_id)
        # An earlier driver was killed, or did not reach MLflow: the records say how these runs ended.
        for key, found in self._writer.find_runs("attributes.status != 'FINISHED'").items():
            if found.data.tags.get("sweep") == self._launch.sweep and "trial" not in found.data.tags:
                self._attempt("an earlier run could not be ended", functools.partial(self._write_run, key))
        watch = functools.partial(self._writer.watch_machine, self._launch.launch_id)
        self._attempt("the machine could not be watched", watch)

    def _save_launch(self, **changes: Any) -> None:
        self._launch = replace(self._launch, **changes)
        with contextlib.suppress(OSError):
            launches.save_launch(self._workspace, self._launch)
        self._records = Records(self._workspace, self._launch, self._cells)

    def _attempt(self, problem: str, step: Callable[[], object]) -> bool:
        """Takes one step and returns whether it succeeded. Failures are counted: a mirror never stops training."""
        if time.monotonic() < self._paused_until:
            return False
        try:
            step()
            self._in_a_row = 0
        except Exception as error:
            self._in_a_row += 1
            if self._in_a_row >= 2:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            self._trouble(f"MLflow: {problem}: {type(error).__name__}: {error}")
        self._progress = time.monotonic()
        return self._in_a_row == 0

    def _trouble(self, message: str) -> None:
        self.troubles += 1
        level = logging.WARNING if self.troubles == 1 else logging.DEBUG
        logger.log(level, "%s (further failures are counted and not shown)", message)


def pending_marker(workspace: Workspace, sweep: str) -> Path:
    """A file that is there while MLflow may lack something of a sweep that the workspace has."""
    marker = workspace.paths.pending_in_mlflow(sweep)
    before = workspace.paths.status / f"{marker.name}.untold"
    if before.exists():
        # Earlier versions kept it there.
        marker.parent.mkdir(parents=True, exist_ok=True)
        before.rename(marker)
    return marker
