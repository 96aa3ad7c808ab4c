"""Commands that compute: the demo, sweeps, searches, jobs, and the MLflow mirror."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.edge.cli_data import build_store
from crossfold.platform.edge.console import (
    JsonOption,
    PluginOption,
    SetOption,
    WorkspaceOption,
    emit,
    out,
    spell_seconds,
)
from crossfold.platform.errors import UserError
from crossfold.platform.registry import load_plugin
from crossfold.platform.results import Workspace

if TYPE_CHECKING:
    from crossfold.platform.contracts import Cell
    from crossfold.platform.edge.launch import Prepared
    from crossfold.platform.edge.ray_fleet import FleetSummary

WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Cells at a time; 0 runs them in this process without Ray.", show_default="cores"),
]
AddressOption = Annotated[str | None, typer.Option(help="A Ray cluster, as `auto` or `ray://head:10001`.")]


INTERRUPTED = 130
"""Exit code of a run that was stopped before its end, as shells have it."""


def _exit_with(summary: "FleetSummary") -> None:
    """1 if cells failed, 130 if the run was stopped, else nothing."""
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    if summary.failed:
        raise typer.Exit(1)


def demo(
    workspace: WorkspaceOption = None,
    clips: Annotated[int, typer.Option(min=8, help="Clips of the embedded corpus.")] = 24,
    workers: WorkersOption = None,
) -> None:
    """Corpus, store, sweep and report on this machine, in minutes. Interrupted, the same command continues."""
    from crossfold.datasets.puppets import write_puppets
    from crossfold.platform.edge.cli_data import Bars
    from crossfold.reports.build import build_report

    space = Workspace.locate(workspace)
    root = space.root / "corpora" / f"puppets-{clips}"
    times: list[tuple[str, float]] = []
    began = time.monotonic()

    def step(title: str) -> None:
        nonlocal began
        now = time.monotonic()
        if times:
            times[-1] = (times[-1][0], now - began)
        began = now
        times.append((title, 0.0))
        out.print(f"[bold]{len(times)}. {title}[/]")

    step("Make the corpus: rendered faces and synthesised speech with known valence and arousal")
    with Bars() as bars:
        write_puppets(root, clips=clips, progress=bars.clips)
    step("Prepare the feature store: audio and video to features, one row a frame")
    build_store(space, "puppets", root)
    step("Run the sweep `demo`: 10 variants x 2 targets x 2 folds x 3 seeds, each a cell on a Ray Train worker")
    summary = _execute("demo", space, None, None, workers, None, silent=False)
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    step("Write the report")
    report = build_report(space)
    times[-1] = (times[-1][0], time.monotonic() - began)
    for title, seconds in times:
        out.print(f"  {spell_seconds(seconds):>12}  {title}", markup=False)
    out.print(report.summary, markup=False)
    page = next((path for path in report.paths if path.suffix == ".html"), report.paths[0])
    out.print(f"report: {page}", markup=False, soft_wrap=True)
    _exit_with(summary)


def run(
    sweep: Annotated[str, typer.Argument(help="A YAML file, or the name of a sweep that ships.")],
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    plugin: PluginOption = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Execute what is missing. The same command continues whatever was interrupted; nothing finished runs again."""
    space = Workspace.locate(workspace)
    summary = _execute(sweep, space, set_, plugin, workers, address, silent=as_json)
    if as_json:
        emit(_spelled(summary), True)
    _exit_with(summary)


def _execute(
    source: str,
    space: Workspace,
    overrides: Sequence[str] | None,
    plugins: Sequence[Path] | None,
    workers: int | None,
    address: str | None,
    *,
    silent: bool,
) -> "FleetSummary":
    from crossfold.platform.edge.launch import prepare_cells, read_sweep

    prepared = prepare_cells(read_sweep(source, overrides, plugins), space, narrowed=bool(overrides))
    return _run_prepared(prepared, space, workers, address, silent, plugins)


