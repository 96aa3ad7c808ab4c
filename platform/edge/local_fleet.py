"""What every launch needs, with Ray or without: one driver a workspace, a way to stop, and a fleet in this process."""

import contextlib
import json
import os
import platform as host
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from filelock import FileLock, Timeout

from crossfold.platform.contracts import Cell
from crossfold.platform.edge.cell_queue import CellQueue, Event
from crossfold.platform.edge.fleet_link import LocalLink
from crossfold.platform.edge.fleet_worker import Trial, work
from crossfold.platform.errors import UserError
from crossfold.platform.results import Workspace, utc_now, write_json


class FleetError(RuntimeError):
    """The fleet, not a cell, is broken. What finished is kept, and the same command continues."""


@contextlib.contextmanager
def driver_lock(workspace: Workspace) -> Iterator[None]:
    """Only one process drives a workspace; it may hold the lock several times over, from any thread.

    The system releases the lock of a driver that died.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    holder = workspace.root / "driver.json"
    lock = FileLock(workspace.root / "driver.lock", is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = json.loads(holder.read_text()) if holder.is_file() else {"pid": "?", "host": "?", "since": "?"}
        raise UserError(
            f"{workspace.root} is in use by process {who['pid']} on {who['host']} since {who['since']}",
            "wait for it, stop it, or give another --workspace",
        ) from None
    try:
        write_json(holder, {"pid": os.getpid(), "host": host.node(), "since": utc_now()})
        yield
    finally:
        if lock.lock_counter == 1:
            holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the next one raises `KeyboardInterrupt`."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class LocalFleet:
    """The queue of a fleet worked off by one thread of this process, without Ray: for tests and debugging."""

    poll_seconds = 0.05
    """Between two looks of the driver at the queue."""

    def __init__(self, workspace: Workspace, *, trial: str | Trial, threads: int = 1, max_attempts: int = 3) -> None:
        """Nothing runs before the context is entered."""
        self.workers = 1
        self._workspace = workspace
        self._trial = trial
        self._threads = threads
        self._queue = CellQueue(max_attempts=max_attempts)
        self._link = LocalLink(self._queue)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="local-worker", daemon=True)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "LocalFleet":
        self._closing.enter_context(driver_lock(self._workspace))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._link.lock:
            self._queue.cancel()
            self._queue.close()
        self._thread.join(0 if error[0] is not None else None)
        self._closing.close()

    def submit(self, cells: Sequence[Cell]) -> None:
        """See `Fleet.submit`."""
        with self._link.lock:
            self._queue.submit([cell.model_dump_json() for cell in cells])

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """See `Fleet.cancel`."""
        with self._link.lock:
            self._queue.cancel(cell_ids)

    def drain(self) -> list[Event]:
        """See `Fleet.drain`."""
        with self._link.lock:
            events = self._queue.drain_events()
        broken = next((event.failure for event in events if event.kind == "broken"), None)
        if broken is not None:
            raise FleetError(broken.message)
        if not self._thread.is_alive():
            raise FleetError(f"the worker thread ended: {self._error!r}")
        return events

    def _work(self) -> None:
        try:
            work(self._link, self._trial, self._workspace, rank=0, threads=self._threads)
        except BaseException as error:
            self._error = error
