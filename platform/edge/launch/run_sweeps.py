"""Running what is missing of one sweep or of several: the middle of `run`, `demo` and `search`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.launch.rescore import rescore_outdated
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.edge.launch.trackers import Trackers
from crossfold.platform.edge.terminal.console import format_seconds, format_workers, out
from crossfold.platform.edge.terminal.progress import choose_view
from crossfold.platform.edge.tracking.tracker import MlflowTracker, pending_marker
from crossfold.platform.evaluation.ensembles import save_seed_ensembles
from crossfold.platform.execution.cost_history import DurationHistory, cost_keys, save_peaks
from crossfold.platform.execution.duration_forecast import forecast
from crossfold.platform.scheduling.monitor import FleetSummary
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.scheduling.tracker import Tracker
from crossfold.platform.workspace.disk_space import require_space
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.repair import damaged_cells, move_damaged_aside, remove_leftovers
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.launched import remember_sweep
from crossfold.sweeps.prepared import Prepared
from crossfold.sweeps.selection import only


def run_sweeps(
    sweeps: Sequence[Prepared],
    space: Workspace,
    *,
    workers: int | None = None,
    address: str | None = None,
    plugins: Sequence[Path] = (),
    conditions: Sequence[str] = (),
    stop_after: float | None = None,
    silent: bool = False,
) -> FleetSummary:
    """Runs the missing cells of some sweeps on one fleet, those of earlier ones first, and says how it went.

    conditions: `axis=value`, only cells that satisfy them (`turns.only`); what the sweeps owe stays whole.
    stop_after: seconds after which nothing new starts.
    """
    for prepared in [] if silent else sweeps:
        for skipped in prepared.plan.skipped:
            out.print(f"skipped {skipped.label}: {skipped.reason}")
    sweeps = _without_damaged(sweeps, space, silent)
    asked = {cell.cell_id: cell for prepared in sweeps for cell in prepared.plan.cells}
    chosen = {cell.cell_id for cell in only(list(asked.values()), conditions)}
    todo = _first_of_each(sweeps, chosen)
    missing = [cell for cells in todo for cell in cells]
    name = "+".join(prepared.sweep.name for prepared in sweeps)
    if not missing:
        for prepared in sweeps:
            remember_sweep(prepared, space)
            if not silent:
                what = f"all {len(prepared.plan.cells)} cells" if not conditions else "the chosen cells"
                out.print(f"{prepared.sweep.name}: {what} are done; nothing to run")
            _flush_pending(prepared, space)
            rescore_outdated(prepared, space, chosen, plugins=plugins, silent=silent)
        return FleetSummary()
    require_space(space.root)
    with driver_lock(space):
        remove_leftovers(space)
        for prepared, cells in zip(sweeps, todo, strict=True):
            remember_sweep(prepared, space)
            if not silent:
                _announce(prepared, cells, space, bool(conditions))
        if not silent:
            server = os.environ.get("MLFLOW_TRACKING_URI")
            out.print(f"MLflow: {server or f'crossfold mlflow ui -w {space}'}", soft_wrap=True)
        tracker, durations = _launched(sweeps, todo, space), DurationHistory(space)
        try:
            summary = run_cells(
                missing,
                space,
                tracker,
                sweep=name,
                workers=workers,
                address=address,
                plugins=tuple(plugins),
                view=choose_view(json=silent),
                forecast=_forecast(sweeps, todo, space),
                stop_after=stop_after,
                finished=durations.finished,
            )
        finally:
            durations.save()
            tracker.close()
        save_peaks(space, missing)
    if not silent:
        _tell(name, summary, space, {cell.cell_id for cell in missing})
    if not (summary.interrupted or summary.time_up):
        for prepared in sweeps:
            rescore_outdated(prepared, space, chosen, plugins=plugins, silent=silent)
        save_seed_ensembles(space)
    return summary


def _without_damaged(sweeps: Sequence[Prepared], space: Workspace, silent: bool) -> list[Prepared]:
    """Finished cells that are no longer what was committed are set aside, told, and computed again."""
    asked = {cell.cell_id: cell.label for prepared in sweeps for cell in prepared.plan.cells}
    finished = set().union(*(prepared.finished for prepared in sweeps)) & asked.keys()
    damaged = damaged_cells(space, finished)
    if not damaged:
        return list(sweeps)
    with driver_lock(space):
        moved = move_damaged_aside(space, damaged)
    for cell_id, (damage, place) in moved.items() if not silent else ():
        out.print(f"damaged {asked[cell_id]}: {damage}; it is set aside in {place} and runs again")
    return [replace(prepared, finished=prepared.finished - moved.keys()) for prepared in sweeps]


def _first_of_each(sweeps: Sequence[Prepared], chosen: set[str]) -> list[list[Cell]]:
    """The missing chosen cells of each sweep; one that several ask for is run for the first."""
    taken: set[str] = set()
    todo: list[list[Cell]] = []
    for prepared in sweeps:
        todo.append([cell for cell in prepared.missing if cell.cell_id in chosen - taken])
        taken |= {cell.cell_id for cell in todo[-1]}
    return todo


def _announce(prepared: Prepared, cells: Sequence[Cell], space: Workspace, narrowed: bool) -> None:
    total, left = len(prepared.plan.cells), len(prepared.missing)
    chosen = f", {len(cells)} of them chosen" if narrowed else ""
    out.print(
        f"{prepared.sweep.name}: {total} cells, {total - left} done, {left} to run{chosen} in {space}",
        soft_wrap=True,
    )


def _launched(sweeps: Sequence[Prepared], todo: Sequence[Sequence[Cell]], space: Workspace) -> Tracker:
    by_cell: dict[str, Tracker] = {}
    for prepared, cells in zip(sweeps, todo, strict=True):
        tracker = MlflowTracker(space)
        tracker.launch(prepared.sweep.name, cells)
        tracker.catch_up(cell for cell in prepared.plan.cells if cell.cell_id in prepared.finished)
        by_cell |= dict.fromkeys((cell.cell_id for cell in cells), tracker)
    return Trackers(by_cell)


def _flush_pending(prepared: Prepared, space: Workspace) -> None:
    """What the last driver of a sweep did not live, or could not reach MLflow, to tell; else nothing is loaded."""
    if pending_marker(space, prepared.sweep.name).exists():
        with driver_lock(space):
            tracker = MlflowTracker(space)
            tracker.launch(prepared.sweep.name, ())
            tracker.catch_up(cell for cell in prepared.plan.cells if cell.cell_id in prepared.finished)
            tracker.close()


def _forecast(sweeps: Sequence[Prepared], todo: Sequence[Sequence[Cell]], space: Workspace) -> Forecast:
    """How long each cell will take. Nothing is probed where the order could not matter."""
    seconds: dict[str, float] = {}
    by_store: dict[Path, tuple[FeatureStore, list[Cell]]] = {}
    for prepared, cells in zip(sweeps, todo, strict=True):
        by_store.setdefault(prepared.store.path, (prepared.store, []))[1].extend(cells)
    alike = len({key for cells in todo for key in cost_keys(cells).values()}) == 1
    for store, cells in by_store.values():
        # An epoch of a backbone may be longer than one that hangs.
        probe = not alike or any(cell.recipe.backbones for cell in cells[:1])
        seconds |= forecast(cells, space, store, probe=probe)
    priority = {cell.cell_id: place for place, cells in enumerate(todo) for cell in cells}
    return Forecast(seconds, priority)


def _tell(name: str, summary: FleetSummary, space: Workspace, cells: set[str]) -> None:
    out.print(
        f"{name}: {summary.done} done, {summary.failed} failed in {format_seconds(summary.wall_seconds)} on "
        f"{format_workers(summary.workers)}; start-up {format_seconds(summary.startup_seconds)}, "
        f"beyond training {format_seconds(summary.overhead_seconds)}"
    )
    if summary.interrupted:
        out.print("stopped; the same command continues")
    if summary.time_up:
        out.print(f"the time is up; {summary.cancelled} cells are left, and the same command continues")
    unfinished = cells - space.finished()
    last = {failure.cell_id: failure for failure in space.failures_of() if failure.cell_id in unfinished}
    for failure in list(last.values())[-5:] if summary.failed else []:
        out.print(f"  failed ({failure.kind}): {failure.label}: {failure.message}")
        out.print(f"    crossfold why {failure.cell_id}")