def _run_prepared(
    prepared: "Prepared",
    space: Workspace,
    workers: int | None,
    address: str | None,
    silent: bool,
    plugins: Sequence[Path] | None = None,
) -> "FleetSummary":
    """Runs the missing cells of a sweep and says how it went."""
    from crossfold.platform.edge.launch import remember_sweep
    from crossfold.platform.edge.local_fleet import driver_lock
    from crossfold.platform.edge.mlflow_tracker import MlflowTracker
    from crossfold.platform.edge.progress import choose_view
    from crossfold.platform.edge.ray_fleet import FleetSummary, run_cells
    from crossfold.platform.forecast import remember

    name, missing, total = prepared.sweep.name, prepared.missing, len(prepared.plan.cells)
    for skipped in [] if silent else prepared.plan.skipped:
        out.print(f"skipped {skipped.label}: {skipped.reason}", markup=False)
    if not missing:
        remember_sweep(prepared, space)
        if not silent:
            out.print(f"{name}: all {total} cells are done; nothing to run")
        return FleetSummary()
    with driver_lock(space):
        if not silent:
            out.print(f"{name}: {total} cells, {total - len(missing)} done, {len(missing)} to run in {space.root}")
        remember_sweep(prepared, space)
        tracker = MlflowTracker(space)
        tracker.launch(name, missing)
        tracker.catch_up(cell for cell in prepared.plan.cells if cell.cell_id in prepared.finished)
        try:
            summary = run_cells(
                missing,
                space,
                tracker,
                sweep=name,
                workers=workers,
                address=address,
                plugins=tuple(plugins or ()),
                view=choose_view(json=silent),
            )
        finally:
            tracker.close()
        remember(space, missing)
    if not silent:
        _tell(name, summary, space, {cell.cell_id for cell in missing})
    return summary


def _tell(name: str, summary: "FleetSummary", space: Workspace, cells: set[str]) -> None:
    out.print(
        f"{name}: {summary.done} done, {summary.failed} failed in {spell_seconds(summary.wall_seconds)} on "
        f"{summary.workers} workers; start-up {spell_seconds(summary.startup_seconds)}, "
        f"beyond training {spell_seconds(summary.overhead_seconds)}"
    )
    if summary.interrupted:
        out.print("stopped; the same command continues")
    unfinished = cells - space.finished()
    last = {failure.cell_id: failure for failure in space.failures_of() if failure.cell_id in unfinished}
    for failure in list(last.values())[-5:] if summary.failed else []:
        out.print(f"  failed ({failure.kind}): {failure.label}: {failure.message}", markup=False)
        out.print(f"    crossfold why {failure.cell_id}", markup=False)


def _spelled(summary: "FleetSummary") -> dict[str, object]:
    return {
        "done": summary.done,
        "failed": summary.failed,
        "cancelled": summary.cancelled,
        "interrupted": summary.interrupted,
        "workers": summary.workers,
        "wall_seconds": summary.wall_seconds,
        "startup_seconds": summary.startup_seconds,
        "overhead_seconds": summary.overhead_seconds,
    }


