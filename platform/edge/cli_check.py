"""The command `check`: whether what a plug-in registers keeps the contracts of Crossfold."""

from pathlib import Path
from typing import Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.terminal.console import JsonOption, emit, out


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
