"""The queue a fleet works off: which cell runs where, which comes back, how each one ended.

Plain bookkeeping with a clock handed in; `fleet_link` puts it behind Ray. A cell is leased to one worker at a time. A
lease ends with the cell, with its worker (which registers anew after a restart), or by silence; then the cell goes back
to the front of the queue and resumes from its own checkpoint.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome
from crossfold.platform.workspace.disk_space import DiskGate

State = Literal["queued", "running", "done", "failed", "cancelled"]
Verdict = Literal["go", "cancel", "die"]
"""What a running try is told: go on, stop at the end of this epoch, or, if it hangs, end its process."""

ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
RETRIED = frozenset({FailureClass.INFRA, FailureClass.OOM})
"""The same cell may succeed elsewhere or later; every other failure would only repeat itself."""

HANG_SECONDS = 600.0
"""Without the end of an epoch for so long, a try may hang although its process gives signs of life ..."""
HANG_EPOCHS = 20
"""... and it does hang when so many epochs could have ended."""
UNKNOWN_EPOCH_SECONDS = 180.0
"""Of a cell that nobody forecast, before any epoch of any cell ended."""

MAX_INTERRUPTIONS = 10
"""Interruptions in a row, without a new epoch between them, after which a cell is suspected after all."""

EVENT_LIMIT = 4096
"""Undrained events above which the epochs of one cell replace each other."""


@dataclass(frozen=True)
class Assignment:
    """A leased cell, as JSON, and the number of this try, from 1."""

    cell: str
    attempt: int


@dataclass(frozen=True)
class Event:
    """One thing that happened, for the driver. Events of one cell are in order."""

    kind: Literal["queued", "started", "epoch", "finished", "requeued", "failed", "cancelled", "broken"]
    cell_id: str
    attempt: int = 0
    rank: int = -1
    cell: str = ""
    """With `queued`: the cell as JSON, for a driver that did not submit it."""
    report: EpochReport | None = None
    failure: Failure | None = None
    """With `failed`, and with `requeued` unless the try went down with others; with `broken`: why none can work."""
    seconds: float = 0.0
    recorded: bool = True
    """False where the failure is not in the workspace's ledger yet."""


@dataclass
class _Lease:
    rank: int
    heard: float
    moved: float
    """When the try began, or its last epoch ended."""


@dataclass
class _Entry:
    cell_id: str
    cell: str
    label: str
    state: State = "queued"
    attempt: int = 0
    strikes: int = 0
    """Tries lost in a row without an epoch that no try had reached before."""
    interrupted: int = 0
    """Tries that ended in between through no fault of their own."""
    furthest: int = -1
    epoch_seconds: float = 0.0
    """Forecast of one epoch, or the longest it took; 0 where there is neither."""
    cancel: bool = False
    again: bool = False
    """Submitted again while its cancellation was under way."""
    report: EpochReport | None = None
    message: str = ""


@dataclass
class _Outbox:
    """Events for the driver; bounded however long it stays away."""

    limit: int
    events: list[Event] = field(default_factory=list)
    _epochs: dict[str, int] = field(default_factory=dict)

    def put(self, event: Event) -> None:
        if event.kind != "epoch":
            self._epochs.pop(event.cell_id, None)
        elif len(self.events) >= self.limit and event.cell_id in self._epochs:
            self.events[self._epochs[event.cell_id]] = event
            return
        else:
            self._epochs[event.cell_id] = len(self.events)
        self.events.append(event)

    def drain(self) -> list[Event]:
        events, self.events, self._epochs = self.events, [], {}
        return events


