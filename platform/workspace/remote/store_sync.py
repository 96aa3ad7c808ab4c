"""Feature stores of a workspace at a URL: sent once, `manifest.json` last, and fetched by `store_cache` when needed."""

import logging
from pathlib import Path

from crossfold.platform.core.layout import WorkspacePaths
from crossfold.platform.workspace.remote.filesystem import RemoteFiles

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_WORTH_A_NOTE = 50 * 2**20
"""Bytes above which sending a store takes long enough to say so."""


def remote_stores(files: RemoteFiles) -> set[str]:
    """Names of the stores that are whole at the URL."""
    names = [name for name in files.listed("stores") if not name.startswith(".")]
    return {found.split("/")[1] for found in files.read(f"stores/{name}/{_MANIFEST}" for name in names)}


def send_stores(files: RemoteFiles, paths: WorkspacePaths) -> None:
    """Sends each store of this machine that the URL has not. Raises `RemoteUnavailable`."""
    for manifest in sorted(paths.stores.glob(f"[!.]*-*/{_MANIFEST}")):
        sent = paths.sent_stores / manifest.parent.name
        if not sent.exists():
            _send(files, manifest.parent)
            sent.parent.mkdir(parents=True, exist_ok=True)
            sent.touch()


def _send(files: RemoteFiles, folder: Path) -> None:
    there = f"stores/{folder.name}"
    if files.read([f"{there}/{_MANIFEST}"]):
        return
    paths = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name == _MANIFEST)
    size = sum(path.stat().st_size for path in paths)
    if size > _WORTH_A_NOTE:
        logger.info("sending store %s (%.1f GiB) to %s", folder.name, size / 2**30, files.shown)
    for path in paths:
        files.send(path, f"{there}/{path.name}")
