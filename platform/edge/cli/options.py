"""Options that several commands share, what they are read into, and the exit codes."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.terminal import completion

if TYPE_CHECKING:
    from crossfold.platform.scheduling.monitor import FleetSummary
    from crossfold.platform.workspace import workspace

TIME_UP = 3
"""Exit code of a run whose `--until` or `--for` came before its end."""
INTERRUPTED = 130
"""Exit code of a run that was stopped before its end, as shells have it."""


def exit_with(summary: "FleetSummary") -> None:
    """Ends the command with 130 if the run was stopped, 3 if its time was up, 1 if cells failed; else does nothing."""
    for code, reason in ((INTERRUPTED, summary.interrupted), (TIME_UP, summary.time_up), (1, summary.failed)):
        if reason:
            raise typer.Exit(code)


def how_faces_are_cut(*, faces: bool, whole_frame: bool) -> Literal["find", "whole", "given"]:
    """`FeaturePlan.faces` of the options --faces and --whole-frame. Raises `UserError` where they contradict."""
    if whole_frame and not faces:
        raise UserError("--whole-frame takes pictures for faces, and --no-faces takes none", "give one of the two")
    return "whole" if whole_frame else "find" if faces else "given"


def open_workspace(given: str | None) -> "workspace.Workspace":
    """The workspace that `--workspace` names; else CROSSFOLD_HOME, else `.crossfold` of the working folder."""
    from crossfold.platform.workspace import workspace

    return workspace.Workspace.locate(given)


def check_is_no_sweep(space: "workspace.Workspace", cell: str) -> None:
    """A launched sweep in the place of a cell is a `UserError`."""
    if (space.paths.sweeps / f"{cell}.json").is_file() and not any(name.startswith(cell) for name in space.finished()):
        remedy = f"`run` prints the id of each cell, and the page of `crossfold report {cell}` has them, too"
        raise UserError(f"{cell!r} is a sweep, and the id of one cell is asked for", remedy)


def key_values(given: Sequence[str] | None, option: str) -> dict[str, Any]:
    """The `key=value` texts of an option, with values as YAML reads them. Raises `UserError` for anything else."""
    from crossfold.platform.core.yaml_files import parse_yaml

    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        found[key] = parse_yaml(value, f"{option} {text[:60]!r}", f"write {option} key=value")
        if not key or not equals:
            raise UserError(f"{option} {text!r} has no {'key' if equals else repr('=')}", f"write {option} key=value")
    return found


def command_line(words: Sequence[str], plugins: Sequence[Path] | None, workspace: str | None) -> str:
    """A command of Crossfold as a shell takes it, with the plug-ins and the workspace that this one was given."""
    given = [word for plugin in plugins or () for word in ("--plugin", str(plugin))]
    return shlex.join(["crossfold", *words, *given, *(("-w", workspace) if workspace else ())])


def check_folder(root: Path, corpus: str) -> None:
    """Raises `UserError` where `--root` of a corpus is not a folder."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")


def load_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Registers what the files of `--plugin` hold, before the command looks anything up by name."""
    if paths:
        from crossfold.platform.core.registry import load_plugin

        for path in paths:
            load_plugin(path)
    return paths


Sweep = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or the name of a sweep that ships with Crossfold.", autocompletion=completion.sweeps
    ),
]
Sweeps = Annotated[
    list[str],
    typer.Argument(
        metavar="SWEEP...",
        help="YAML files, or names of sweeps that ship with Crossfold; earlier ones run first.",
        autocompletion=completion.sweeps,
    ),
]
SweepOrCell = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP|CELL",
        help="A YAML file, or the name of a sweep that ships with Crossfold; predictor: a cell id, or its first "
        "digits.",
        autocompletion=completion.sweeps_or_cells,
    ),
]
LaunchedSweep = Annotated[
    str | None,
    typer.Argument(help="A sweep that was launched; all of them if left out.", autocompletion=completion.sweeps),
]
SystemOfSweep = Annotated[str | None, typer.Option(help="One system of the sweep.", autocompletion=completion.systems)]
Layout = Annotated[
    str,
    typer.Argument(
        help="Layout of the folder; `crossfold list corpora` shows them.", autocompletion=completion.layouts
    ),
]
CorpusName = Annotated[
    str, typer.Argument(help="A corpus; `crossfold list corpora` shows them.", autocompletion=completion.layouts)
]
CellId = Annotated[str, typer.Argument(help="A cell id, or its first digits.", autocompletion=completion.cells)]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=10_000,
        help="How many cells run at a time; 0 runs them in this process without Ray.",
        show_default="cores",
    ),
]
Address = Annotated[str | None, typer.Option(help="A Ray cluster, such as auto or ray://head:10001.")]
Helpers = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster that does the work: auto, ray://head:10001 or local.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        help="axis=value: run only such cells, for example --only system=hgrjca,rjca fold=0.",
        show_default=False,
        autocompletion=completion.conditions,
    ),
]
Until = Annotated[str | None, typer.Option(help="Start no cell after this time, such as 08:00.", show_default=False)]
For = Annotated[
    str | None, typer.Option("--for", help="Start no cell after this duration, such as 2h or 90m.", show_default=False)
]
Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        help="The workspace: a folder, or a URL such as s3://bucket/lab; else CROSSFOLD_HOME, else ./.crossfold.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="key=value: sets a key of the sweep, or a field of the recipe such as optimizer.lr=0.001.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="The folder of pretrained weights; else CROSSFOLD_WEIGHTS, else `weights` in the workspace.",
        show_default=False,
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        callback=load_plugins,
        help="A Python file that registers a system, backbone or corpus of your own.",
        show_default=False,
    ),
]
