"""The fleet of a search: opened once for all of its systems, and driven from a thread while trials submit cells."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from crossfold.platform.edge.fleet.queue_client import RayLink
from crossfold.platform.edge.fleet.ray_connection import NAMESPACE
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.search.tune_search import load_tune
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.drive import WorkerPool, drive
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.scheduling.monitor import Monitor, SilentView
from crossfold.platform.scheduling.stop_signals import StopRequest
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.workspace import Workspace

SearchFleet = Fleet | LocalFleet

SETTLE_SECONDS = 10.0
"""How long cells of stopped trials, which end with their epoch, are waited for."""


class KeptFleet:
    """The workers of a command, which start when they are first asked for, and stay until the end of the block.

    They are those of a Ray cluster, or one of this process. Use as a context manager.
    """

    def __init__(self, workspace: Workspace, options: FleetOptions) -> None:
        """No worker starts."""
        self._workspace, self._options = workspace, options
        self._closing = contextlib.ExitStack()
        self.pool: SearchFleet | None = None
        """The workers, if they have started."""

    def __enter__(self) -> "KeptFleet":
        return self

    def __exit__(self, *error: Any) -> None:
        self.pool = None
        self._closing.__exit__(*error)

    def opened(self, show: Callable[[str], None]) -> SearchFleet:
        """The workers. show: receives a line on the cluster when they start."""
        if self.pool is None:
            if self._options.workers == 0:
                self.pool = self._closing.enter_context(LocalFleet(self._workspace, self._options))
            else:
                load_tune(self._options)
                fleet = self.pool = self._closing.enter_context(Fleet(self._workspace, self._options))
                if fleet.note:
                    show(fleet.note)
        return self.pool

    def close(self) -> None:
        """Dismisses the workers, as others need their devices."""
        self.pool = None
        self._closing.close()


@contextlib.contextmanager
def driven(
    fleet: WorkerPool,
    name: str,
    workspace: Workspace,
    tracker: Tracker,
    stop: StopRequest,
    show: Callable[[str], None],
) -> Iterator[None]:
    """Drives the fleet from a thread while the block runs, as the trials of search `name` hold the main thread.

    No trial starts any more once `stop` is active: after a signal, when the time is up, or when the fleet cannot go on.
    show: receives notes on the fleet.
    """
    monitor = Monitor(name, workspace, SilentView(show), lambda cell_id: tracker)
    ended = threading.Event()
    errors: list[Exception] = []
    settled = math.inf

    def over() -> bool:
        return ended.is_set() and (not monitor.progress.left or time.monotonic() > settled)

    def run() -> None:
        try:
            drive(fleet, monitor, stop, over)
        except Exception as error:
            # Raised again in the main thread, once the trials have ended.
            errors.append(error)
            stop.active.set()
            with contextlib.suppress(Exception):
                fleet.abandon() if isinstance(fleet, Fleet) else fleet.cancel()

    thread = threading.Thread(target=run, name="search-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        settled = time.monotonic() + SETTLE_SECONDS
        ended.set()
        thread.join()
        monitor.write_status()
    if errors:
        raise errors[0]
    if stop.interrupted.is_set():
        raise KeyboardInterrupt


def queue_of(fleet: SearchFleet) -> CellQueue:
    """The queue from which its workers take cells."""
    if isinstance(fleet, LocalFleet):
        return fleet.queue
    import ray

    return cast(CellQueue, RayLink(ray.get_actor(fleet.queue_name, namespace=NAMESPACE)))
