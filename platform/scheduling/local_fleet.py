"""What every launch needs, with Ray or without: a way to stop, and a fleet in this process."""

import contextlib
import threading
from collections.abc import Mapping, Sequence

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import FleetError
from crossfold.platform.scheduling.cell_queue import HANG_SECONDS, CellQueue, Event
from crossfold.platform.scheduling.links import LocalLink
from crossfold.platform.scheduling.worker import CellRunner, work
from crossfold.platform.workspace.disk_space import DiskGate
from crossfold.platform.workspace.driver_lease import Lease, driver_lock, hold_lease
from crossfold.platform.workspace.workspace import Workspace


class LocalFleet:
    """The queue of a fleet worked off by threads of this process: for tests, debugging, and cells that are groups."""

    poll_seconds = 0.05
    """Between two looks of the driver at the queue."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        trial: str | CellRunner,
        threads: int = 1,
        workers: int = 1,
        max_attempts: int = 3,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        """Nothing runs before the context is entered. `workers`: threads, for trials that only wait for other
        processes."""
        self.workers = workers
        self._workspace = workspace
        self._trial = trial
        self._threads = threads
        self._queue = CellQueue(max_attempts=max_attempts, hang_seconds=hang_seconds, room=DiskGate(workspace.root))
        self._link = LocalLink(self._queue)
        self._lease: Lease | None = None
        self._error: BaseException | None = None
        self._workers = [
            threading.Thread(target=self._work, args=(rank,), name=f"local-worker-{rank}", daemon=True)
            for rank in range(workers)
        ]
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "LocalFleet":
        self._lease = self._closing.enter_context(driver_lock(self._workspace))
        for thread in self._workers:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._link.lock:
            self._queue.cancel()
            self._queue.close()
        for thread in self._workers:
            thread.join(0 if error[0] is not None else None)
        self._closing.close()

    def submit(self, cells: Sequence[Cell], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """See `Fleet.submit`."""
        with self._link.lock:
            self._queue.submit([cell.model_dump_json() for cell in cells], epoch_seconds)

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """See `Fleet.cancel`."""
        with self._link.lock:
            self._queue.cancel(cell_ids)

    def drain(self) -> list[Event]:
        """See `Fleet.drain`."""
        hold_lease(self._lease)
        with self._link.lock:
            events = self._queue.drain_events()
        broken = next((event.failure for event in events if event.kind == "broken"), None)
        if broken is not None:
            raise FleetError(broken.message)
        if not all(thread.is_alive() for thread in self._workers):
            raise FleetError(f"the worker thread ended: {self._error!r}")
        return events

    def _work(self, rank: int) -> None:
        try:
            work(self._link, self._trial, self._workspace, rank=rank, threads=self._threads)
        except BaseException as error:
            self._error = error
