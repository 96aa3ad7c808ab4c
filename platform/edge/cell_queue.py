"""The queue a fleet works off: which cell runs where, which comes back, how each one ended.

Plain bookkeeping with a clock handed in; `fleet_link` puts it behind Ray. A cell is leased to one worker at a time. A
lease ends with the cell, with its worker (which registers anew after a restart), or by silence; then the cell goes back
to the front of the queue and resumes from its own checkpoint.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crossfold.platform.contracts import Cell, EpochReport, Failure, FailureClass, Outcome
from crossfold.platform.results import utc_now

State = Literal["queued", "running", "done", "failed", "cancelled"]
Verdict = Literal["go", "cancel"]

ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
RETRIED = frozenset({FailureClass.INFRA, FailureClass.OOM})
"""The same cell may succeed elsewhere or later; every other failure would only repeat itself."""

EVENT_LIMIT = 4096
"""Undrained events above which the epochs of one cell replace each other."""


@dataclass(frozen=True)
class Ticket:
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
    """With `failed` and `requeued`; with `broken`: why no worker can work."""
    seconds: float = 0.0
    recorded: bool = True
    """False where the failure is not in the workspace's ledger yet."""


@dataclass
class _Lease:
    rank: int
    heard: float


@dataclass
class _Entry:
    cell_id: str
    cell: str
    label: str
    state: State = "queued"
    attempt: int = 0
    strikes: int = 0
    """Tries lost in a row without an epoch that no try had reached before."""
    furthest: int = -1
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
    ) -> None:
        """`lease_seconds`: silence after which a worker counts as gone."""
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._entries: dict[str, _Entry] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._leases: dict[str, _Lease] = {}
        self._generations: dict[int, str] = {}
        self._outbox = _Outbox(event_limit)
        self._closed = False
        self._heard = clock()

    def submit(self, cells_json: Sequence[str]) -> None:
        """Adds cells at the end. A known cell is left alone, unless it was cancelled: then it runs after all."""
        for text in cells_json:
            cell = Cell.model_validate_json(text)
            entry = self._entries.get(cell.cell_id)
            if entry is None:
                entry = self._entries[cell.cell_id] = _Entry(cell.cell_id, text, cell.label)
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

    def register(self, rank: int, generation: str) -> None:
        """A worker process begins. Whatever the process before it in this rank held goes back."""
        self._hear()
        if self._generations.get(rank) == generation:
            return
        self._generations[rank] = generation
        for cell_id in [cell_id for cell_id, lease in self._leases.items() if lease.rank == rank]:
            self._lose(cell_id, f"worker {rank} died while it ran this cell")

    def take(self, rank: int, generation: str) -> Ticket | None:
        """The next cell for a registered worker; the same one again if its last answer went astray."""
        self._hear()
        self._expire()
        if self._generations.get(rank) != generation:
            return None
        entry = self._held_by(rank) or self._next()
        if entry is None:
            return None
        if entry.state == "queued":
            del self._waiting[entry.cell_id]
            entry.state, entry.attempt, entry.message = "running", entry.attempt + 1, ""
            self._outbox.put(Event("started", entry.cell_id, entry.attempt, rank))
        self._leases[entry.cell_id] = _Lease(rank, self._clock())
        return Ticket(entry.cell, entry.attempt)

    def dismissed(self, rank: int, generation: str) -> bool:
        """Whether this worker may leave: its place was taken over, or all work is done and no more will come."""
        return self._generations.get(rank) != generation or (self._closed and not self._waiting and not self._leases)

    def beat(self, cell_id: str, attempt: int) -> Verdict:
        """A sign of life from a running try; `cancel` if nobody wants it any more."""
        self._hear()
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
        if report.epoch > entry.furthest:
            entry.furthest, entry.strikes = report.epoch, 0
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

    def _lose(self, cell_id: str, why: str) -> None:
        entry = self._entries[cell_id]
        if entry.cancel:
            self._stopped(entry, 0.0)
        else:
            self._try_failed(entry, self._lost(entry, why), recorded=False)

    def _lost(self, entry: _Entry, why: str) -> Failure:
        return Failure(entry.cell_id, entry.label, FailureClass.INFRA, entry.attempt, why, "", utc_now())

    def _try_failed(self, entry: _Entry, failure: Failure, *, recorded: bool, seconds: float = 0.0) -> None:
        entry.strikes += 1
        entry.message = failure.message
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
