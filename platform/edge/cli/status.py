"""What a workspace and this machine hold and lack: `crossfold plan`, `status`, `merge` of several, and `doctor`."""

import contextlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import counted, emit, format_seconds, format_workers, out, say

if TYPE_CHECKING:
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.sweeps.prepared import Prepared

WATCH_SECONDS = 2.0
"""Between two refreshes of `status --watch`."""


def plan(
    sweep: options.Sweep,
    workspace: options.Workspace = None,
    set_: options.Set = None,
    plugin: options.Plugin = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many cells run at a time, for the predicted duration.")
    ] = None,
    weights: options.Weights = None,
    as_json: options.Json = False,
) -> None:
    """Show what a sweep would run: cells in all, done, to run, their time and peak memory, and what is skipped and why.

    Memory was measured on finished cells of the same variant: of a GPU, or what a cell adds to its process on a CPU.
    """
    from crossfold.platform.core.cell import FOLD_RULES
    from crossfold.platform.edge.fleet.cluster import cores
    from crossfold.platform.edge.launch.preflight import check_before_work
    from crossfold.platform.edge.launch.printer import LaunchPrinter
    from crossfold.platform.execution.cost_history import PEAKS, cost_key, format_peaks, startup_seconds
    from crossfold.platform.execution.duration_forecast import forecast
    from crossfold.sweeps.launched import variant_names
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    space = options.open_workspace(workspace)
    prepared = prepare_cells(read_sweep(sweep, set_, space), space)
    check_before_work(prepared, space, weights)
    seconds: dict[str, float] = {}
    for store, cells in prepared.missing_by_store:
        seconds |= forecast(cells, space, store)
    failed = {failure.cell_id for failure in space.failures_of()} - prepared.finished
    slots = workers or cores()
    # The longest cell takes its time however many workers there are.
    begins = startup_seconds(space) if seconds else 0.0
    hours = (begins + max(sum(seconds.values()) / slots, *seconds.values(), 0.0)) / 3600
    variants: dict[str, dict[str, Any]] = {}
    named, peaks = variant_names(prepared.plan.cells), PEAKS.read(space)
    for cell in prepared.plan.cells:
        name = named[cell.cell_id]
        if name not in variants:
            counts = {"cells": 0, "done": 0, "to_run": 0, "failed": 0, "each": 0.0}
            variants[name] = {"variant": name, **counts, "memory": dict(peaks.get(cost_key(cell), {}))}
        row = variants[name]
        row["cells"] += 1
        row["done" if cell.cell_id in prepared.finished else "to_run"] += 1
        row["failed"] += cell.cell_id in failed
        row["each"] = max(row["each"], seconds.get(cell.cell_id, 0.0))
    skipped = [{"system": entry.label, "reason": entry.reason} for entry in prepared.plan.skipped]
    total = {
        "sweep": prepared.sweep.name,
        "store": prepared.store.path.name,
        "stores": [store.path.name for store in prepared.stores],
        "fold_rule": prepared.store.fold_rule,
        "cells": len(prepared.plan.cells),
        "done": len(prepared.plan.cells) - len(prepared.missing),
        "to_run": len(prepared.missing),
        "failed_before": len({cell.cell_id for cell in prepared.missing} & failed),
        "predicted_hours": hours,
        "startup_seconds": begins,
        "workers": slots,
    }
    if as_json:
        emit({**total, "variants": list(variants.values()), "skipped": skipped}, True)
        return
    shown = [
        {
            "variant": row["variant"],
            "cells": row["cells"],
            "done": row["done"],
            "to run": row["to_run"],
            "failed before": row["failed"],
            "time of one": format_seconds(row["each"]) if row["to_run"] else "",
            "peak memory": format_peaks(row["memory"]),
        }
        for row in variants.values()
    ]
    emit(shown, False, f"Plan of {total['sweep']}")
    if skipped:
        emit(skipped, False, "Skipped")
    listed = ", ".join(str(fold) for fold in prepared.sweep.folds)
    say(
        f"{counted(len(prepared.plan.cells), 'cell')} on {_stores(prepared)}: "
        f"{total['done']} done, {total['to_run']} to run, "
        f"about {format_seconds(hours * 3600)} with {format_workers(slots)}"
        + (f", {format_seconds(begins)} of it to start them" if begins else ""),
        f"folds {listed}: {total['fold_rule']} ({FOLD_RULES[prepared.store.fold_rule]})",
    )
    LaunchPrinter(space, silent=False).earlier_folds(prepared)


