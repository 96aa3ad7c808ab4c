"""Runs what is missing of one sweep or of several: the middle of `run`, `demo` and `search`."""

from collections.abc import Sequence, Set
from dataclasses import replace

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.launch.forecast_launch import forecast_launch
from crossfold.platform.edge.launch.preflight import check_cluster, check_graphs, driving, move_damaged, tidy
from crossfold.platform.edge.launch.printer import LaunchPrinter
from crossfold.platform.edge.launch.rescore import rescore_outdated
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.edge.launch.trackers import flush_pending, tracked
from crossfold.platform.evaluation.ensembles import save_seed_ensembles
from crossfold.platform.execution.cost_history import DurationHistory, save_peaks, save_startup
from crossfold.platform.scheduling.drive import OpenPool, WorkerPool
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import FleetSummary
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.launched import remember_sweep
from crossfold.sweeps.prepared import Prepared
from crossfold.sweeps.selection import only


def run_sweeps(
    sweeps: Sequence[Prepared],
    space: Workspace,
    options: FleetOptions | None = None,
    *,
    conditions: Sequence[str] = (),
    silent: bool = False,
    pool: WorkerPool | None = None,
) -> FleetSummary:
    """Runs the missing cells of some sweeps on one fleet, those of earlier sweeps first; returns how it went.

    conditions: `axis=value`, only cells that satisfy them (`selection.only`).
    pool: workers that are there already, for cells with one device each; else a fleet starts.
    """
    options, printer = options or FleetOptions(), LaunchPrinter(space, silent=silent)
    printer.skipped(sweeps)
    for prepared in sweeps:
        printer.earlier_folds(prepared)
        printer.seen(prepared)
    sweeps = _without_damaged(sweeps, space, printer)
    every = {cell.cell_id: cell for prepared in sweeps for cell in prepared.plan.cells}
    chosen = {cell.cell_id for cell in only(list(every.values()), conditions)}
    todo = _first_of_each(sweeps, chosen)
    missing = [cell for cells in todo for cell in cells]
    if not missing:
        for prepared in sweeps:
            printer.recomputed(prepared, remember_sweep(prepared, space))
            printer.nothing_to_run(prepared, conditions)
            flush_pending(prepared, space)
            rescore_outdated(prepared, space, chosen, plugins=options.plugins, silent=silent)
        # A driver that was killed after its last cell left this undone.
        save_seed_ensembles(space, chosen)
        tidy(space)
        return FleetSummary()
    check_cluster(options)
    check_graphs(missing, options)
    name = "+".join(prepared.sweep.name for prepared in sweeps)
    with driving(space):
        for prepared, cells in zip(sweeps, todo, strict=True):
            printer.recomputed(prepared, remember_sweep(prepared, space))
            printer.begins(prepared, cells, conditions)
        printer.mlflow()
        durations = DurationHistory(space)
        with tracked(sweeps, todo, space) as tracker_of:
            try:
                summary = run_cells(
                    missing,
                    space,
                    options if pool is None else OpenPool(pool, options.stop_after),
                    sweep=name,
                    tracker_of=tracker_of,
                    view=printer.view(sweeps),
                    forecast=forecast_launch(sweeps, todo, space),
                    finished=durations.finished,
                )
            finally:
                durations.save()
        save_peaks(space, missing)
        if options.workers != 0 and pool is None and summary.cell_seconds:
            save_startup(space, summary.startup_seconds)
    printer.ended(name, summary, {cell.cell_id for cell in missing})
    if not (summary.interrupted or summary.time_up):
        for prepared in sweeps:
            rescore_outdated(prepared, space, chosen, plugins=options.plugins, silent=silent)
        save_seed_ensembles(space)
    return summary


def _without_damaged(sweeps: Sequence[Prepared], space: Workspace, printer: LaunchPrinter) -> list[Prepared]:
    """Finished cells that are no longer what was committed are moved aside, reported, and computed again."""
    labels = {cell.cell_id: cell.label for prepared in sweeps for cell in prepared.plan.cells}
    finished: Set[str] = set().union(*(prepared.finished for prepared in sweeps)) & labels.keys()
    moved = move_damaged(space, finished)
    for cell_id, (damage, place) in moved.items():
        printer.damaged(labels[cell_id], damage, place)
    return [replace(prepared, finished=prepared.finished - moved.keys()) for prepared in sweeps]


def _first_of_each(sweeps: Sequence[Prepared], chosen: Set[str]) -> list[list[Cell]]:
    """The missing chosen cells of each sweep; one that several ask for is run for the first."""
    taken: set[str] = set()
    todo: list[list[Cell]] = []
    for prepared in sweeps:
        todo.append([cell for cell in prepared.missing if cell.cell_id in chosen - taken])
        taken |= {cell.cell_id for cell in todo[-1]}
    return todo
