"""Commands that run sweeps: here, on a cluster, as a job of a cluster, and the demo."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.cli.data import build_store, progress_bars
from crossfold.platform.edge.terminal.console import emit, format_seconds, out, say

if TYPE_CHECKING:
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.scheduling.monitor import FleetSummary
    from crossfold.platform.workspace.workspace import Workspace


NEXT_STEPS = (
    ("crossfold new system my_fusion", "write a fusion model of your own"),
    ("crossfold validate manifest --root DIR", "check data of your own"),
    ("crossfold predict rjca VIDEO", "predict a video with what was just trained"),
    ("crossfold mlflow ui", "show runs and curves in MLflow"),
)
"""What a newcomer may do after the demo: commands, and what each does."""


def demo(
    workspace: options.Workspace = None,
    clips: Annotated[int, typer.Option(min=8, max=10_000, help="Clips of the embedded corpus.")] = 24,
    workers: options.Workers = None,
) -> None:
    """Make a corpus, a store, a sweep and a report on this machine, in minutes.

    If it is interrupted, the same command continues.
    """
    from crossfold.datasets.corpora.embedded.puppets import write_puppets
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.reports.build import build_report
    from crossfold.reports.tables.summary import leaderboard_rows, leaderboard_title

    space = options.open_workspace(workspace)
    root = space.root / "corpora" / f"puppets-{clips}"
    times: dict[str, float] = {}

    @contextmanager
    def step(title: str) -> Iterator[None]:
        out.print(f"{len(times) + 1}. {title}", style="bold")
        began = time.monotonic()
        yield
        times[title] = time.monotonic() - began

    with (
        step("Make the corpus: rendered faces and synthesised speech with known valence and arousal"),
        progress_bars() as show,
    ):
        write_puppets(root, clips=clips, progress=partial(show, "clips"))
    with step("Prepare the feature store: audio and video become features, one row per frame"):
        store = build_store(space, "puppets", root)
    with step(
        "Run the sweeps `demo`, 10 variants x 2 targets x 2 folds x 3 seeds, and `dose-demo`, 6 systems x 5 seeds on a "
        "corpus with a dose; each run is a cell on a Ray Train worker"
    ):
        settings = {"demo": [f"store={store.name.rpartition('-')[2]}"], "dose-demo": None}
        summary = _execute(settings, space, FleetOptions(workers=workers))
    if summary.interrupted:
        raise typer.Exit(options.INTERRUPTED)
    with step("Write the report"):
        report = build_report(space)
    for title, seconds in times.items():
        out.print(f"  {format_seconds(seconds):>12}  {title}")
    out.print(report.summary)
    for table in report.leaderboards:
        emit(leaderboard_rows(table), False, leaderboard_title(table))
    page = next((path for path in report.paths if path.suffix == ".html"), report.paths[0])
    say(f"report: {page}", "next: open the report in a browser; then", *_aligned([*_activation(), *NEXT_STEPS]))
    options.exit_with(summary)


def _activation() -> list[tuple[str, str]]:
    """The command after which a shell finds `crossfold`, where it does not yet: after `make demo`."""
    script = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("crossfold") is not None or not script.exists():
        return []
    return [(f"source {shlex.quote(os.path.relpath(script))}", "let this shell find the command `crossfold`")]


def _aligned(steps: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(command) for command, _ in steps)
    return [f"  {command:<{width}}   {purpose}" for command, purpose in steps]


def run(
    sweeps: options.Sweeps,
    workspace: options.Workspace = None,
    set_: options.Set = None,
    plugin: options.Plugin = None,
    workers: options.Workers = None,
    address: options.Address = None,
    only: options.Only = None,
    until: options.Until = None,
    lasting: options.For = None,
    weights: options.Weights = None,
    as_json: options.Json = False,
) -> None:
    """Run the cells that are missing. The same command continues an interrupted run; no finished cell runs again.

    It exits with 0 when all is done, 1 if cells failed, 3 when the time of --until or --for was up before the end, and
    130 when it was stopped. Cells that run when the time is up end their epoch and keep it.
    """
    from crossfold.platform.edge.fleet.ray_address import check_form
    from crossfold.platform.edge.launch.preflight import use_weights
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.scheduling.time_budget import budget_seconds

    use_weights(weights)
    check_form(address or "local")
    sources, conditions = _check_sweeps(sweeps), only or ()
    space = options.open_workspace(workspace)
    stop_after = budget_seconds(until, lasting)
    fleet = FleetOptions(workers=workers, address=address, plugins=plugin or (), stop_after=stop_after)
    summary = _execute(dict.fromkeys(sources, set_), space, fleet, conditions=conditions, silent=as_json)
    if as_json:
        emit(as_dict(summary), True)
    elif not (summary.interrupted or summary.time_up):
        say(f"next: {options.command_line(['report'], plugin, workspace)}")
    options.exit_with(summary)


def _check_sweeps(sweeps: Sequence[str]) -> list[str]:
    """The sweeps, each once. Raises `UserError` for a condition or a setting among them."""
    if loose := [text for text in sweeps if "=" in text and not Path(text).exists()]:
        raise UserError(f"{loose[0]!r} is no sweep", "write conditions after --only, settings after --set")
    return list(dict.fromkeys(sweeps))


def _execute(
    settings: Mapping[str, Sequence[str] | None],
    space: "Workspace",
    fleet: "FleetOptions",
    *,
    conditions: Sequence[str] = (),
    silent: bool = False,
) -> "FleetSummary":
    """Runs sweeps, each with the settings of this launch, on one fleet."""
    from crossfold.platform.edge.launch.preflight import check_before_work
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    # All are read and checked before any work starts.
    asked = [(read_sweep(source, changes, space), bool(changes)) for source, changes in settings.items()]
    prepared = [prepare_cells(sweep, space, narrowed=changed) for sweep, changed in asked]
    for each in prepared:
        check_before_work(each, space)
    return run_sweeps(prepared, space, fleet, conditions=conditions, silent=silent)


def submit(
    sweeps: options.Sweeps,
    address: Annotated[str, typer.Option(help="The dashboard of the Ray head, such as http://127.0.0.1:8265.")],
    workspace: options.Workspace = None,
    set_: options.Set = None,
    workers: options.Workers = None,
    plugin: options.Plugin = None,
    only: options.Only = None,
    until: options.Until = None,
    lasting: options.For = None,
    weights: options.Weights = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; `crossfold status` shows the rest.")
    ] = False,
) -> None:
    """Do the same as `run`, as a Ray job: the code travels along, and the results land in the workspace."""
    from crossfold.platform.edge.fleet import job_submission
    from crossfold.platform.edge.launch.preflight import use_weights
    from crossfold.platform.scheduling.time_budget import moment
    from crossfold.platform.workspace.workspace import Workspace

    use_weights(weights)
    sources, conditions = _check_sweeps(sweeps), only or ()
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


def as_dict(summary: "FleetSummary") -> dict[str, object]:
    """A summary as plain data, for `--json`."""
    facts = asdict(replace(summary, cell_seconds={}))
    del facts["cell_seconds"]
    return facts | {"overhead_seconds": summary.overhead_seconds}
