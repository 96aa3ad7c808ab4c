"""The loop of every launch, grid or search: passes events on until the work is done, and stops it early if asked."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.monitor import Monitor


class WorkerPool(Protocol):
    """Workers with a queue, in this process or on a cluster. A context manager: nothing runs before it is entered."""

    poll_seconds: float
    """Between two looks of the driver at the queue."""
    workers: int
    """How many cells run at once; known when the fleet was entered."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def submit(self, cells: Sequence[Cell], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """Adds cells to the queue, in order; those it knows are left alone. `epoch_seconds`: see `CellQueue.submit`."""
        ...

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """Cancels cells, by default all. Running ones stop at their next epoch."""
        ...

    def drain(self) -> list[Event]:
        """What happened since the last call. Raises `FleetError` if no worker will ever work."""
        ...


class StopRequest:
    """Whether a launch should end early: after a signal, or because its time is up."""

    def __init__(self, interrupted: threading.Event, seconds: float | None) -> None:
        """`interrupted`: set by the first signal. `seconds`: from now until the time is up; None: no limit."""
        self.interrupted = interrupted
        self.time_up = False
        """The time was up before the work was done and before any signal."""
        self.active = threading.Event()
        """No cell shall start any more."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def news(self) -> str:
        """Notes why the launch stops when that is new, else nothing."""
        if self.active.is_set():
            return ""
        self.time_up = self._deadline is not None and time.monotonic() >= self._deadline
        if not (self.time_up or self.interrupted.is_set()):
            return ""
        self.active.set()
        if self.time_up:
            return "the time is up: running cells end their epoch. The same command continues."
        return "stopping: running cells end their epoch; once more to stop at once. The same command continues."


def drive(fleet: WorkerPool, monitor: Monitor, stop: StopRequest, over: Callable[[], bool]) -> None:
    """Passes events to the monitor until `over()`; cancels all cells, once, when the launch is to stop early."""
    while True:
        monitor.feed(fleet.drain())
        monitor.progress.workers = fleet.workers
        if over():
            return
        if reason := stop.news():
            monitor.note(reason)
            fleet.cancel()
        # After a signal its event stays set, and waiting for it would spin.
        (time.sleep if stop.interrupted.is_set() else stop.interrupted.wait)(fleet.poll_seconds)
