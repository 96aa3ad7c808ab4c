"""Whether Ray and MLflow answer."""

import os
import shutil
import socket
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from crossfold.platform.edge.diagnostics.finding import GIB, RAY_FULL, Row, row
from crossfold.platform.edge.fleet.cluster import OBJECT_STORE_BYTES

ANSWER_SECONDS = 5.0


def ray_rows() -> list[Row]:
    """Whether Ray can start here, or the cluster of RAY_ADDRESS can be reached."""
    rows: list[Row] = []
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address not in ("auto", "local"):
        host, port = _host_of(address, 6379)
        heard = _reachable(host, port)
        rows.append(row("Ray cluster", heard, f"RAY_ADDRESS={address}", "start it, or unset RAY_ADDRESS"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        said = f"{free / 2**20:.0f} MiB free in /dev/shm, {OBJECT_STORE_BYTES / 2**20:.0f} MiB for Ray's messages"
        remedy = "Ray takes /tmp instead, which is slower; in a container: docker run --shm-size=1g"
        rows.append(row("shared memory", free >= OBJECT_STORE_BYTES, said, remedy, needed=False))
    session = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    if session.is_dir():
        disk = shutil.disk_usage(session)
        used = 1 - disk.free / disk.total
        said = f"{session}: {used:.0%} used, {disk.free / GIB:.0f} GiB free"
        remedy = f"Ray warns and stalls above {RAY_FULL:.0%}: remove old {session}/ray/session_*, or set RAY_TMPDIR"
        rows.append(row("Ray's sessions", used < RAY_FULL, said, remedy))
    return rows


def mlflow_rows(root: Path) -> list[Row]:
    """Whether the tracking server answers; without it cells train all the same, and tell it later."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return [row("MLflow", True, f"{root / 'mlflow.db'}")]
    parts = urllib.parse.urlsplit(uri)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    remedy = (
        "start it, or unset MLFLOW_TRACKING_URI; until then what it misses waits, and `crossfold mlflow sync` tells it"
    )
    if parts.scheme not in ("http", "https"):
        return [row("MLflow", bool(parts.scheme), f"MLFLOW_TRACKING_URI={shown}", remedy, needed=False)]
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS) as answer:
            good, said = answer.status == 200, f"{shown} answers"
    except (urllib.error.URLError, OSError, ValueError) as error:
        good, said = False, f"{shown} does not answer: {getattr(error, 'reason', error)}"
    return [row("MLflow", good, said, remedy, needed=False)]


def _host_of(address: str, port: int) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    return parts.hostname or "", parts.port or port


def _reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False