def search(
    sweep: Annotated[str, typer.Argument(help="A YAML file with a `space`, or the name of one that ships.")],
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; else as the file says.")] = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    only_search: Annotated[bool, typer.Option("--only-search", help="Do not run the winner's cells.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Search with Ray Tune and Optuna on inner folds, then run the winner as ordinary cells.

    A killed search is topped up to the same number of trials by the same command.
    """
    from crossfold.datasets.store import FeatureStore
    from crossfold.platform.edge.launch import prepare_cells, read_search
    from crossfold.platform.edge.local_fleet import driver_lock
    from crossfold.platform.edge.tune_search import run_search
    from crossfold.sweeps.plan import check_space, winner_sweep

    for path in plugin or ():
        load_plugin(path)
    space = Workspace.locate(workspace)
    asked = read_search(sweep, set_)
    store = FeatureStore(space.find_store(asked.corpus, asked.store))
    check_space(asked, store)
    with driver_lock(space):
        result = run_search(asked, store, space, trials=trials, workers=workers, address=address, tell=_say)
    out.print(f"{asked.name}: best mean CCC of the inner folds {result.best_value:.4f} with {result.best_params}")
    if only_search:
        return
    winner = prepare_cells(winner_sweep(asked, result.best_params), space)
    _exit_with(_run_prepared(winner, space, workers, address, False, plugin))


def _say(text: str) -> None:
    out.print(text, markup=False)


def submit(
    sweep: Annotated[str, typer.Argument(help="A YAML file, or the name of a sweep that ships.")],
    address: Annotated[str, typer.Option(help="The dashboard of the Ray head, such as http://127.0.0.1:8265.")],
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    workers: WorkersOption = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; `crossfold status` tells the rest.")
    ] = False,
) -> None:
    """The same as `run`, as a Ray job: the code travels as a wheel, the results land in the workspace."""
    from crossfold.platform.edge import ray_jobs

    code = ray_jobs.submit(
        sweep,
        address,
        Workspace.locate(workspace).root,
        wait=not no_wait,
        overrides=tuple(set_ or ()),
        workers=workers,
        tell=_say,
    )
    if code:
        raise typer.Exit(code)


def rerun(
    cell: Annotated[str, typer.Argument(help="A cell id, or its first digits.")],
    workspace: WorkspaceOption = None,
    workers: Annotated[int, typer.Option(min=0, help="0 runs it in this process, without Ray.")] = 0,
    plugin: PluginOption = None,
) -> None:
    """Compute one finished or failed cell again, and say whether the numbers are the same."""
    from crossfold.fusion_models.catalogue import find_system
    from crossfold.platform.edge.local_fleet import driver_lock
    from crossfold.platform.edge.mlflow_tracker import MlflowTracker
    from crossfold.platform.edge.progress import choose_view
    from crossfold.platform.edge.ray_fleet import run_cells

    space = Workspace.locate(workspace)
    for path in plugin or ():
        load_plugin(path)
    again, before = _find_cell(space, cell)
    find_system(again.system)
    with driver_lock(space):
        kept = space.set_aside(again.cell_id)
        tracker = MlflowTracker(space)
        tracker.launch("rerun", [again])
        try:
            summary = run_cells(
                [again],
                space,
                tracker,
                sweep="rerun",
                workers=workers,
                plugins=tuple(plugin or ()),
                view=choose_view(),
            )
        finally:
            tracker.close()
            if kept is not None:
                space.put_back(again.cell_id, kept)
    if summary.done == 0:
        out.print(f"not finished; crossfold why {again.cell_id}")
        raise typer.Exit(1)
    after = space.read_exactly(again.cell_id).result["metrics"]
    for target, metrics in after.items():
        was = before[target]["ccc"] if before else None
        same = "" if was is None else " (as before)" if was == metrics["ccc"] else f" (before: {was!r})"
        out.print(f"{again.label}: {target} CCC {metrics['ccc']:.6f}{same}")


def _find_cell(space: Workspace, cell: str) -> "tuple[Cell, dict[str, dict[str, float]] | None]":
    """A finished cell with its metrics, or a planned one of a launched sweep."""
    from crossfold.platform.edge.launch import find_launched

    if any(name.startswith(cell) for name in space.finished()):
        record = space.read(cell)
        return record.cell, record.result["metrics"]
    planned = find_launched(space, cell)
    if planned is not None:
        return planned, None
    raise UserError(f"no cell {cell!r} in {space.root}", "crossfold status, or the ids in the report")


def mlflow_ui(
    workspace: WorkspaceOption = None, port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000
) -> None:
    """Open the MLflow pages of this workspace in a local server."""
    from crossfold.platform.edge.mlflow_tracker import ui_command

    space = Workspace.locate(workspace)
    if not (space.root / "mlflow.db").is_file():
        raise UserError(f"no mlflow.db in {space.root}", "run a sweep first, or `crossfold mlflow sync`")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is in use", "give another --port")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(ui_command(space, port), env=environment, start_new_session=True)
    out.print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C stops it)")

    def stop(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    code = server.wait()
    raise typer.Exit(0 if code in (0, -signal.SIGTERM) else 1)


def mlflow_sync(workspace: WorkspaceOption = None) -> None:
    """Rebuild the MLflow mirror from the workspace; only what is missing is written."""
    from crossfold.platform.edge.mlflow_tracker import sync

    out.print(str(sync(Workspace.locate(workspace))), markup=False)
