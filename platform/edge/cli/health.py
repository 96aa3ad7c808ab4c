"""What is wrong with a plug-in or with this machine: `crossfold check` and `crossfold doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import emit, out

if TYPE_CHECKING:
    from crossfold.platform.workspace.workspace import Workspace


def check(
    plugin: Annotated[list[Path], typer.Option("--plugin", help="A Python file to check.", show_default=False)],
    root: Annotated[
        Path | None, typer.Option(help="A data folder for its corpus, to check clips, labels and folds too.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check your own system, backbone or corpus: shapes, masks, determinism. It exits with 2 if a rule is broken."""
    from crossfold.platform.edge.diagnostics.plugin_contract import check_plugin

    if root is not None:
        options.check_folder(root, "its corpus")
    found = [entry for path in plugin for entry in check_plugin(path, root)]
    rows = [
        {
            "what": entry.what,
            "rule": entry.rule,
            "state": "broken" if entry.problem else "ok",
            "problem": entry.problem,
            "what to do": entry.remedy,
        }
        for entry in found
    ]
    emit(rows, as_json, "Contracts")
    broken = sum(bool(entry.problem) for entry in found)
    if not as_json:
        out.print(f"{len(found)} rules, {broken} broken")
    if broken:
        raise typer.Exit(2)


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
