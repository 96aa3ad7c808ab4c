"""The command line. The only module that ends the process: 0 ok, 1 some cells failed, 2 wrong use, 130 stopped."""

import contextlib
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

import crossfold
from crossfold.platform.core.errors import FleetError, RemoteUnavailable, UserError
from crossfold.platform.edge.cli import (
    catalog,
    cell,
    data,
    developers,
    export,
    predict,
    report,
    rescore,
    run,
    search,
    status,
    tracking,
)
from crossfold.platform.edge.terminal.console import err, print_error

GROUPS = {
    "": (
        run.demo,
        data.validate,
        data.prepare,
        catalog.list_,
        catalog.explain,
        catalog.profile,
        catalog.schema,
        status.plan,
        run.run,
        search.search,
        run.submit,
        status.status,
        report.report,
        report.power,
        cell.why,
        cell.rerun,
        rescore.rescore,
        status.merge,
        predict.predict,
        export.export,
        data.folds,
        developers.check,
        developers.bench,
        catalog.cite,
        status.doctor,
    ),
    "corpus": (data.puppets, data.synthetic),
    "new": (developers.system, developers.corpus),
    "mlflow": (tracking.ui, tracking.sync),
}
"""The commands of each group, in the order of `--help`; the first ones stand alone."""
ABOUT = {
    "": "Benchmarks of audio-visual fusion for dimensional emotion recognition: train, compare, report.",
    "corpus": "Make one of the embedded corpora.",
    "new": "Write the first version of a fusion model or of a corpus reader of your own.",
    "mlflow": "Show the results in MLflow.",
}


def _build() -> typer.Typer:
    groups = {
        name: typer.Typer(help=about, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
        for name, about in ABOUT.items()
    }
    for name, commands in GROUPS.items():
        for command in commands:
            groups[name].command(command.__name__.rstrip("_"))(command)
        if name:
            groups[""].add_typer(groups[name], name=name)
    return groups[""]


app = _build()


@dataclass
class Wishes:
    """Options that stand before the command."""

    debug: bool = False


@app.callback(invoke_without_command=True)
def _before_the_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the Python traceback of every error, for reports of faults.")
    ] = False,
) -> None:
    context.ensure_object(Wishes).debug = debug
    if version:
        typer.echo(f"crossfold {crossfold.__version__}")
        raise typer.Exit


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. Python ends with the code of a signal, not with 130, where a plain `KeyboardInterrupt` came up
    in code that is made while it runs, as a dataclass is; it compares the very class, so that this one does not count.
    """


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM, as batch systems send it, stops a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    wishes = Wishes()
    try:
        with _stopped_by_signals():
            _run(arguments, wishes)
    except SystemExit as end:
        # Typer makes this of an interrupt that no command took for itself.
        if end.__context__ is not None and isinstance(end.__context__.__cause__, KeyboardInterrupt):
            err.print("stopped; the same command continues")
        raise
    except Exception as error:
        ending = _ending_of(error)
        if ending is None:
            raise
        if wishes.debug:
            traceback.print_exception(error)
        print_error(ending[0])
        sys.exit(ending[1])


def _ending_of(error: Exception) -> tuple[UserError, int] | None:
    """What the user reads about an error, and the exit code; None for a fault of ours, which ends in a traceback."""
    if isinstance(error, UserError):
        return error, 2
    if isinstance(error, FleetError):
        return UserError(f"the fleet broke: {error}", "what finished is kept, and the same command continues"), 1
    if isinstance(error, RemoteUnavailable):
        remedy = "nothing is lost, and the same command continues"
        return UserError(f"the workspace cannot be reached: {error}", remedy), 1
    if isinstance(error, ModuleNotFoundError):
        return _missing_library(error)
    if isinstance(error, OSError):
        from crossfold.platform.core.files import FULL
        from crossfold.platform.workspace.disk_space import disk_full_error

        if error.errno in FULL:
            return disk_full_error(error), 1
        if error.filename is not None:
            return UserError(f"{error.filename}: {error.strerror}", "choose a place that you may write"), 2
    if f"{type(error).__module__}.".startswith("mlflow."):
        remedy = "nothing is lost: the workspace holds everything, and `crossfold mlflow sync` logs it later"
        return UserError(f"MLflow failed: {str(error).strip().partition(chr(10))[0]}", remedy), 1
    if _raised_in_ray(error):
        remedy = "what finished is kept, and the same command continues; `crossfold --debug` shows where Ray failed"
        return UserError(f"Ray failed: {str(error).strip().partition(chr(10))[0] or type(error).__name__}", remedy), 1
    return None


EXTRAS = {
    **dict.fromkeys(("torch", "torchaudio", "torchvision", "threadpoolctl"), "predict"),
    **dict.fromkeys(("ray", "optuna", "mlflow", "grpc", "tensorboardX"), "train"),
}
"""Libraries that reading results does without, and the extra that brings them."""


def _missing_library(error: ModuleNotFoundError) -> tuple[UserError, int] | None:
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return None
    remedy = f"pip install 'crossfold[{EXTRAS[name]}]'" + (", or [train] to train, too" * (EXTRAS[name] == "predict"))
    return UserError(f"this command needs {name}, which is not installed", remedy), 2


def _raised_in_ray(error: Exception) -> bool:
    """Whether an error is one of Ray's, or left Ray's code; the last frames say where it was raised."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return f"{type(error).__module__}.".startswith("ray.") or f"{frames[-1] if frames else ''}.".startswith("ray.")


def _spread_conditions(words: list[str]) -> list[str]:
    """`--only a=1 b=2` as `--only a=1 --only b=2`: click gives an option one value each time."""
    spread: list[str] = []
    conditions = False
    for word in words:
        named = "=" in word.partition(" ")[0] and not word.startswith("-")
        # The word after the option is its value in any case, which may be wrong.
        if conditions and named and spread[-1] != "--only" and not Path(word).exists():
            spread += ["--only", word]
            continue
        conditions = word == "--only" or word.startswith("--only=") or (conditions and spread[-1] == "--only")
        spread.append(word)
    return spread


def _run(arguments: list[str] | None, wishes: Wishes) -> None:
    """Runs the command; whatever its end, what it wrote for a workspace at a URL is sent."""
    try:
        app(_spread_conditions(sys.argv[1:] if arguments is None else arguments), prog_name="crossfold", obj=wishes)
    finally:
        mirrors = sys.modules.get("crossfold.platform.workspace.remote.mirror")
        if mirrors is not None:
            mirrors.push_all()
