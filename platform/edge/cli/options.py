"""Options that several commands share, and the exit codes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        help="The workspace: a folder, or a URL such as s3://bucket/lab; else CROSSFOLD_HOME, else ./.crossfold.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="key=value: a key of the sweep, or a field of the recipe such as optimizer.lr=0.001.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Folder of pretrained weights; else CROSSFOLD_WEIGHTS, else `weights` in the workspace.",
        show_default=False,
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", help="A Python file that registers a system, backbone or corpus of your own.", show_default=False
    ),
]
