"""Runs cells to their ends: chooses the workers that suit them, and drives one set of workers after the other."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.fleet.multi_device import MultiDeviceRunner, reserve_cluster
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.scheduling.drive import OpenPool, WorkerPool, drive
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.scheduling.monitor import FleetSummary, Monitor, SilentView, View
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.scheduling.stop_signals import stop_request
from crossfold.platform.scheduling.tracker import TrackerOf
from crossfold.platform.workspace.workspace import Workspace


def run_cells(
    cells: Sequence[Cell],
    workspace: Workspace,
    options: FleetOptions | OpenPool | None = None,
    *,
    sweep: str = "cells",
    tracker_of: TrackerOf = lambda cell_id: None,
    view: View | None = None,
    forecast: Forecast | None = None,
    finished: Callable[[Cell, float], None] = lambda cell, seconds: None,
) -> FleetSummary:
    """Runs cells to their ends. The caller leaves out finished ones, and launches and closes the trackers.

    One Ctrl-C (or SIGTERM) lets each running cell end its epoch, a second one stops at once; either way the same call
    continues later. Raises `FleetError` if the workers cannot go on.

    options: of the workers to start; or workers that are there already, for cells with one device each.
    forecast: decides the order of the cells once the number of workers is known; by default they go as given.
    finished: see `Monitor`.
    """
    if not cells:
        return FleetSummary()
    options, view, forecast = options or FleetOptions(), view or SilentView(), forecast or Forecast()
    monitor = Monitor(sweep, workspace, view, tracker_of, cells=cells, finished=finished)
    stop_after = options.stop_after
    with stop_request(stop_after) as stop, view.showing(monitor.progress), contextlib.ExitStack() as opened:
        pools = _pools(cells, workspace, options, forecast, view, opened)
        try:
            for pool, mine in pools:
                if stop.active.is_set() or stop.interrupted.is_set():
                    monitor.feed(Event(kind, cell.cell_id) for cell in mine for kind in ("queued", "cancelled"))
                    continue
                there = isinstance(options, OpenPool)
                with contextlib.nullcontext() if there else pool:
                    if isinstance(pool, Fleet) and len(pools) == 1 and not there:
                        _note_cluster(view, pool.note)
                    monitor.progress.workers = pool.workers
                    pool.submit(forecast.in_turn(mine, pool.workers), forecast.epoch_seconds(mine))
                    drive(pool, monitor, stop, lambda: not monitor.progress.left)
        finally:
            monitor.write_status()
    largest, _ = max(pools, key=lambda turn: len(turn[1]))
    return monitor.progress.summary(largest.workers, interrupted=stop.interrupted.is_set(), time_up=stop.time_up)


def _pools(
    cells: Sequence[Cell],
    workspace: Workspace,
    options: FleetOptions | OpenPool,
    forecast: Forecast,
    view: View,
    opened: contextlib.ExitStack,
) -> list[tuple[WorkerPool, Sequence[Cell]]]:
    """Workers and their cells, in the order in which they run. What they share stays until `opened` closes."""
    if isinstance(options, OpenPool):
        return [(options.pool, cells)]
    if options.workers == 0:
        return [(LocalFleet(workspace, options), cells)]
    single = [cell for cell in cells if cell.recipe.devices == 1]
    several = [cell for cell in cells if cell.recipe.devices > 1]
    pools: list[tuple[WorkerPool, Sequence[Cell]]] = []
    if single:
        pools.append((Fleet(workspace, options, cells=single), single))
    if several:
        slots = opened.enter_context(reserve_cluster(several, options))
        _note_cluster(view, slots.note)
        runner = MultiDeviceRunner(options, use_gpu=slots.use_gpu)
        groups = LocalFleet(workspace, replace(options, runner=runner), threads=min(slots.groups, len(several)))
        # Never at the same time: a fleet holds all GPUs, and a group that waits for some of them holds others.
        pools.insert(len(pools) if single and forecast.before(single, several) else 0, (groups, several))
    return pools


def _note_cluster(view: View, note: str) -> None:
    if note:
        view.note(note)
