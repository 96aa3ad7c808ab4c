"""`crossfold mlflow`: the interface, and the mirror rebuilt."""

import contextlib
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.options import WorkspaceOption
from crossfold.platform.edge.terminal.console import out
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    pass


def mlflow_ui(
    workspace: WorkspaceOption = None, port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000
) -> None:
    """Open the MLflow pages of this workspace in a local server."""
    from crossfold.platform.edge.tracking.sync import ui_command

    space = Workspace.locate(workspace)
    if not space.paths.mlflow.is_file():
        raise UserError(f"no mlflow.db in {space.root}", "run a sweep first, or `crossfold mlflow sync`")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is in use", "give another --port")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(ui_command(space, port), env=environment, start_new_session=True)
    out.print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C stops it)")

    def stop(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    code = server.wait()
    raise typer.Exit(0 if code in (0, -signal.SIGTERM) else 1)


def mlflow_sync(workspace: WorkspaceOption = None) -> None:
    """Rebuild the MLflow mirror from the workspace; only what is missing is written."""
    from crossfold.platform.edge.tracking.sync import sync

    out.print(str(sync(Workspace.locate(workspace))))
