"""Commands that compute: the demo, sweeps, searches, jobs, and the MLflow mirror."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.edge.cli.data import build_store
from crossfold.platform.edge.cli.options import JsonOption, PluginOption, SetOption, WeightsOption, WorkspaceOption
from crossfold.platform.edge.terminal.console import emit, format_seconds, out
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.platform.core.cell import Cell
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.scheduling.monitor import FleetSummary
from dataclasses import asdict, replace

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.cli.options import (
    INTERRUPTED,
    AddressOption,
    ForOption,
    OnlyOption,
    SweepsArgument,
    UntilOption,
    WorkersOption,
    exit_with,
)
from crossfold.platform.scheduling.monitor import FleetSummary


def demo(
    workspace: WorkspaceOption = None,
    clips: Annotated[int, typer.Option(min=8, help="Clips of the embedded corpus.")] = 24,
    workers: WorkersOption = None,
) -> None:
    """Corpus, store, sweep and report on this machine, in minutes. Interrupted, the same command continues."""
    from crossfold.datasets.corpora.embedded.puppets import write_puppets
    from crossfold.platform.edge.cli.data import Bars
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.reports.build import build_report

    space = Workspace.locate(workspace)
    root = space.paths.corpora / f"puppets-{clips}"
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
    summary = _execute(["demo"], space, None, FleetOptions(workers=workers))
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    step("Write the report")
    report = build_report(space)
    times[-1] = (times[-1][0], time.monotonic() - began)
    for title, seconds in times:
        out.print(f"  {format_seconds(seconds):>12}  {title}")
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
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.scheduling.time_budget import budget_seconds

    use_weights(weights)
    check_address(address)
    sources, conditions = _sweeps_and_conditions(sweeps, only)
    space = Workspace.locate(workspace)
    stop_after = budget_seconds(until, lasting)
    options = FleetOptions(workers=workers, address=address, plugins=plugin or (), stop_after=stop_after)
    summary = _execute(sources, space, set_, options, conditions=conditions, silent=as_json)
    if as_json:
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
    options: "FleetOptions",
    *,
    conditions: Sequence[str] = (),
    silent: bool = False,
) -> "FleetSummary":
    from crossfold.platform.edge.launch.preflight import check_before_work
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    # All are read and checked before any work starts.
    asked = [read_sweep(source, overrides, options.plugins) for source in sources]
    prepared = [prepare_cells(sweep, space, narrowed=bool(overrides)) for sweep in asked]
    for each in prepared:
        check_before_work(each, space)
    return run_sweeps(prepared, space, options, conditions=conditions, silent=silent)


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
    """The same as `run`, as a Ray job: the code travels along, the results land in the workspace."""
    from crossfold.platform.edge.fleet import job_submission
    from crossfold.platform.edge.launch.preflight import use_weights
    from crossfold.platform.scheduling.time_budget import moment

    use_weights(weights)
    sources, conditions = _sweeps_and_conditions(sweeps, only)
    job = job_submission.Job(
        sources,
        Workspace.at(workspace).address,
        overrides=tuple(set_ or ()),
        workers=workers,
        plugins=tuple(plugin or ()),
        conditions=conditions,
        until=moment(until, lasting),
    )
    code = job_submission.submit(job, address, wait=not no_wait, show=out.print)
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
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.workspace.driver_lease import driver_lock

    space = Workspace.locate(workspace)
    for path in plugin or ():
        load_plugin(path)
    again, before = _find_cell(space, cell)
    find_system(again.system)
    with driver_lock(space):
        kept = space.move_aside(again.cell_id)
        tracker = MlflowTracker(space)
        tracker.launch("rerun", [again])
        try:
            summary = run_cells(
                [again],
                space,
                FleetOptions(workers=workers, plugins=plugin or ()),
                sweep="rerun",
                tracker_of=lambda cell_id: tracker,
                view=choose_view(),
            )
        finally:
            tracker.close()
            if kept is not None:
                space.restore(again.cell_id, kept)
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


def spelled(summary: FleetSummary) -> dict[str, object]:
    """A summary as plain data, for `--json`."""
    facts = asdict(replace(summary, cell_seconds={}))
    del facts["cell_seconds"]
    return facts | {"overhead_seconds": summary.overhead_seconds}
