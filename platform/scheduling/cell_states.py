"""What becomes of each submitted cell: which one runs next, which one runs again, and how it ends.

`CellQueue` says who runs what; here nothing is known of workers but the rank that an event names.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass
from crossfold.platform.scheduling.events import EVENT_LIMIT, Event, Outbox, State
from crossfold.platform.workspace.disk_space import DiskGate

RETRIED = frozenset({FailureClass.INFRA, FailureClass.OOM})
"""The same cell may succeed elsewhere or later; every other failure would only repeat itself."""

MAX_INTERRUPTIONS = 10
"""Interruptions in a row, without a new epoch between them, after which a cell is suspected after all."""


@dataclass
class CellState:
    """A submitted cell and its attempts so far."""

    cell_id: str
    cell: str
    """As JSON."""
    label: str
    epoch_seconds: float = 0.0
    """Forecast of one epoch, or the longest so far; 0 if neither is known."""
    state: State = "queued"
    attempt: int = 0
    consecutive_failures: int = 0
    """Attempts lost in a row without an epoch that no attempt had reached before."""
    interruptions: int = 0
    """Attempts that ended in between through no fault of their own."""
    furthest_epoch: int = -1
    cancelling: bool = False
    resubmitted: bool = False
    """Submitted again while its cancellation was under way."""
    report: EpochReport | None = None
    best_by_epoch: dict[int, float] = field(default_factory=dict)
    """The best CCC up to each epoch that was reported."""
    message: str = ""
    rank: int = -1
    """Of the worker that runs it."""
    heard: float = 0.0
    """When that worker sent its last heartbeat."""
    moved: float = 0.0
    """When the attempt began, or its last epoch ended."""

    def describe(self) -> dict[str, Any]:
        """State, epochs and CCC as plain data."""
        report = self.report
        return {
            "state": self.state,
            "epoch": report.epoch if report else 0,
            "epochs": report.epochs if report else 0,
            "ccc": dict(report.ccc) if report else {},
            "best_by_epoch": dict(self.best_by_epoch),
            "message": self.message,
        }


class CellStates:
    """All submitted cells. Each ends exactly once: done, failed or cancelled.

    An attempt that is lost, or fails for want of memory, is repeated until `max_attempts` attempts in a row brought no
    new epoch. The last of these runs while nothing else does: a cell that kills its worker takes the attempts of its
    neighbours with it, and when it runs alone only the guilty cell can be lost.
    """

    def __init__(self, max_attempts: int, disk: DiskGate, event_limit: int = EVENT_LIMIT) -> None:
        """`disk`: learns of each failure, so that no cell starts on a disk that is full."""
        self.cells: dict[str, CellState] = {}
        self.running: dict[str, CellState] = {}
        self.waiting: OrderedDict[str, CellState] = OrderedDict()
        self.outbox = Outbox(event_limit)
        self._max_attempts = max_attempts
        self._disk = disk

    def submit(self, text: str, epoch_seconds: Mapping[str, float]) -> None:
        """Adds a cell at the end. A known cell is left alone, unless it was cancelled: then it runs after all."""
        cell = Cell.model_validate_json(text)
        known = self.cells.get(cell.cell_id)
        if known is None:
            known = self.cells[cell.cell_id] = CellState(
                cell.cell_id, text, cell.label, epoch_seconds.get(cell.cell_id, 0.0)
            )
        elif known.state == "running" and known.cancelling:
            # Its attempt has not ended yet; when it has, the cell is queued again.
            known.resubmitted = True
            return
        elif known.state != "cancelled":
            return
        self._queue_anew(known)

    def cancel(self, cell: CellState) -> None:
        """Cancels a waiting cell at once, and a running one when it ends."""
        cell.resubmitted = False
        if cell.state == "queued":
            self._end(cell, "cancelled")
        elif cell.state == "running":
            cell.cancelling = True

    def next(self) -> CellState | None:
        """The cell that should start now, if any; see the class for the suspected ones."""
        if any(self._suspected(cell) for cell in self.running.values()):
            # A suspected cell runs alone until it has ended.
            return None
        found = next((cell for cell in self.waiting.values() if not self._suspected(cell)), None)
        if found is None and self.waiting and not self.running:
            found = next(iter(self.waiting.values()))
        return found

    def start(self, cell: CellState, rank: int, now: float) -> None:
        """A worker takes the cell."""
        del self.waiting[cell.cell_id]
        self.running[cell.cell_id] = cell
        cell.state, cell.attempt, cell.message = "running", cell.attempt + 1, ""
        cell.rank, cell.heard, cell.moved = rank, now, now
        self.outbox.put(Event("started", cell.cell_id, cell.attempt, rank))

    def epoch(self, cell: CellState, report: EpochReport) -> None:
        """A running cell ended an epoch; a new epoch shows that earlier failures were not its fault."""
        if report.epoch > cell.furthest_epoch:
            cell.furthest_epoch, cell.consecutive_failures, cell.interruptions = report.epoch, 0, 0
        cell.report = report
        cell.best_by_epoch[report.epoch] = report.best_ccc
        self.outbox.put(Event("epoch", cell.cell_id, cell.attempt, cell.rank, report=report))

    def finish(self, cell: CellState, seconds: float) -> None:
        """The cell lies in the workspace."""
        self._end(cell, "done", seconds=seconds)

    def stop(self, cell: CellState, seconds: float = 0.0) -> None:
        """A cancelled cell has ended; one that was submitted again meanwhile is queued again."""
        resubmitted = cell.resubmitted
        self._end(cell, "cancelled", seconds=seconds)
        if resubmitted:
            self._queue_anew(cell)

    def lose(self, cell: CellState, why: str, kind: FailureClass = FailureClass.INFRA) -> None:
        """An attempt ended, and its worker could not report how."""
        if cell.cancelling:
            self.stop(cell)
        else:
            failure = Failure(cell.cell_id, cell.label, kind, cell.attempt, why, "", utc_now())
            self.fail(cell, failure, recorded=False)

    def interrupt(self, cell: CellState) -> None:
        """An attempt ended through no fault of its cell."""
        cell.interruptions += 1
        if cell.cancelling:
            self.stop(cell)
        elif cell.interruptions > MAX_INTERRUPTIONS:
            self.lose(cell, f"its worker ended {cell.interruptions} times before an epoch did")
        else:
            self.outbox.put(Event("requeued", cell.cell_id, cell.attempt, cell.rank))
            self._enqueue(cell, first=True)

    def fail(self, cell: CellState, failure: Failure, *, recorded: bool, seconds: float = 0.0) -> None:
        """An attempt failed: the cell is queued again, first in line, or given up."""
        cell.consecutive_failures += 1
        cell.message = failure.message
        self._disk.note_failure(failure)
        if failure.kind not in RETRIED or cell.consecutive_failures >= self._max_attempts:
            self._end(cell, "failed", failure=failure, recorded=recorded, seconds=seconds)
            return
        details: dict[str, Any] = {"failure": failure, "seconds": seconds, "recorded": recorded}
        self.outbox.put(Event("requeued", cell.cell_id, cell.attempt, cell.rank, **details))
        # Reported all the same: the failure log and MLflow show every failed attempt.
        if cell.cancelling:
            self.stop(cell)
        else:
            self._enqueue(cell, first=True)

    def _suspected(self, cell: CellState) -> bool:
        return 0 < cell.consecutive_failures == self._max_attempts - 1

    def _queue_anew(self, cell: CellState) -> None:
        self._enqueue(cell)
        self.outbox.put(Event("queued", cell.cell_id, cell=cell.cell))

    def _enqueue(self, cell: CellState, *, first: bool = False) -> None:
        cell.state, cell.cancelling, cell.resubmitted = "queued", False, False
        self.running.pop(cell.cell_id, None)
        self.waiting[cell.cell_id] = cell
        if first:
            self.waiting.move_to_end(cell.cell_id, last=False)

    def _end(self, cell: CellState, state: Literal["done", "failed", "cancelled"], **details: Any) -> None:
        self.running.pop(cell.cell_id, None)
        self.waiting.pop(cell.cell_id, None)
        rank = cell.rank if cell.state == "running" else -1
        cell.state = state
        kind: Literal["finished", "failed", "cancelled"] = "finished" if state == "done" else state
        self.outbox.put(Event(kind, cell.cell_id, cell.attempt, rank, **details))
