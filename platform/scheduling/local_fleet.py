"""A fleet of threads in this process, without Ray: for tests, debugging, and cells that each run a worker group."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import FleetError
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.events import Event, raise_fatal
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.worker import work
from crossfold.platform.workspace.disk_space import DiskGate
from crossfold.platform.workspace.driver_lease import Lease, driver_lock
from crossfold.platform.workspace.workspace import Workspace


class _Locked:
    """A `CellQueue` that lets one thread in at a time."""

    def __init__(self, queue: CellQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                return getattr(self._queue, method)(*arguments, **named)

        return call


class LocalFleet:
    """Threads that work off a queue. Use as a context manager."""

    poll_seconds = 0.05

    def __init__(self, workspace: Workspace, options: FleetOptions, *, threads: int = 1) -> None:
        """`threads`: several, for runners that only wait for other processes."""
        self.workers = threads
        self._workspace = workspace
        # This process has loaded them, and a system is registered once.
        self._options = replace(options, plugins=())
        self.queue = cast(CellQueue, _Locked(CellQueue(options.limits, disk=DiskGate(workspace.root))))
        """Any thread may call it."""
        self._lease: Lease | None = None
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, args=(rank,), name=f"local-worker-{rank}", daemon=True)
            for rank in range(threads)
        ]
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "LocalFleet":
        self._lease = self._closing.enter_context(driver_lock(self._workspace))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.queue.cancel()
        self.queue.close()
        for thread in self._threads:
            # After an error nothing is waited for: a thread may hang, and as a daemon it ends with the process.
            thread.join(0 if error[0] is not None else None)
        self._closing.close()

    def submit(self, cells: Sequence[Cell], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """See `WorkerPool`."""
        self.queue.submit([cell.model_dump_json() for cell in cells], epoch_seconds)

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """See `WorkerPool`."""
        self.queue.cancel(cell_ids)

    def drain(self) -> list[Event]:
        """See `WorkerPool`."""
        if self._lease is not None:
            self._lease.check()
        events = self.queue.news().events
        raise_fatal(events)
        if not all(thread.is_alive() for thread in self._threads):
            raise FleetError(f"the worker thread ended: {self._error!r}")
        return events

    def _work(self, rank: int) -> None:
        try:
            work(self.queue, self._workspace, self._options, rank=rank, device=self._options.device or "cpu")
        except BaseException as error:
            self._error = error
