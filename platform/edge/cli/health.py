"""The command `check`: whether what a plug-in registers keeps the contracts of Crossfold."""

from pathlib import Path
from typing import Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.options import JsonOption, WeightsOption, WorkspaceOption
from crossfold.platform.edge.terminal.console import emit, out
from crossfold.platform.workspace.workspace import Workspace


def check(
    plugin: Annotated[list[Path], typer.Option("--plugin", help="A Python file to check.", show_default=False)],
    root: Annotated[
        Path | None, typer.Option("--root", help="A data folder for its corpus, to check clips, labels and folds too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check your own system, backbone or corpus: shapes, masks, determinism. Exits with 2 if a rule is broken."""
    from crossfold.platform.edge.diagnostics.plugin_contract import check_plugin

    if root is not None and not root.is_dir():
        raise UserError(f"{root} is not a folder", "give the data folder of the corpus as --root")
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


def look_at_place(given: str | None) -> tuple[Workspace, UserError | None]:
    """A workspace, and what is wrong with its URL; then the workspace is only the folder that would be used here."""
    try:
        space = Workspace.at(given)
        if space.mirror is not None:
            space.mirror.files.check(write=True)
    except UserError as error:
        return Workspace(Path(".crossfold")), error
    return space, None


def doctor(workspace: WorkspaceOption = None, weights: WeightsOption = None, as_json: JsonOption = False) -> None:
    """Checks what Crossfold needs on this machine and says what to do. Exits with 2 if something needed is not right.

    Pretrained weights are needed by recipes with backbones only, so missing ones are optional, damaged ones are not.
    """
    from crossfold.platform.edge.diagnostics.finding import row
    from crossfold.platform.edge.diagnostics.machine import machine_rows, weights_rows

    space, trouble = look_at_place(workspace)
    rows = machine_rows(space.root)
    if trouble is not None or space.mirror is not None:
        found = trouble.problem if trouble is not None else f"{space} can be read and written"
        rows.append(row("workspace URL", trouble is None, found, trouble.remedy if trouble is not None else ""))
    rows += weights_rows(space, weights)
    emit(rows, as_json, "Doctor")
    if any(row["state"] in ("missing", "damaged") for row in rows):
        raise typer.Exit(2)
