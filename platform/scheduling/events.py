"""What the queue reports to the driver: what happened to each cell, and whether any worker is still there."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from crossfold.platform.core.errors import FleetError
from crossfold.platform.core.outcome import EpochReport, Failure

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})

EVENT_LIMIT = 4096
"""Undrained events above which the epochs of one cell replace each other."""


@dataclass(frozen=True)
class Event:
    """One thing that happened. Events of one cell are in order."""

    kind: Literal["queued", "started", "epoch", "finished", "requeued", "failed", "cancelled", "fatal"]
    cell_id: str
    attempt: int = 0
    rank: int = -1
    cell: str = ""
    """With `queued`: the cell as JSON, for a driver that did not submit it."""
    report: EpochReport | None = None
    failure: Failure | None = None
    """With `failed`, and with `requeued` if the cell is to blame; with `fatal`: why no worker can work."""
    seconds: float = 0.0
    recorded: bool = True
    """False while the workspace's failure log lacks the failure."""

    @property
    def ends(self) -> bool:
        """Whether it is the last one of its cell, unless that is submitted again."""
        return self.kind in ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class News:
    """What the driver learns each time it asks the queue."""

    events: list[Event]
    silence: float
    """Seconds since any worker was heard."""
    workers: int
    """Workers of the present group that have registered."""
    incarnation: str
    """Names this queue process. A queue that was lost and restarted, empty, has another name."""
    refilled: bool = False
    """True once after a loss, when the driver has submitted its unfinished cells to the new queue."""


@dataclass
class Outbox:
    """Events that the driver has not fetched yet. Their number stays bounded however long it does not."""

    limit: int = EVENT_LIMIT
    events: list[Event] = field(default_factory=list)
    _epochs: dict[str, int] = field(default_factory=dict)

    def put(self, event: Event) -> None:
        """Adds an event; beyond the limit, an epoch replaces the last epoch of its cell."""
        if event.kind != "epoch":
            # A later epoch of the cell must not take a place before this event.
            self._epochs.pop(event.cell_id, None)
        elif len(self.events) >= self.limit and event.cell_id in self._epochs:
            self.events[self._epochs[event.cell_id]] = event
            return
        else:
            self._epochs[event.cell_id] = len(self.events)
        self.events.append(event)

    def drain(self) -> list[Event]:
        """Hands out all events, and forgets them."""
        events, self.events, self._epochs = self.events, [], {}
        return events


def raise_fatal(events: Iterable[Event]) -> None:
    """Raises `FleetError` if a worker reported that no worker of this launch can work."""
    for event in events:
        if event.kind == "fatal" and event.failure is not None:
            raise FleetError(f"{event.failure.label}: {event.failure.message}")
