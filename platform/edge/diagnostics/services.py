"""Whether Ray and MLflow answer."""

import contextlib
import os
import shutil
import socket
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from crossfold.platform.edge.diagnostics.finding import GIB, Row, row
from crossfold.platform.edge.fleet.ray_connection import OBJECT_STORE_BYTES

ANSWER_SECONDS = 5.0
RAY_FULL = 0.95
"""Share of the disk of Ray's session folder above which Ray itself refuses to work well."""


def ray_rows() -> list[Row]:
    """Whether Ray can start here, and whether the cluster of RAY_ADDRESS answers."""
    rows: list[Row] = []
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address not in ("auto", "local"):
        answers = _answers(address)
        rows.append(row("Ray cluster", answers, f"RAY_ADDRESS={address}", "start it, or unset RAY_ADDRESS"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        found = f"{free / 2**20:.0f} MiB free in /dev/shm, {OBJECT_STORE_BYTES / 2**20:.0f} MiB for Ray's messages"
        remedy = "Ray takes /tmp instead, which is slower; in a container: docker run --shm-size=1g"
        rows.append(row("shared memory", free >= OBJECT_STORE_BYTES, found, remedy, needed=False))
    session = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    if session.is_dir():
        disk = shutil.disk_usage(session)
        used = 1 - disk.free / disk.total
        found = f"{session}: {used:.0%} used, {disk.free / GIB:.0f} GiB free"
        remedy = f"Ray warns and stalls above {RAY_FULL:.0%}: remove old {session}/ray/session_*, or set RAY_TMPDIR"
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


def _answers(address: str) -> bool:
    """Whether something listens at a host and port; 6379 is Ray's own port."""
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port or 6379), ANSWER_SECONDS):
        return True
    return False
