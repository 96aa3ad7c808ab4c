"""The loop of every launch, grid or search: passes events on until the work is done, and stops it early if asked."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.monitor import Monitor
from crossfold.platform.scheduling.stop_signals import StopRequest


class WorkerPool(Protocol):
    """Workers with a queue, in this process or on a cluster. A context manager: nothing runs before it is entered."""

    poll_seconds: float
    """The time between two questions of the driver to the queue."""
    workers: int
    """How many cells run at once; known when the pool was entered."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def submit(self, cells: Sequence[Cell], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """Adds cells to the queue, in order; those it knows are left alone. `epoch_seconds`: see `CellQueue.submit`."""

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """Cancels cells, by default all. Running ones stop at their next epoch."""

    def drain(self) -> list[Event]:
        """What happened since the last call. Raises `FleetError` if no worker will ever work."""


@dataclass(frozen=True)
class OpenPool:
    """Workers that have been entered by someone else, who also closes them."""

    pool: WorkerPool
    stop_after: float | None = None
    """See `FleetOptions`."""


def drive(pool: WorkerPool, monitor: Monitor, stop: StopRequest, over: Callable[[], bool]) -> None:
    """Passes events to the monitor until `over()`; cancels all cells, once, when the launch is to stop early."""
    while True:
        monitor.feed(pool.drain())
        monitor.progress.workers = pool.workers
        if over():
            return
        if reason := stop.new_reason():
            monitor.note(reason)
            pool.cancel()
        # After a signal its event stays set, and waiting for it would spin.
        (time.sleep if stop.interrupted.is_set() else stop.interrupted.wait)(pool.poll_seconds)
