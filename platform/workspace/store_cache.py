"""A feature store as one machine reads it: in the workspace, or a checked copy on a local disk.

`CROSSFOLD_CACHE` names a folder on each machine's own disk; `CROSSFOLD_STORES` says where stores are fetched from: a
path or any fsspec URL (`s3://bucket/stores`), by default the workspace's stores. Without either, the files of the
workspace itself are used; those of a workspace at a URL are in its copy on this machine. The store of a synthetic
corpus with a dose is fetched only where it cannot be made on this machine.
"""

import os
from pathlib import Path

from filelock import FileLock

from crossfold.datasets.corpora.embedded.dose import SyntheticDose, dose_of
from crossfold.datasets.corpora.embedded.dosed_store import dosed_store
from crossfold.datasets.store.feature_store import FeatureStore, verify_store
from crossfold.platform.core.errors import DataError
from crossfold.platform.core.files import whole_folder

CACHE, STORES = "CROSSFOLD_CACHE", "CROSSFOLD_STORES"


def node_store(shared: Path, name: str, remote: str | None = None) -> Path:
    """The folder of a store on this machine; of several workers on it, one fetches the store.

    shared: the folder of stores of the workspace. name: `<corpus>-<hash>`. remote: where a workspace at a URL keeps its
    stores, of which `shared` is the copy on this machine.
    Raises `DataError` where two copies in a row are not what the hash says, or where the source has no such store.
    """
    cache, source = os.environ.get(CACHE), os.environ.get(STORES)
    if remote is not None:
        # The copy of such a workspace is in the cache already.
        cache, source = None, source or remote
    found = dose_of(name.rpartition("-")[0])
    dose = found if isinstance(found, SyntheticDose) else None  # puppets are films, which take minutes
    if cache is None and ((source is None and dose is None) or (shared / name / "manifest.json").is_file()):
        return shared / name
    stores = Path(cache) if cache is not None else shared
    local = stores / name
    if (local / "manifest.json").is_file():
        return local
    stores.mkdir(parents=True, exist_ok=True)
    with FileLock(stores / f".{name}.lock"):
        # Seconds of work are less than a transfer. Another NumPy may draw other numbers, which have another hash.
        made = dose is not None and dosed_store(stores, dose) == local
        if not made and not (local / "manifest.json").is_file():
            _fetch(f"{(source or str(shared)).rstrip('/')}/{name}", local)
    return local


def fold_rule_of(folder: Path) -> str:
    """The rule of the folds of the store in a folder, a key of `FOLD_RULES`; empty where no readable store is there."""
    try:
        return FeatureStore(folder).fold_rule
    except (DataError, OSError, KeyError):
        return ""


def _fetch(url: str, local: Path) -> None:
    """Copies a store, whole and checked, or not at all. A damaged copy is fetched once more."""
    for last in (False, True):
        try:
            with whole_folder(local) as draft:
                _copy(url, draft)
                verify_store(draft)
            return
        except DataError:
            if last:
                raise


def _copy(url: str, folder: Path) -> None:
    from fsspec.core import url_to_fs

    files, root = url_to_fs(url)
    try:
        names = [str(name) for name in files.ls(root, detail=False)]
    except FileNotFoundError:
        raise DataError(f"there is no store at {url}", f"put it there, or set {STORES} to where stores are") from None
    for name in names:
        # Some libraries list full paths, others only the last part.
        last = name.rstrip("/").rpartition("/")[2]
        files.get_file(f"{root.rstrip('/')}/{last}", str(folder / last))
