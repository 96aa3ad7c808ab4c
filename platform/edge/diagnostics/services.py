"""Whether Ray and MLflow answer."""

import os
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.diagnostics.finding import GIB, Row, row
from crossfold.platform.edge.fleet.ray_address import find_cluster
from crossfold.platform.edge.fleet.ray_connection import OBJECT_STORE_BYTES
from crossfold.platform.edge.fleet.session_folder import session_place

ANSWER_SECONDS = 5.0
RAY_FULL = 0.95
"""Share of the disk of Ray's session folder above which Ray itself refuses to work well."""


def ray_rows() -> list[Row]:
    """Whether Ray can start here, and whether the cluster of RAY_ADDRESS answers."""
    rows: list[Row] = []
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address != "local":
        try:
            cluster = find_cluster(address)
        except UserError as error:
            rows.append(row("Ray cluster", False, error.problem, error.remedy))
        else:
            remedy = "start it with RAY_AUTH_MODE=token (docs/security.md)"
            rows.append(row("Ray cluster", cluster.protected, str(cluster), remedy, needed=False))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        found = f"{free / 2**20:.0f} MiB free in /dev/shm, {OBJECT_STORE_BYTES / 2**20:.0f} MiB for Ray's messages"
        remedy = "Ray takes /tmp instead, which is slower; in a container: docker run --shm-size=1g"
        rows.append(row("shared memory", free >= OBJECT_STORE_BYTES, found, remedy, needed=False))
    try:
        session = session_place()
    except UserError as error:
        return [*rows, row("Ray's sessions", False, error.problem, error.remedy)]
    if not session.is_dir():
        rows.append(row("Ray's sessions", False, f"{session} is no folder", "set RAY_TMPDIR to one that you may write"))
    if session.is_dir():
        disk = shutil.disk_usage(session)
        used = 1 - disk.free / disk.total
        found = f"{session}: {used:.0%} used, {disk.free / GIB:.0f} GiB free"
        remedy = f"Ray warns and stalls above {RAY_FULL:.0%}: free some, or set RAY_TMPDIR"
        rows.append(row("Ray's sessions", used < RAY_FULL, found, remedy))
    return rows


def mlflow_rows(root: Path) -> list[Row]:
    """Whether the tracking server answers; without it cells train all the same, and it receives their runs later."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return [row("MLflow", True, f"{root / 'mlflow.db'}")]
    parts = urllib.parse.urlsplit(uri)
    # Users paste this into reports of faults, so it must not show a password.
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    remedy = "start it, or unset MLFLOW_TRACKING_URI; `crossfold mlflow sync` logs what it misses until then"
    if parts.scheme not in ("http", "https"):
        return [row("MLflow", bool(parts.scheme), f"MLFLOW_TRACKING_URI={shown}", remedy, needed=False)]
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS) as answer:
            good, found = answer.status == 200, f"{shown} answers"
    except (OSError, ValueError) as error:
        good, found = False, f"{shown} does not answer: {getattr(error, 'reason', error)}"
    return [row("MLflow", good, found, remedy, needed=False)]
