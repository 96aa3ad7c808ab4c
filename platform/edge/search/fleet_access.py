"""The fleet of a search: opened once for all of its systems, and driven from a thread while trials submit cells."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

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


@contextlib.contextmanager
def opened_fleet(workspace: Workspace, options: FleetOptions) -> Iterator[SearchFleet]:
    """The workers of a launch: those of a Ray cluster, or one of this process."""
    if options.workers == 0:
        with LocalFleet(workspace, options) as local:
            yield local
        return
    load_tune(options)
    with Fleet(workspace, options) as fleet:
        yield fleet


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
                fleet.cancel()

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