class CellQueue:
    """Cells, leases and endings. Every submitted cell ends exactly once: done, failed or cancelled.

    A try that is lost (its worker died or fell silent) or that fails for want of memory is repeated until
    `max_attempts` tries in a row brought no new epoch. The last of these runs while nothing else does: a cell that
    kills its worker takes the neighbours' tries with it, and alone it can only give itself away.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        lease_seconds: float = 60.0,
        max_attempts: int = 3,
        event_limit: int = EVENT_LIMIT,
        hang_seconds: float = HANG_SECONDS,
        room: DiskGate | None = None,
    ) -> None:
        """`lease_seconds`: silence after which a worker counts as gone. `room`: of the disk that cells are written to.

        A try hangs when no epoch ended for `hang_seconds` and for `HANG_EPOCHS` times what one takes: as forecast for
        the cell or as long as its longest; where neither is known, as long as the longest of any cell here.
        """
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._entries: dict[str, _Entry] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._leases: dict[str, _Lease] = {}
        self._generations: dict[int, str] = {}
        self._hang_seconds = hang_seconds
        self._longest_epoch = 0.0
        self._hung: set[tuple[str, int]] = set()
        self._outbox = _Outbox(event_limit)
        self._closed = False
        self._heard = clock()
        self._room = room or DiskGate(None)

    def submit(self, cells_json: Sequence[str], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """Adds cells at the end. A known cell is left alone, unless it was cancelled: then it runs after all.

        `epoch_seconds`: how long an epoch of each cell should take, as far as that is known, by identity.
        """
        for text in cells_json:
            cell = Cell.model_validate_json(text)
            entry = self._entries.get(cell.cell_id)
            if entry is None:
                entry = self._entries[cell.cell_id] = _Entry(cell.cell_id, text, cell.label)
                entry.epoch_seconds = (epoch_seconds or {}).get(cell.cell_id, 0.0)
            elif entry.state == "running" and entry.cancel:
                entry.again = True
                continue
            elif entry.state != "cancelled":
                continue
            self._enqueue(entry)
            self._outbox.put(Event("queued", entry.cell_id, cell=text))

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """Cancels cells, by default all: those that wait at once, those that run at their next epoch."""
        for cell_id in list(self._entries) if cell_ids is None else cell_ids:
            entry = self._entries.get(cell_id)
            if entry is None or entry.state in ENDED:
                continue
            entry.again = False
            if entry.state == "queued":
                self._settle(entry, "cancelled")
            else:
                entry.cancel = True

    def close(self) -> None:
        """No more cells will come: workers leave when the last one has ended."""
        self._closed = True

    def register(self, rank: int, generation: str, world: int | None = None) -> None:
        """A worker process begins. Whatever the process before it in this rank held goes back.

        `world`: how many workers its group has; what ranks beyond it held, of a larger group before, goes back too.
        """
        self._hear()
        if world is not None:
            for cell_id in [cell_id for cell_id, lease in self._leases.items() if lease.rank >= world]:
                self._interrupt(cell_id)
            self._generations = {place: other for place, other in self._generations.items() if place < world}
        if self._generations.get(rank) == generation:
            return
        self._generations[rank] = generation
        for cell_id in [cell_id for cell_id, lease in self._leases.items() if lease.rank == rank]:
            if world is None:
                self._lose(cell_id, f"worker {rank} died while it ran this cell")
            else:
                # Of a death we would have heard; a group also ends to begin anew with more workers or fewer.
                self._interrupt(cell_id)

    def died(self, causes: Mapping[int, tuple[FailureClass, str]]) -> None:
        """Workers died, by rank, and their group ends with them: the tries of the others are lost without a strike."""
        self._hear()
        for cell_id, lease in list(self._leases.items()):
            if lease.rank in causes:
                self._lose(cell_id, causes[lease.rank][1], causes[lease.rank][0])
            else:
                self._interrupt(cell_id)
        self._generations.clear()

    def regroup(self) -> None:
        """Sends all workers away: what runs ends its epoch, and goes on with the workers that register next."""
        self.died({})

    def take(self, rank: int, generation: str) -> Assignment | None:
        """The next cell for a registered worker; the same one again if its last answer went astray."""
        self._hear()
        self._expire()
        if self._generations.get(rank) != generation:
            return None
        entry = self._held_by(rank) or (self._next() if self._room() else None)
        if entry is None:
            return None
        if entry.state == "queued":
            del self._waiting[entry.cell_id]
            entry.state, entry.attempt, entry.message = "running", entry.attempt + 1, ""
            self._outbox.put(Event("started", entry.cell_id, entry.attempt, rank))
            self._leases[entry.cell_id] = _Lease(rank, self._clock(), self._clock())
        else:
            self._leases[entry.cell_id].heard = self._clock()
        return Assignment(entry.cell, entry.attempt)

    def dismissed(self, rank: int, generation: str) -> bool:
        """Whether this worker may leave: its place was taken over, or all work is done and no more will come."""
        return self._generations.get(rank) != generation or (self._closed and not self._waiting and not self._leases)

    def beat(self, cell_id: str, attempt: int) -> Verdict:
        """A sign of life from a running try; `cancel` if nobody wants it any more, `die` if it hangs."""
        self._hear()
        if (cell_id, attempt) in self._hung:
            return "die"
        entry, lease = self._entries.get(cell_id), self._leases.get(cell_id)
        if entry is None or lease is None or entry.attempt != attempt:
            return "cancel"
        lease.heard = self._clock()
        return "cancel" if entry.cancel else "go"

    def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict:
        """An epoch of a running try ended."""
        known = self._leases.get(cell_id)
        verdict = self.beat(cell_id, attempt)
        entry = self._entries.get(cell_id)
        if entry is None or known is None or entry.attempt != attempt:
            return verdict
        took = known.heard - known.moved
        entry.epoch_seconds, self._longest_epoch = max(entry.epoch_seconds, took), max(self._longest_epoch, took)
        known.moved = known.heard
        if report.epoch > entry.furthest:
            entry.furthest, entry.strikes, entry.interrupted = report.epoch, 0, 0
        entry.report = report
        self._outbox.put(Event("epoch", cell_id, attempt, known.rank, report=report))
        return verdict

    def finish(self, cell_id: str, attempt: int, outcome: Outcome, *, recorded: bool = True) -> None:
        """A try ended. Of several tries of one cell the first that is done counts; late others are ignored.

        `recorded`: whether the failure lies in the workspace's ledger already.
        """
        self._hear()
        entry = self._entries.get(cell_id)
        if entry is None or entry.state in ENDED:
            return
        current = cell_id in self._leases and entry.attempt == attempt
        if outcome.status == "done":
            self._settle(entry, "done", seconds=outcome.seconds)
        elif not current:
            return
        elif outcome.status == "cancelled" and entry.cancel:
            self._stopped(entry, outcome.seconds)
        elif outcome.failure is not None:
            self._try_failed(entry, outcome.failure, recorded=recorded, seconds=outcome.seconds)
        else:
            self._lose(cell_id, "the try stopped although nobody had cancelled it")

    def refuse(self, rank: int, message: str) -> None:
        """A worker cannot work at all, and none of its kind ever will: the driver must hear it."""
        self._hear()
        failure = Failure("", f"worker {rank}", FailureClass.CODE, 0, message, "", utc_now())
        self._outbox.put(Event("broken", "", rank=rank, failure=failure))

    def watch(self, cell_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Where the named cells stand; unknown names are left out."""
        self._expire()
        return {cell_id: _describe(self._entries[cell_id]) for cell_id in cell_ids if cell_id in self._entries}

    def drain_events(self) -> list[Event]:
        """What happened since the last call."""
        self._expire()
        return self._outbox.drain()

    @property
    def workers(self) -> int:
        """How many workers of the present group are here."""
        return len(self._generations)

    def silence(self) -> float:
        """Seconds since any worker was heard."""
        return self._clock() - self._heard

    def _hear(self) -> None:
        self._heard = self._clock()

    def _held_by(self, rank: int) -> _Entry | None:
        return next((self._entries[cell_id] for cell_id, lease in self._leases.items() if lease.rank == rank), None)

    def _suspect(self, entry: _Entry) -> bool:
        return 0 < entry.strikes == self._max_attempts - 1

    def _next(self) -> _Entry | None:
        if any(self._suspect(self._entries[cell_id]) for cell_id in self._leases):
            return None
        waiting = (self._entries[cell_id] for cell_id in self._waiting)
        found = next((entry for entry in waiting if not self._suspect(entry)), None)
        if found is None and self._waiting and not self._leases:
            found = self._entries[next(iter(self._waiting))]
        return found

    def _expire(self) -> None:
        oldest = self._clock() - self._lease_seconds
        for cell_id in [cell_id for cell_id, lease in self._leases.items() if lease.heard < oldest]:
            self._lose(cell_id, f"no sign of life from its worker for {self._lease_seconds:.0f} s")
        for cell_id, lease in list(self._leases.items()):
            entry = self._entries[cell_id]
            still, limit = self._clock() - lease.moved, self._hang_limit(entry)
            if still > limit:
                self._hung.add((cell_id, entry.attempt))
                self._lose(cell_id, f"it hangs: no epoch ended for {still:.0f} s, the limit is {limit:.0f} s")

    def _hang_limit(self, entry: _Entry) -> float:
        """Seconds without the end of an epoch that this cell is allowed."""
        known = entry.epoch_seconds or self._longest_epoch or UNKNOWN_EPOCH_SECONDS
        return max(self._hang_seconds, HANG_EPOCHS * known)

    def _lose(self, cell_id: str, why: str, kind: FailureClass = FailureClass.INFRA) -> None:
        entry = self._entries[cell_id]
        if entry.cancel:
            self._stopped(entry, 0.0)
        else:
            failure = Failure(entry.cell_id, entry.label, kind, entry.attempt, why, "", utc_now())
            self._try_failed(entry, failure, recorded=False)

    def _interrupt(self, cell_id: str) -> None:
        """Ends a try through no fault of its cell."""
        entry, rank = self._entries[cell_id], self._leases[cell_id].rank
        entry.interrupted += 1
        if entry.cancel:
            self._stopped(entry, 0.0)
        elif entry.interrupted > MAX_INTERRUPTIONS:
            self._lose(cell_id, f"its worker ended {entry.interrupted} times before an epoch did")
        else:
            self._outbox.put(Event("requeued", cell_id, entry.attempt, rank))
            self._enqueue(entry, first=True)

    def _try_failed(self, entry: _Entry, failure: Failure, *, recorded: bool, seconds: float = 0.0) -> None:
        entry.strikes += 1
        entry.message = failure.message
        self._room.heard(failure)
        if failure.kind not in RETRIED or entry.strikes >= self._max_attempts:
            self._settle(entry, "failed", failure=failure, recorded=recorded, seconds=seconds)
            return
        rank = self._leases[entry.cell_id].rank
        self._outbox.put(
            Event("requeued", entry.cell_id, entry.attempt, rank, failure=failure, seconds=seconds, recorded=recorded)
        )
        if entry.cancel:
            self._stopped(entry, 0.0)
        else:
            self._enqueue(entry, first=True)

    def _stopped(self, entry: _Entry, seconds: float) -> None:
        again = entry.again
        self._settle(entry, "cancelled", seconds=seconds)
        if again:
            self._enqueue(entry)
            self._outbox.put(Event("queued", entry.cell_id, cell=entry.cell))

    def _enqueue(self, entry: _Entry, *, first: bool = False) -> None:
        entry.state, entry.cancel, entry.again = "queued", False, False
        self._leases.pop(entry.cell_id, None)
        self._waiting[entry.cell_id] = None
        if first:
            self._waiting.move_to_end(entry.cell_id, last=False)

    def _settle(
        self,
        entry: _Entry,
        state: Literal["done", "failed", "cancelled"],
        *,
        failure: Failure | None = None,
        recorded: bool = True,
        seconds: float = 0.0,
    ) -> None:
        lease = self._leases.pop(entry.cell_id, None)
        self._waiting.pop(entry.cell_id, None)
        entry.state = state
        self._outbox.put(
            Event(
                "finished" if state == "done" else state,
                entry.cell_id,
                entry.attempt,
                lease.rank if lease else -1,
                failure=failure,
                seconds=seconds,
                recorded=recorded,
            )
        )


def _describe(entry: _Entry) -> dict[str, Any]:
    report = entry.report
    return {
        "state": entry.state,
        "epoch": report.epoch if report else 0,
        "epochs": report.epochs if report else 0,
        "ccc": dict(report.ccc) if report else {},
        "best_ccc": report.best_ccc if report else float("nan"),
        "message": entry.message,
    }