def _stores(prepared: "Prepared") -> str:
    stores = prepared.stores
    return stores[0].path.name if len(stores) == 1 else f"{len(stores)} doses, such as {stores[-1].path.name}"


def status(
    sweep: options.LaunchedSweep = None,
    workspace: options.Workspace = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until all is done.")] = False,
    cells: Annotated[bool, typer.Option("--cells", help="List every cell with its id, state and CCC.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show how far the launched sweeps are, from any machine that sees the workspace."""
    from rich.live import Live

    from crossfold.platform.edge.terminal.status import cell_rows, picture, read_status

    space = options.open_workspace(workspace)
    if cells:
        if watch:
            raise UserError("--watch has no list of cells", "leave out --cells or --watch")
        emit(cell_rows(space, sweep), as_json, "Cells")
        return
    state = read_status(space, sweep)
    if as_json:
        emit(state.sweeps, True)
        return
    if not state.sweeps:
        say(f"no sweep was launched in {space} yet")
        return
    if not watch:
        out.print(picture(state))
        return
    with Live(picture(state), console=out, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while not state.over:
            time.sleep(WATCH_SECONDS)
            state = read_status(space, sweep)
            live.update(picture(state), refresh=True)


def merge(
    others: Annotated[
        list[str], typer.Argument(metavar="WORKSPACE...", help="The workspaces to join to this one: folders or URLs.")
    ],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Join other workspaces to this one: cells by identity, stores, failures and sweeps. Those stay as they are.

    It exits with 1 if the same cell or sweep differs; then the one that is here stays, and the other is kept aside.
    """
    from crossfold.platform.edge.launch.preflight import driving
    from crossfold.platform.workspace.merge import check_sources
    from crossfold.platform.workspace.merge import merge as join
    from crossfold.platform.workspace.workspace import Workspace

    space = options.open_workspace(workspace)
    sources = [Workspace.at(other) for other in others]
    for source in sources:
        source.download_all()
        # What both have is compared byte by byte.
        space.download_cells(space.finished() & source.finished())
    check_sources(space, sources)
    with driving(space):
        merged = join(space, sources)
    if as_json:
        emit(asdict(merged), True)
    else:
        say(
            f"{counted(merged.cells, 'cell')} joined, {merged.same} already here; {counted(merged.stores, 'store')}, "
            f"{counted(merged.sweeps, 'sweep')}, {counted(merged.failures, 'failure')}, "
            f"{counted(merged.rescored, 'other score')}"
        )
        rows = [
            {
                "what": conflict.what,
                "name": conflict.label,
                "from": conflict.workspace,
                "differs in": conflict.differs,
                "CCC": [f"{target} {values}" for target, values in conflict.values.items()],
                "kept in": conflict.kept,
            }
            for conflict in merged.conflicts
        ]
        if rows:
            emit(rows, False, "Conflicts: what was here stays; the other is kept aside")
        for line in merged.damaged:
            say(f"left out: {line}")
        if merged.cells or merged.failures:
            say("next: crossfold mlflow sync, so that MLflow shows them, and crossfold report")
    if merged.conflicts or merged.damaged:
        raise typer.Exit(1)


def doctor(workspace: options.Workspace = None, weights: options.Weights = None, as_json: options.Json = False) -> None:
    """Check what Crossfold needs on this machine and say what to do. It exits with 2 if something needed is missing.

    Only recipes with backbones need pretrained weights. So missing ones are optional, but damaged ones are not.
    """
    from crossfold.platform.edge.diagnostics.finding import row
    from crossfold.platform.edge.diagnostics.machine import machine_rows, weights_rows

    space, error = _reachable(workspace)
    rows = machine_rows(space.root)
    if error is not None:
        rows.append(row("workspace URL", False, error.problem, error.remedy))
    elif space.mirror is not None:
        rows.append(row("workspace URL", True, f"{space} can be read and written"))
    rows += weights_rows(space, weights)
    emit(rows, as_json, "Doctor")
    if any(row["state"] in ("missing", "damaged") for row in rows):
        raise typer.Exit(2)


def _reachable(given: str | None) -> "tuple[Workspace, UserError | None]":
    """A workspace, and what is wrong with its URL; then the workspace is only the folder that would be used here."""
    from crossfold.platform.workspace.workspace import Workspace

    try:
        space = Workspace.at(given)
        if space.mirror is not None:
            space.mirror.files.check(write=True)
    except UserError as error:
        return Workspace(Path(".crossfold")), error
    return space, None
