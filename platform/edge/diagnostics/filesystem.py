"""Whether a workspace can be kept on a file system."""

import contextlib
import os
import shutil
import time
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from crossfold.platform.core.files import temporary_folder
from crossfold.platform.edge.diagnostics.finding import GIB, Row, row

DISK_BYTES = 2 * GIB
"""Free space of the workspace below which a sweep is likely to stop in its middle."""
SKEW_SECONDS = 5.0
"""Between this clock and that of a file server; leases of drivers last 2 minutes, their beats are 20 s apart."""
NETWORK_FILES = ("nfs", "cifs", "smb", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "9p", "lustre", "gpfs")


def workspace_rows(root: Path) -> list[Row]:
    """Free space, and what a workspace needs of its file system: renames, locks, and the right time."""
    # The workspace need not exist yet; then its nearest folder stands for it.
    where = next(path for path in (root, *root.parents) if path.exists())
    remedy = "choose a --workspace that is a folder you may write"
    if not where.is_dir() or not os.access(where, os.W_OK):
        return [row("workspace", False, f"{root}", remedy)]
    free = shutil.disk_usage(where).free
    found = f"{free / GIB:.1f} GiB free for {root}"
    rows = [row("disk", free >= DISK_BYTES, found, "free some, or choose another --workspace")]
    try:
        with temporary_folder(where, "crossfold-doctor") as folder:
            rows += [_renames(folder), _locks(folder), _clock(folder)]
    except OSError as error:
        return [*rows, row("workspace", False, f"{root}: {error}", remedy)]
    kind = _file_system(where)
    if kind.startswith(NETWORK_FILES) and not os.environ.get("MLFLOW_TRACKING_URI"):
        remedy = "sqlite is not safe on it from several machines: start `mlflow server`, and set MLFLOW_TRACKING_URI"
        rows.append(row("file system", False, f"{root} is on {kind}", remedy, needed=False))
    return rows


def _renames(folder: Path) -> Row:
    """A finished cell appears by the rename of a folder, which must never replace another."""
    remedy = "choose a --workspace on a local disk, NFS, Lustre or the like"
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "file").write_text(name)
        (folder / "one").rename(folder / "cell")
        with contextlib.suppress(OSError):
            (folder / "two").rename(folder / "cell")
            return row("renames", False, "a folder replaced another one that is not empty", remedy)
        (folder / "new").write_text("new")
        (folder / "new").replace(folder / "cell" / "file")
        whole = (folder / "cell" / "file").read_text() == "new"
    except OSError as error:
        return row("renames", False, f"folders cannot be renamed there: {error}", remedy)
    return row("renames", whole, "folders and files are renamed whole", remedy)


def _locks(folder: Path) -> Row:
    """A workspace has one driver at a time, so a lock that is held must be refused to others."""
    remedy = "mount it with locks (NFS: without `nolock`), or use one machine at a time; leases guard across machines"
    # A singleton would hand out the same lock twice within this process.
    one, other = (FileLock(folder / "lock", is_singleton=False) for _ in range(2))
    try:
        with one.acquire(timeout=0):
            try:
                other.acquire(timeout=0)
                other.release()
            except Timeout:
                return row("locks", True, "a lock that is held is refused to others")
    except (OSError, NotImplementedError, Timeout) as error:
        return row("locks", False, f"files cannot be locked there: {error}", remedy)
    return row("locks", False, "a lock was given twice", remedy)


def _clock(folder: Path) -> Row:
    """The clock of the file server: drivers on several machines compare times that the others wrote."""
    probe = folder / "clock"
    # Between the two readings, so that a slow file server is no wrong clock.
    before = time.time()
    probe.write_text("now")
    written, after = probe.stat().st_mtime, time.time()
    skew = max(before - written, written - after, 0.0)
    found = f"{skew:.1f} s between this clock and that of the workspace's files"
    return row("clock", skew < SKEW_SECONDS, found, "set both by NTP: leases of drivers depend on it", needed=False)


def _file_system(where: Path) -> str:
    """The kind of file system that holds a folder; empty where the system does not say."""
    mounts = [part for part in psutil.disk_partitions(all=True) if where.resolve().is_relative_to(part.mountpoint)]
    # Of several on one mount point the last covers the others.
    return sorted(mounts, key=lambda part: len(part.mountpoint))[-1].fstype if mounts else ""
