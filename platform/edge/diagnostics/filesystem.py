"""Whether a workspace can be kept on a file system."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from crossfold.platform.core.files import temporary_folder
from crossfold.platform.edge.diagnostics.finding import GIB, Row, row

DISK_BYTES = 2 * GIB
"""Free space of the workspace below which a sweep is likely to stop in its middle."""
SKEW_SECONDS = 5.0
"""Between this clock and that of a file server; leases of drivers last 2 minutes, their beats are 20 s apart."""
NETWORK_FILES = ("nfs", "cifs", "smb", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "9p", "lustre", "gpfs")


def workspace_rows(root: Path) -> list[Row]:
    """Space, and whether the file system keeps the promises that a workspace stands on: renames, locks, one clock."""
    where = next(path for path in (root, *root.parents) if path.exists())
    if not where.is_dir() or not os.access(where, os.W_OK):
        return [row("workspace", False, f"{root}", "choose a --workspace that is a folder you may write")]
    free = shutil.disk_usage(where).free
    enough = free >= DISK_BYTES
    rows = [row("disk", enough, f"{free / GIB:.1f} GiB free for {root}", "free some, or choose another --workspace")]
    try:
        with temporary_folder(where, "crossfold-doctor") as folder:
            rows += [_renames(folder), _locks(folder), _clock(folder)]
    except OSError as error:
        return [
            *rows,
            row("workspace", False, f"{root}: {error}", "choose a --workspace that is a folder you may write"),
        ]
    kind = _file_system(where)
    if kind.startswith(NETWORK_FILES) and not os.environ.get("MLFLOW_TRACKING_URI"):
        remedy = "sqlite is not safe on it from several machines: start `mlflow server`, and set MLFLOW_TRACKING_URI"
        rows.append(row("file system", False, f"{root} is on {kind}", remedy, needed=False))
    return rows


def _renames(folder: Path) -> Row:
    """A finished cell appears by the rename of a folder, and never replaces another."""
    remedy = "choose a --workspace on a local disk, NFS, Lustre or the like"
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "file").write_text(name)
        (folder / "one").rename(folder / "cell")
        try:
            (folder / "two").rename(folder / "cell")
            return row("renames", False, "a folder replaced another one that is not empty", remedy)
        except OSError:
            pass
        (folder / "new").write_text("new")
        (folder / "new").replace(folder / "cell" / "file")
        whole = (folder / "cell" / "file").read_text() == "new"
    except OSError as error:
        return row("renames", False, f"folders cannot be renamed there: {error}", remedy)
    return row("renames", whole, "folders and files are renamed whole", remedy)


def _locks(folder: Path) -> Row:
    """One driver a workspace: a lock that is held must not be had twice."""
    remedy = "mount it with locks (NFS: without `nolock`), or use one machine at a time; leases guard across machines"
    one, other = (FileLock(folder / "lock", is_singleton=False) for _ in range(2))
    try:
        with one.acquire(timeout=0):
            try:
                other.acquire(timeout=0)
            except Timeout:
                return row("locks", True, "a lock that is held is refused to others")
            other.release()
    except (OSError, NotImplementedError, Timeout) as error:
        return row("locks", False, f"files cannot be locked there: {error}", remedy)
    return row("locks", False, "a lock was given twice", remedy)


def _clock(folder: Path) -> Row:
    """The file server's clock against ours: drivers on several machines believe each other's leases."""
    probe = folder / "clock"
    before = time.time()
    probe.write_text("now")
    written, after = probe.stat().st_mtime, time.time()
    skew = max(before - written, written - after, 0.0)
    said = f"{skew:.1f} s between this clock and that of the workspace's files"
    return row("clock", skew < SKEW_SECONDS, said, "set both by NTP: leases of drivers depend on it", needed=False)


def _file_system(where: Path, mounts: Callable[[], str] = lambda: Path("/proc/mounts").read_text()) -> str:
    """The kind of file system that holds a folder; empty where the system does not say."""
    best, kind = "", ""
    with contextlib.suppress(OSError):
        for line in mounts().splitlines():
            _, point, here, *_ = line.split()
            if where.resolve().is_relative_to(point) and len(point) >= len(best):
                best, kind = point, here
    return kind
