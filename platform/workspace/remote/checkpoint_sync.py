"""Checkpoints of running cells of a workspace at a URL, so that another machine can resume."""

import contextlib
import threading
import time
from collections.abc import Iterator

from crossfold.platform.core.files import write_bytes
from crossfold.platform.core.layout import WorkspacePaths
from crossfold.platform.workspace.remote.document_sync import stat_of
from crossfold.platform.workspace.remote.filesystem import RemoteFiles

CHECKPOINT_SECONDS = 20.0
"""The time between two checkpoints of one cell that are sent; longer where sending takes long."""
_LONGEST_SHARE = 0.1
"""Of the time, that sending checkpoints of one cell may take."""


@contextlib.contextmanager
def sync_checkpoint(files: RemoteFiles, paths: WorkspacePaths, cell_id: str, *, send: bool = True) -> Iterator[None]:
    """Fetches the checkpoint that another machine left, and sends this one's from a thread while the block runs.

    send: false for a process that helps with the cell and writes no checkpoint.
    """
    path, name = paths.checkpoint(cell_id), f"running/{cell_id}/{paths.checkpoint(cell_id).name}"
    # This file is there while the checkpoint here may be newer than the one there.
    unsent = path.with_name(".unsent")
    if not unsent.exists():
        with contextlib.suppress(OSError):
            if content := files.read([name]).get(name):
                write_bytes(path, content)
    if not send:
        yield
        return

    sent, ended = stat_of(path), threading.Event()

    def send_changed() -> None:
        nonlocal sent
        now = stat_of(path)
        if now is not None and now != sent:
            files.write(name, path.read_bytes())
        sent = now

    def follow() -> None:
        pause = CHECKPOINT_SECONDS
        while not ended.wait(pause):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                send_changed()
            pause = max(CHECKPOINT_SECONDS, (time.monotonic() - began) / _LONGEST_SHARE)

    path.parent.mkdir(parents=True, exist_ok=True)
    unsent.touch()
    follower = threading.Thread(target=follow, name=f"checkpoint-{cell_id}", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        # A finished cell has none, as its commit removed the folder.
        with contextlib.suppress(OSError):
            send_changed()
            unsent.unlink(missing_ok=True)
