"""Where Ray Train keeps its notes on a worker group: nothing that outlives the launch, but all nodes must reach it."""

import contextlib
import shutil
from typing import Any

from crossfold.platform.workspace.workspace import Workspace


def train_storage(workspace: Workspace, name: str, *, cluster: bool) -> dict[str, Any]:
    """Options of `RunConfig`. A workspace at a URL has a folder on this machine only, so a cluster uses the URL."""
    if workspace.mirror is None or not cluster:
        return {"storage_path": str(workspace.root / "fleet" / name)}
    import pyarrow.fs
    from fsspec.core import url_to_fs

    files, root = url_to_fs(workspace.mirror.files.url)
    arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files))
    return {"storage_filesystem": arrow, "storage_path": f"{root}/fleet/{name}"}


def clear_train_storage(workspace: Workspace, name: str, *, cluster: bool) -> None:
    """Removes it when the launch is over."""
    shutil.rmtree(workspace.root / "fleet" / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        (workspace.root / "fleet").rmdir()
    if workspace.mirror is not None and cluster:
        with contextlib.suppress(OSError):
            workspace.mirror.files.remove(f"fleet/{name}")
