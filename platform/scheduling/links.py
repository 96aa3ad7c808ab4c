"""The wire between workers and the cell queue: an async Ray actor, or a lock within one process."""

import threading
import time
from typing import Literal, Protocol

from crossfold.platform.core.outcome import EpochReport, Outcome
from crossfold.platform.scheduling.cell_queue import Assignment, CellQueue, Verdict

Answer = Assignment | Literal["wait", "leave"]
"""What a worker that asks for a cell is told."""


class QueueLost(ConnectionError):
    """The queue is gone, and with it the driver: stop without a result and without a failure."""


class Link(Protocol):
    """What a worker can say to the queue. Any call but `epoch` may raise `QueueLost`."""

    def register(self, rank: int, generation: str, world: int | None = None) -> None: ...

    def take(self, rank: int, generation: str) -> Answer: ...

    def beat(self, cell_id: str, attempt: int) -> Verdict: ...

    def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict: ...

    def finish(self, cell_id: str, attempt: int, outcome: Outcome, *, recorded: bool = True) -> None: ...

    def finish_and_take(self, rank: int, generation: str, cell_id: str, attempt: int, outcome: Outcome) -> Answer: ...

    def refuse(self, rank: int, message: str) -> None: ...


class LocalLink:
    """A `CellQueue` shared by the threads of one process."""

    def __init__(self, queue: CellQueue, poll_seconds: float = 0.05) -> None:
        """`poll_seconds`: how long a worker without work sleeps."""
        self._queue = queue
        self._poll_seconds = poll_seconds
        self.lock = threading.RLock()
        """Held by whoever touches the queue beside this link."""

    def register(self, rank: int, generation: str, world: int | None = None) -> None:
        """See `CellQueue.register`."""
        with self.lock:
            self._queue.register(rank, generation, world)

    def take(self, rank: int, generation: str) -> Answer:
        """The next cell, or what to do without one."""
        with self.lock:
            ticket = self._queue.take(rank, generation)
            if ticket is not None:
                return ticket
            if self._queue.dismissed(rank, generation):
                return "leave"
        time.sleep(self._poll_seconds)
        return "wait"

    def beat(self, cell_id: str, attempt: int) -> Verdict:
        """See `CellQueue.beat`."""
        with self.lock:
            return self._queue.beat(cell_id, attempt)

    def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict:
        """See `CellQueue.epoch`."""
        with self.lock:
            return self._queue.epoch(cell_id, attempt, report)

    def finish(self, cell_id: str, attempt: int, outcome: Outcome, *, recorded: bool = True) -> None:
        """See `CellQueue.finish`."""
        with self.lock:
            self._queue.finish(cell_id, attempt, outcome, recorded=recorded)

    def finish_and_take(self, rank: int, generation: str, cell_id: str, attempt: int, outcome: Outcome) -> Answer:
        """`finish`, then `take`."""
        self.finish(cell_id, attempt, outcome)
        return self.take(rank, generation)

    def refuse(self, rank: int, message: str) -> None:
        """See `CellQueue.refuse`."""
        with self.lock:
            self._queue.refuse(rank, message)
