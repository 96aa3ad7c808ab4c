"""Small file systems of their own, which fill up as a disk does."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(place: Path, *, size: int, files: int = 0) -> Iterator[Path]:
    """A file system of `size` bytes in a new folder `place`, with room for `files` files (0: for any number).

    Skips the test where this machine lets us mount none.
    """
    place.mkdir()
    options = f"size={size}" + (f",nr_inodes={files}" if files else "")
    try:
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        allowed = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, left: int = 0) -> Path:
    """Writes a file that leaves `left` bytes free on the file system of `place`, to a block of it; returns the file."""
    filler = place / "filler"
    disk = os.statvfs(place)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        # Reserved blocks are not free, so that a filler of all that is said to be free may meet the end early.
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left)
    return filler


def use_up_files(place: Path, left: int = 0) -> Path:
    """Makes a folder with empty files, so that `left` more can be made on the file system of `place`; returns it."""
    folder = place / "empty"
    folder.mkdir()
    for number in range(os.statvfs(place).f_favail - left):
        (folder / str(number)).touch()
    return folder
