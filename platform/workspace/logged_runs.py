"""`mlflow-runs.jsonl`: which run each cell has, in each tracking store that it was logged to."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

from crossfold.platform.workspace.workspace import Workspace


def logged_runs(workspace: Workspace) -> Iterator[dict[str, str]]:
    """`cell` and `run` of each entry, oldest first; also `store`, `sweep` and `server` where they were recorded."""
    path = workspace.paths.mlflow_runs
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        # A driver that was killed may have left half a line.
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            yield {**entry, "cell": str(entry["cell"]), "run": str(entry["run"])}


def add_logged_run(workspace: Workspace, cell_id: str, run_id: str, uri: str, sweep: str) -> None:
    """Appends the run of a cell, in the experiment `sweep` of the tracking store at `uri`."""
    entry = {"cell": cell_id, "run": run_id, "store": store_digest(uri), "sweep": sweep}
    server = {"server": address} if (address := public_address(uri)) else {}
    with (workspace.paths.mlflow_runs).open("a", encoding="utf-8") as file:
        # The leading line break ends the half line of a driver that was killed.
        file.write("\n" + json.dumps(entry | server))


def store_digest(uri: str) -> str:
    """Stands for a tracking URI, which may hold a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:12]


def public_address(uri: str) -> str:
    """Where people open the pages of a tracking server: without user, password and query; empty for other stores."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
