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

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.edge.cli_data import build_store
from crossfold.platform.edge.terminal.console import (
    JsonOption,
    PluginOption,
    SetOption,
    WeightsOption,
    WorkspaceOption,
    emit,
    out,
    spell_seconds,
)
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.platform.core.cell import Cell
    from crossfold.platform.scheduling.monitor import FleetSummary


WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Cells at a time; 0 runs them in this process without Ray.", show_default="cores"),
]
AddressOption = Annotated[str | None, typer.Option(help="A Ray cluster, as `auto` or `ray://head:10001`.")]
SweepsArgument = Annotated[
    list[str],
    typer.Argument(metavar="SWEEP...", help="YAML files, or names of sweeps that ship; earlier ones go first."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(help="axis=value: only such cells, as --only system=hgrjca,rjca fold=0.", show_default=False),
]
UntilOption = Annotated[str | None, typer.Option(help="Start nothing after this time, as 08:00.", show_default=False)]
ForOption = Annotated[
    str | None, typer.Option("--for", help="Start nothing after so long, as 2h or 90m.", show_default=False)
]

TIME_UP = 3
"""Exit code of a run whose `--until` or `--for` came before its end."""
INTERRUPTED = 130
"""Exit code of a run that was stopped before its end, as shells have it."""


def exit_with(summary: "FleetSummary") -> None:
    """130 if the run was stopped, 3 if its time was up, 1 if cells failed, else nothing."""
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    if summary.time_up:
        raise typer.Exit(TIME_UP)
    if summary.failed:
        raise typer.Exit(1)


def demo(
    workspace: WorkspaceOption = None,
    clips: Annotated[int, typer.Option(min=8, help="Clips of the embedded corpus.")] = 24,
    workers: WorkersOption = None,
) -> None:
    """Corpus, store, sweep and report on this machine, in minutes. Interrupted, the same command continues."""
    from crossfold.datasets.corpora.embedded.puppets import write_puppets
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
        out.print(f"{len(times)}. {title}", style="bold")

    step("Make the corpus: rendered faces and synthesised speech with known valence and arousal")
    with Bars() as bars:
        write_puppets(root, clips=clips, progress=bars.clips)
    step("Prepare the feature store: audio and video to features, one row a frame")
    build_store(space, "puppets", root)
    step("Run the sweep `demo`: 10 variants x 2 targets x 2 folds x 3 seeds, each a cell on a Ray Train worker")
    summary = _execute(["demo"], space, None, None, workers, None, silent=False)
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    step("Write the report")
    report = build_report(space)
    times[-1] = (times[-1][0], time.monotonic() - began)
    for title, seconds in times:
        out.print(f"  {spell_seconds(seconds):>12}  {title}")
    out.print(report.summary)
    page = next((path for path in report.paths if path.suffix == ".html"), report.paths[0])
    out.print(f"report: {page}", soft_wrap=True)
    exit_with(summary)


def run(
    sweeps: SweepsArgument,
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    plugin: PluginOption = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    only: OnlyOption = None,
    until: UntilOption = None,
    lasting: ForOption = None,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Execute what is missing. The same command continues whatever was interrupted; nothing finished runs again.

    Exits with 0 when all is done, 1 if cells failed, 3 when the time of --until or --for was up before the end, and 130
    when it was stopped. Cells that run when the time is up end their epoch and keep it.
    """
    from crossfold.platform.edge.launch.preflight import check_address, use_weights
    from crossfold.platform.scheduling.time_budget import budget_seconds

    use_weights(weights)
    check_address(address)
    sources, conditions = _sweeps_and_conditions(sweeps, only)
    space = Workspace.locate(workspace)
    summary = _execute(
        sources,
        space,
        set_,
        plugin,
        workers,
        address,
        conditions=conditions,
        stop_after=budget_seconds(until, lasting),
        silent=as_json,
    )
    if as_json:
        from crossfold.platform.edge.launch.run_sweeps import spelled

        emit(spelled(summary), True)
    exit_with(summary)


def _sweeps_and_conditions(sweeps: Sequence[str], only: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """What is a sweep and what a condition: `--only system=hgrjca fold=0` leaves the second one among the sweeps."""
    loose = [text for text in sweeps if "=" in text and not Path(text).exists()]
    if loose and not only:
        raise UserError(f"{loose[0]!r} is no sweep", "write conditions after --only, settings after --set")
    sources = list(dict.fromkeys(text for text in sweeps if text not in loose))
    if not sources:
        raise UserError("no sweep is named", "crossfold list sweeps")
    return sources, [*(only or ()), *loose]


def _execute(
    sources: Sequence[str],
    space: Workspace,
    overrides: Sequence[str] | None,
    plugins: Sequence[Path] | None,
    workers: int | None,
    address: str | None,
    *,
    conditions: Sequence[str] = (),
    stop_after: float | None = None,
    silent: bool,
) -> "FleetSummary":
    from crossfold.platform.edge.launch.preflight import check_before_work
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    # All are read and checked before any work starts.
    asked = [read_sweep(source, overrides, plugins) for source in sources]
    prepared = [prepare_cells(sweep, space, narrowed=bool(overrides)) for sweep in asked]
    for each in prepared:
        check_before_work(each, space)
    return run_sweeps(
        prepared,
        space,
        workers=workers,
        address=address,
        plugins=plugins or (),
        conditions=conditions,
        stop_after=stop_after,
        silent=silent,
    )


def search(
    sweep: Annotated[str, typer.Argument(help="A YAML file with a `space`, or the name of one that ships.")],
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; else as the file says.")] = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    only_search: Annotated[bool, typer.Option("--only-search", help="Do not run the winner's cells.")] = False,
    until: UntilOption = None,
    lasting: ForOption = None,
    plugin: PluginOption = None,
    weights: WeightsOption = None,
) -> None:
    """Search with Ray Tune and Optuna on inner folds, then run the winner as ordinary cells.

    A killed search is topped up to the same number of trials by the same command. Exits as `run` does.
    """
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.edge.launch.preflight import check_address, check_search, use_weights
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.platform.edge.search.run_search import run_search
    from crossfold.platform.scheduling.time_budget import budget_seconds
    from crossfold.platform.workspace.disk_space import need_room
    from crossfold.platform.workspace.driver_lease import driver_lock
    from crossfold.sweeps.prepared import prepare_cells, read_search
    from crossfold.sweeps.trials import winner_sweep

    for path in plugin or ():
        load_plugin(path)
    began, stop_after = time.monotonic(), budget_seconds(until, lasting)
    space = Workspace.locate(workspace)
    asked = read_search(sweep, set_)
    store = FeatureStore(space.find_store(asked.corpus, asked.store))
    use_weights(weights)
    check_address(address)
    check_search(asked, store, space)
    need_room(space.root)
    with driver_lock(space):
        result = run_search(
            asked,
            store,
            space,
            trials=trials,
            workers=workers,
            address=address,
            tell=print_line,
            plugins=tuple(plugin or ()),
            stop_after=stop_after,
        )
    if result is None:
        raise typer.Exit(TIME_UP)
    out.print(f"{asked.name}: best mean CCC of the inner folds {result.best_value:.4f} with {result.best_params}")
    if only_search:
        return
    winner = prepare_cells(winner_sweep(asked, result.best_params), space)
    left = None if stop_after is None else stop_after - (time.monotonic() - began)
    exit_with(run_sweeps([winner], space, workers=workers, address=address, plugins=plugin or (), stop_after=left))


def print_line(text: str) -> None:
    """Prints a line of progress."""
    out.print(text)


def submit(
    sweeps: SweepsArgument,
    address: Annotated[str, typer.Option(help="The dashboard of the Ray head, such as http://127.0.0.1:8265.")],
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    workers: WorkersOption = None,
    plugin: PluginOption = None,
    only: OnlyOption = None,
    until: UntilOption = None,
    lasting: ForOption = None,
    weights: WeightsOption = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; `crossfold status` tells the rest.")
    ] = False,
) -> None:
    """The same as `run`, as a Ray job: the code travels as a wheel, the results land in the workspace."""
    from crossfold.platform.edge.fleet import job_submission
    from crossfold.platform.edge.launch.preflight import use_weights
    from crossfold.platform.scheduling.time_budget import moment

    use_weights(weights)
    sources, conditions = _sweeps_and_conditions(sweeps, only)
    code = job_submission.submit(
        sources,
        address,
        Workspace.at(workspace).address,
        wait=not no_wait,
        overrides=tuple(set_ or ()),
        workers=workers,
        plugins=tuple(plugin or ()),
        conditions=conditions,
        until=moment(until, lasting),
        tell=print_line,
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
    from crossfold.platform.edge.launch.run_cells import run_cells
    from crossfold.platform.edge.terminal.progress import choose_view
    from crossfold.platform.edge.tracking.tracker import MlflowTracker
    from crossfold.platform.workspace.driver_lease import driver_lock

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
    from crossfold.sweeps.launched import find_launched

    if any(name.startswith(cell) for name in space.finished()):
        record = space.read(cell)
        return record.cell, record.result["metrics"]
    planned = find_launched(space, cell)
    if planned is not None:
        return planned, None
    raise UserError(f"no cell {cell!r} in {space}", "crossfold status, or the ids in the report")


def mlflow_ui(
    workspace: WorkspaceOption = None, port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000
) -> None:
    """Open the MLflow pages of this workspace in a local server."""
    from crossfold.platform.edge.tracking.sync import ui_command

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
    from crossfold.platform.edge.tracking.sync import sync

    out.print(str(sync(Workspace.locate(workspace))))
