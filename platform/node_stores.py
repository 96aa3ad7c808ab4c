"""The store as a node sees it: in the workspace, or copied once to a local disk and checked.

`CROSSFOLD_CACHE` names a folder on each node's own disk; `CROSSFOLD_STORES` where stores are fetched from, a path or
any fsspec URL (`s3://bucket/stores`), by default the workspace's. Without either, the workspace's own files are mapped;
those of a workspace at a URL are its copy on this machine.
"""

import os
import shutil
import tempfile
from pathlib import Path

import fsspec
from filelock import FileLock

from crossfold.datasets.store import verify_store
from crossfold.platform.errors import DataError
from crossfold.platform.results import Workspace

CACHE, STORES = "CROSSFOLD_CACHE", "CROSSFOLD_STORES"


def node_store(workspace: Workspace, corpus: str, content_hash: str) -> Path:
    """The folder of a store on this machine, fetched if it must be; workers of one node fetch it once.

    Raises `DataError` where the copy is not what its hash says, twice, or where the source has no such store.
    """
    place = workspace.store_path(corpus, content_hash)
    cache, source = os.environ.get(CACHE), os.environ.get(STORES)
    if workspace.mirror is not None:
        # Its folder lies in the cache itself.
        cache, source = None, source or f"{workspace.mirror.files.url}/stores"
    if cache is None and (source is None or place.is_dir()):
        return place
    stores = Path(cache) if cache is not None else workspace.stores
    local = stores / place.name
    if (local / "manifest.json").is_file():
        return local
    stores.mkdir(parents=True, exist_ok=True)
    with FileLock(stores / f".{place.name}.lock"):
        if not (local / "manifest.json").is_file():
            _fetch(f"{(source or str(workspace.stores)).rstrip('/')}/{place.name}", local)
    return local


def _fetch(url: str, local: Path) -> None:
    """Copies a store beside its place, checks it, and renames it. A damaged copy is fetched once more."""
    for attempt in (1, 2):
        beside = Path(tempfile.mkdtemp(prefix=f".{local.name}-", dir=local.parent))
        try:
            _copy(url, beside)
            verify_store(beside)
            beside.chmod(0o755)
            beside.rename(local)
        except DataError:
            if attempt == 2:
                raise
        else:
            return
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _copy(url: str, folder: Path) -> None:
    files, root = fsspec.core.url_to_fs(url)
    try:
        names = [str(name) for name in files.ls(root, detail=False)]
    except FileNotFoundError:
        raise DataError(f"there is no store at {url}", f"put it there, or set {STORES} to where stores are") from None
    for name in names:
        # Some name the whole path, some the last part of it.
        last = name.rstrip("/").rpartition("/")[2]
        files.get_file(f"{root.rstrip('/')}/{last}", str(folder / last))
