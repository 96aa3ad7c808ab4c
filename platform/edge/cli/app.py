"""The command line. The only module that ends the process: 0 ok, 1 some cells failed, 2 wrong use, 130 stopped."""

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Annotated

import typer

from crossfold.platform.core.errors import RemoteUnavailable, UserError
from crossfold.platform.edge.cli import (
    catalog,
    data,
    export,
    health,
    merge,
    report,
    rescore,
    run,
    search,
    status,
    tracking,
    why,
)
from crossfold.platform.edge.terminal.console import err, print_error
from crossfold.platform.workspace.disk_space import FULL, disk_full_error

app = typer.Typer(
    name="crossfold",
    help="Benchmarks of audio-visual fusion for dimensional emotion recognition: train, compare, report.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
corpus = typer.Typer(help="Make one of the embedded corpora.", no_args_is_help=True)
mlflow = typer.Typer(help="The MLflow mirror of the workspace.", no_args_is_help=True)
app.add_typer(corpus, name="corpus")
app.add_typer(mlflow, name="mlflow")

app.command()(run.demo)
corpus.command("puppets")(data.corpus_puppets)
corpus.command("synthetic")(data.corpus_synthetic)
app.command()(data.validate)
app.command()(data.prepare)
app.command("list")(catalog.list_)
app.command()(catalog.explain)
app.command()(status.plan)
app.command()(run.run)
app.command()(search.search)
app.command()(run.submit)
app.command()(status.status)
app.command()(report.report)
app.command()(why.why)
app.command()(run.rerun)
app.command()(rescore.rescore)
app.command()(merge.merge)
app.command()(export.export)
app.command()(data.folds)
app.command()(health.check)
app.command()(catalog.cite)
app.command()(health.doctor)
mlflow.command("ui")(tracking.mlflow_ui)
mlflow.command("sync")(tracking.mlflow_sync)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"crossfold {installed('crossfold')}")
        raise typer.Exit


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM, as batch systems send it, stops a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    try:
        with _stopped_by_sigterm():
            _run(arguments)
    except SystemExit as end:
        # Typer makes this of an interrupt that no command took for itself.
        if end.__context__ is not None and isinstance(end.__context__.__cause__, KeyboardInterrupt):
            err.print("stopped; the same command continues")
        raise
    except UserError as error:
        print_error(error)
        sys.exit(2)
    except RuntimeError as error:
        fleet = sys.modules.get("crossfold.platform.scheduling.local_fleet")
        if fleet is None or not isinstance(error, fleet.FleetError):
            raise
        print_error(UserError(f"the fleet broke: {error}", "what finished is kept, and the same command continues"))
        sys.exit(1)
    except RemoteUnavailable as error:
        print_error(UserError(f"the workspace is away: {error}", "nothing is lost, and the same command continues"))
        sys.exit(1)
    except OSError as error:
        if error.errno in FULL:
            print_error(disk_full_error(error))
            sys.exit(1)
        if error.filename is None:
            raise
        print_error(UserError(f"{error.filename}: {error.strerror}", "choose a place that you may write"))
        sys.exit(2)


def _run(arguments: list[str] | None) -> None:
    """Runs the command; whatever its end, what it wrote for a workspace at a URL is sent."""
    try:
        app(arguments, prog_name="crossfold")
    finally:
        mirrors = sys.modules.get("crossfold.platform.workspace.remote.mirror")
        if mirrors is not None:
            mirrors.push_all()
