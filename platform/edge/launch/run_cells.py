"""Drives a fleet until its cells have ended."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.fleet.multi_device import MultiDeviceRunner, reserve_cluster
from crossfold.platform.edge.fleet.ray_fleet import TRIAL, Fleet
from crossfold.platform.scheduling.cell_queue import HANG_SECONDS, Event
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.scheduling.monitor import FleetSummary, Monitor, Progress, SilentView, View
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.scheduling.stop_signals import interruptions
from crossfold.platform.scheduling.tracker import NullTracker, Tracker
from crossfold.platform.scheduling.worker import CellRunner
from crossfold.platform.workspace.workspace import Workspace


def run_cells(
    cells: Sequence[Cell],
    workspace: Workspace,
    tracker: Tracker | None = None,
    *,
    sweep: str = "cells",
    workers: int | None = None,
    address: str | None = None,
    use_gpu: bool | None = None,
    device: str | None = None,
    threads_per_worker: int = 1,
    trial: str | CellRunner = TRIAL,
    plugins: Sequence[Path] = (),
    view: View | None = None,
    forecast: Forecast | None = None,
    stop_after: float | None = None,
    hang_seconds: float = HANG_SECONDS,
    finished: Callable[[Cell, float], None] | None = None,
) -> FleetSummary:
    """Runs cells to their ends. The caller leaves out finished ones, and launches and closes the tracker.

    `workers=0` runs them in this process, without Ray. One Ctrl-C (or SIGTERM) lets each running cell end its epoch,
    a second one stops at once; either way the same call continues later. Raises `FleetError` if the fleet breaks.

    forecast: decides the order of the cells once the number of workers is known; by default they go as given.
    stop_after: seconds after which no cell is launched any more and running ones end their epoch.
    hang_seconds: see `CellQueue`. finished: see `Monitor`.
    """
    if not cells:
        return FleetSummary()
    view, forecast = view or SilentView(), forecast or Forecast()
    wide = [cell for cell in cells if cell.recipe.devices > 1 and workers != 0]
    narrow = [cell for cell in cells if cell.recipe.devices == 1 or workers == 0]
    began, time_up = time.monotonic(), False
    monitor = Monitor(sweep, workspace, tracker or NullTracker(), view, cells=cells, finished=finished)
    local = partial(LocalFleet, workspace, threads=threads_per_worker, hang_seconds=hang_seconds)
    with interruptions() as interrupted, view.showing(monitor.progress), contextlib.ExitStack() as opened:
        turns: list[tuple[Fleet | LocalFleet, list[Cell]]] = []
        if wide:
            joined = address or os.environ.get("RAY_ADDRESS")
            ground = opened.enter_context(
                reserve_cluster(wide, address=joined, workers=workers, use_gpu=use_gpu, threads=threads_per_worker)
            )
            group = MultiDeviceRunner(
                use_gpu=ground.use_gpu, device=device, threads=threads_per_worker, plugins=plugins
            )
            turns.append((local(trial=group, workers=min(ground.groups, len(wide))), wide))
            _tell_dashboard(ground.dashboard, joined, view)
        if narrow:
            fleet = Fleet(
                workspace,
                workers=workers or None,
                at_most=len(narrow),
                address=address,
                use_gpu=use_gpu,
                device=device,
                threads_per_worker=threads_per_worker,
                trial=trial,
                plugins=plugins,
                hang_seconds=hang_seconds,
                cells=narrow,
            )
            # Never beside each other: a fleet holds all GPUs, and a group that waits for some of them holds others.
            first = 0 if not wide or forecast.before(narrow, wide) else 1
            turns.insert(first, (local(trial=trial) if workers == 0 else fleet, narrow))
        try:
            for crew, mine in turns:
                if time_up or interrupted.is_set():
                    monitor.feed(Event(kind, cell.cell_id) for cell in mine for kind in ("queued", "cancelled"))
                    continue
                with crew:
                    monitor.progress.workers = crew.workers
                    if isinstance(crew, Fleet) and not wide:
                        _tell_dashboard(crew.dashboard, crew.address, view)
                    ends = None if stop_after is None else began + stop_after
                    time_up = _drive(crew, mine, monitor, interrupted, view, forecast, ends)
        finally:
            monitor.write_status()
    most, _ = max(turns, key=lambda turn: len(turn[1]))
    summary = _summary(monitor.progress, most.workers, began, interrupted=interrupted.is_set())
    return replace(summary, time_up=time_up and not summary.interrupted)


def _tell_dashboard(dashboard: str, address: str | None, view: View) -> None:
    if dashboard:
        view.note(f"Ray dashboard: http://{dashboard}")
    elif not address:
        view.note("Ray: a cluster for this launch alone, without a dashboard; `ray start --head` and --address auto")


def _drive(
    fleet: Fleet | LocalFleet,
    cells: Sequence[Cell],
    monitor: Monitor,
    interrupted: threading.Event,
    view: View,
    forecast: Forecast,
    ends: float | None,
) -> bool:
    """Feeds the fleet and listens until every cell has ended; says whether the time was up before."""
    fleet.submit(forecast.in_turn(cells, fleet.workers), forecast.epoch_seconds(cells))
    stopping = time_up = False
    while True:
        monitor.feed(fleet.drain())
        monitor.progress.workers = fleet.workers
        if not monitor.progress.left:
            return time_up
        if ends is not None and time.monotonic() >= ends and not stopping:
            stopping = time_up = True
            view.note("the time is up: running cells end their epoch. The same command continues.")
            fleet.cancel()
        if interrupted.is_set() and not stopping:
            stopping = True
            view.note("stopping: running cells end their epoch; once more to stop at once. The same command continues.")
            fleet.cancel()
        # After the signal the event stays set, and waiting for it would spin.
        (time.sleep if stopping else interrupted.wait)(fleet.poll_seconds)


def _summary(progress: Progress, workers: int, began: float, *, interrupted: bool) -> FleetSummary:
    now = time.monotonic()
    return FleetSummary(
        done=progress.done,
        failed=progress.failed,
        cancelled=progress.cancelled,
        interrupted=interrupted,
        workers=workers,
        wall_seconds=now - began,
        startup_seconds=(progress.first_start or now) - began,
        steady_seconds=(progress.last_end or now) - (progress.first_start or now),
        cell_seconds=dict(progress.seconds),
    )
