"""The queue that the workers of a launch take cells from, with a lease for each cell that runs.

Plain bookkeeping with a clock handed in; `local_fleet` shares it among threads, `edge/fleet` makes a Ray actor of it.
A lease ends with its cell, with its worker (which registers again after a restart), or by silence; then the cell goes
back to the front of the queue and resumes from its own checkpoint.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome
from crossfold.platform.scheduling.cell_states import CellState, CellStates
from crossfold.platform.scheduling.events import ENDED, EVENT_LIMIT, Event, News
from crossfold.platform.workspace.disk_space import DiskGate

Verdict = Literal["continue", "stop", "kill"]
"""The answer to a running attempt: continue, stop at the end of this epoch, or, if it hangs, kill its process."""

HANG_EPOCHS = 20
"""An attempt hangs only when so many epochs could have ended."""
UNKNOWN_EPOCH_SECONDS = 180.0
"""Taken for an epoch of a cell without a forecast, before any epoch of any cell ended."""


@dataclass(frozen=True)
class Assignment:
    """A leased cell, as JSON, and the number of this attempt, from 1."""

    cell: str
    attempt: int


Answer = Assignment | Literal["wait", "leave"]
"""The answer to a worker that asks for a cell."""


@dataclass(frozen=True)
class QueueLimits:
    """When the queue gives up waiting."""

    lease_seconds: float = 60.0
    """A worker that is silent for so long counts as gone."""
    max_attempts: int = 3
    """A cell is given up after so many attempts in a row without a new epoch."""
    hang_seconds: float = 600.0
    """An attempt hangs when no epoch ended for so long and for `HANG_EPOCHS` times the length of an epoch."""


class CellQueue:
    """Workers, leases and what workers say; `CellStates` decides what becomes of the cells."""

    def __init__(
        self,
        limits: QueueLimits | None = None,
        *,
        disk: DiskGate | None = None,
        clock: Callable[[], float] = time.monotonic,
        event_limit: int = EVENT_LIMIT,
    ) -> None:
        """`disk`: the one that cells are written to; while it is full, no cell starts."""
        self._limits = limits or QueueLimits()
        self._disk = disk or DiskGate(None)
        self._clock = clock
        self._cells = CellStates(self._limits.max_attempts, self._disk, event_limit)
        self._generations: dict[int, str] = {}
        """A name for the process of each rank that is here."""
        self._longest_epoch = 0.0
        self._hung: set[tuple[str, int]] = set()
        self._closed = False
        self._heard = clock()
        self._incarnation = uuid.uuid4().hex

    def submit(self, cells_json: Sequence[str], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """Adds cells at the end; see `CellStates.submit`.

        `epoch_seconds`: how long an epoch of each cell should take, as far as that is known, by identity.
        """
        for text in cells_json:
            self._cells.submit(text, epoch_seconds or {})

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """Cancels cells, by default all: those that wait at once, those that run at their next epoch."""
        for cell_id in list(self._cells.cells) if cell_ids is None else cell_ids:
            if cell_id in self._cells.cells:
                self._cells.cancel(self._cells.cells[cell_id])

    def close(self) -> None:
        """No more cells will come: workers leave when the last one has ended."""
        self._closed = True

    def register(self, rank: int, generation: str, world: int | None = None) -> None:
        """A worker process begins. Whatever the process before it in this rank held goes back.

        `world`: how many workers its group has; what ranks beyond it held, of a larger group before, goes back too.
        """
        self._hear()
        if world is not None:
            for cell in self._running(lambda held: held >= world):
                self._cells.interrupt(cell)
            self._generations = {other: name for other, name in self._generations.items() if other < world}
        if self._generations.get(rank) == generation:
            # Ray repeated the call; the worker may have taken a cell since the first one.
            return
        self._generations[rank] = generation
        for cell in self._running(lambda held: held == rank):
            if world is None:
                self._cells.lose(cell, f"worker {rank} died while it ran this cell")
            else:
                # The controller reports deaths; a group also ends to begin again with more workers or fewer.
                self._cells.interrupt(cell)

    def workers_died(self, causes: Mapping[int, tuple[FailureClass, str]]) -> None:
        """Workers died, by rank, and their group ends with them. Cells of the other workers are not to blame."""
        self._hear()
        for cell in list(self._cells.running.values()):
            if cell.rank in causes:
                kind, why = causes[cell.rank]
                self._cells.lose(cell, why, kind)
            else:
                self._cells.interrupt(cell)
        self._generations.clear()

    def regroup(self) -> None:
        """Dismisses all workers: running cells end their epoch, and go on with the workers that register next."""
        self.workers_died({})

    def take(self, rank: int, generation: str) -> Answer:
        """The next cell for a registered worker; the same one again if the last answer did not reach it."""
        self._hear()
        self._expire()
        if self._generations.get(rank) != generation:
            # Another process has this rank by now, or the queue is a new one, which knows no worker.
            return "leave"
        cell = next(iter(self._running(lambda held: held == rank)), None)
        if cell is not None:
            cell.heard = self._clock()
        elif self._disk() and (cell := self._cells.next()) is not None:
            self._cells.start(cell, rank, self._clock())
        if cell is not None:
            return Assignment(cell.cell, cell.attempt)
        return "leave" if self._closed and not self._cells.waiting and not self._cells.running else "wait"

    def heartbeat(self, cell_id: str, attempt: int) -> Verdict:
        """A running attempt is alive. The answer is `stop` if the queue no longer wants it, `kill` if it hangs."""
        self._hear()
        if (cell_id, attempt) in self._hung:
            # The cell was given to another worker long ago, but this process is still stuck in it.
            return "kill"
        cell = self._current(cell_id, attempt)
        if cell is None:
            return "stop"
        cell.heard = self._clock()
        return "stop" if cell.cancelling else "continue"

    def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict:
        """An epoch of a running attempt ended."""
        verdict = self.heartbeat(cell_id, attempt)
        if cell := self._current(cell_id, attempt):
            took, cell.moved = cell.heard - cell.moved, cell.heard
            cell.epoch_seconds, self._longest_epoch = max(cell.epoch_seconds, took), max(self._longest_epoch, took)
            self._cells.epoch(cell, report)
        return verdict

    def finish(self, cell_id: str, attempt: int, outcome: Outcome, *, recorded: bool = True) -> None:
        """An attempt ended. Of several attempts at one cell the first that is done counts; late others are ignored.

        `recorded`: whether the workspace's failure log has the failure already.
        """
        self._hear()
        cell = self._cells.cells.get(cell_id)
        if cell is None or cell.state in ENDED:
            return
        if outcome.status == "done":
            # Also of an attempt that was given up: what lies in the workspace is whole.
            self._cells.finish(cell, outcome.seconds)
        elif self._current(cell_id, attempt) is None:
            return
        elif outcome.status == "cancelled" and cell.cancelling:
            self._cells.stop(cell, outcome.seconds)
        elif outcome.failure is not None:
            self._cells.fail(cell, outcome.failure, recorded=recorded, seconds=outcome.seconds)
        else:
            self._cells.lose(cell, "the attempt stopped although it had not been cancelled")

    def finish_and_take(self, rank: int, generation: str, cell_id: str, attempt: int, outcome: Outcome) -> Answer:
        """`finish`, then `take`: one way to the queue and back for a cell, not two."""
        self.finish(cell_id, attempt, outcome)
        return self.take(rank, generation)

    def report_fatal(self, rank: int, message: str) -> None:
        """A worker cannot work at all, and a new one in its place could not either: the driver must end the launch."""
        self._hear()
        failure = Failure("", f"worker {rank}", FailureClass.CODE, 0, message, "", utc_now())
        self._cells.outbox.put(Event("fatal", "", rank=rank, failure=failure))

    def watch(self, cell_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Where the named cells stand; unknown names are left out."""
        self._expire()
        known = self._cells.cells
        return {cell_id: known[cell_id].describe() for cell_id in cell_ids if cell_id in known}

    def news(self) -> News:
        """What happened since the last call, and which workers are here."""
        # Also when every worker is gone and none asks for a cell, leases end.
        self._expire()
        return News(self._cells.outbox.drain(), self.silence(), len(self._generations), self._incarnation)

    def silence(self) -> float:
        """Seconds since any worker was heard."""
        return self._clock() - self._heard

    def _hear(self) -> None:
        self._heard = self._clock()

    def _running(self, ranks: Callable[[int], bool]) -> list[CellState]:
        return [cell for cell in self._cells.running.values() if ranks(cell.rank)]

    def _current(self, cell_id: str, attempt: int) -> CellState | None:
        """The cell, if this very attempt at it holds the lease."""
        cell = self._cells.running.get(cell_id)
        return cell if cell is not None and cell.attempt == attempt else None

    def _expire(self) -> None:
        """Ends the leases of workers that fell silent, and of attempts that hang."""
        now = self._clock()
        for cell in list(self._cells.running.values()):
            known = cell.epoch_seconds or self._longest_epoch or UNKNOWN_EPOCH_SECONDS
            still, limit = now - cell.moved, max(self._limits.hang_seconds, HANG_EPOCHS * known)
            if now - cell.heard > self._limits.lease_seconds:
                self._cells.lose(cell, f"its worker sent no heartbeat for {self._limits.lease_seconds:.0f} s")
            elif still > limit:
                self._hung.add((cell.cell_id, cell.attempt))
                self._cells.lose(cell, f"it hangs: no epoch ended for {still:.0f} s, the limit is {limit:.0f} s")
