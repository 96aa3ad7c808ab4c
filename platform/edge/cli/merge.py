"""`crossfold merge`: workspaces of several people become one."""

from dataclasses import asdict
from typing import Annotated

import typer

from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import emit, say


def merge(
    others: Annotated[
        list[str], typer.Argument(metavar="WORKSPACE...", help="The workspaces to join to this one: folders or URLs.")
    ],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Join other workspaces to this one: cells by identity, stores, failures and sweeps. Those stay as they are.

    It exits with 1 if the same cell or sweep differs; then the one that is here stays, and the other is kept aside.
    """
    from crossfold.platform.edge.launch.preflight import driving
    from crossfold.platform.workspace.merge import merge as join
    from crossfold.platform.workspace.workspace import Workspace

    space = options.open_workspace(workspace)
    sources = [Workspace.at(other) for other in others]
    for source in sources:
        source.download_all()
        # What both have is compared byte by byte.
        space.download_cells(space.finished() & source.finished())
    with driving(space):
        merged = join(space, sources)
    if as_json:
        emit(asdict(merged), True)
    else:
        say(
            f"{merged.cells} cells joined, {merged.same} were already here; {merged.stores} stores, {merged.sweeps} "
            f"sweeps, {merged.failures} failures, {merged.rescored} other scores"
        )
        rows = [
            {
                "what": conflict.what,
                "name": conflict.label,
                "from": conflict.workspace,
                "differs in": conflict.differs,
                "CCC": [f"{target} {values}" for target, values in conflict.values.items()],
                "kept in": conflict.kept,
            }
            for conflict in merged.conflicts
        ]
        if rows:
            emit(rows, False, "Conflicts: what was here stays; the other is kept aside")
        for line in merged.damaged:
            say(f"left out: {line}")
        if merged.cells or merged.failures:
            say("next: crossfold mlflow sync, so that MLflow shows them, and crossfold report")
    if merged.conflicts or merged.damaged:
        raise typer.Exit(1)
