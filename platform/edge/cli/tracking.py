"""`crossfold mlflow`: show the runs of a workspace in a local server, and log what MLflow lacks."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import say

if TYPE_CHECKING:
    from crossfold.platform.workspace.workspace import Workspace

MOST_PAGES = 5
"""Experiments whose address `mlflow ui` prints."""
# Two processes instead of ten: no workers for jobs, which no run here submits.
SERVER_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def server_command(workspace: "Workspace", port: int) -> list[str]:
    """The command of a local MLflow server of the workspace's own database; run it with `SERVER_SETTINGS`."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", workspace.paths.mlflow_uri, *where]


def ui(
    workspace: options.Workspace = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow pages of this workspace in a local server."""
    from crossfold.platform.edge.tracking.writer import RunWriter

    space = options.open_workspace(workspace)
    if not space.paths.mlflow.is_file():
        raise UserError(f"no mlflow.db in {space.root}", "run a sweep first, or `crossfold mlflow sync`")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is in use", "give another --port")
    # In a workspace that was moved the server must find the artifacts.
    writer = RunWriter(space, space.paths.mlflow_uri)
    writer.prepare()
    server = subprocess.Popen(server_command(space, port), env=os.environ | SERVER_SETTINGS, start_new_session=True)
    here = f"http://127.0.0.1:{port}"
    pages = (f"  {name}: {here}{page}" for name, page in writer.pages(MOST_PAGES).items())
    say(f"MLflow: {here}  (Ctrl-C stops it)", *pages)

    def stop(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    code = server.wait()
    raise typer.Exit(0 if code in (0, -signal.SIGTERM) else 1)


def sync(workspace: options.Workspace = None) -> None:
    """Log to MLflow what the workspace holds and MLflow lacks."""
    from crossfold.platform.edge.tracking.sync import sync as sync_runs

    say(str(sync_runs(options.open_workspace(workspace))))
