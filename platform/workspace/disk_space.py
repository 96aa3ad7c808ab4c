"""Space on the disk of a workspace: whether there is enough, what to say when there is not, when to ask again."""

import errno
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import FULL
from crossfold.platform.core.outcome import Failure

MIB = 2**20
LEAST = MIB
"""Bytes without which nothing begins: the notes of a driver and the smallest cell take about as much."""
LEAST_FILES = 32
"""Files without which nothing begins: a cell has six, and some are written next to those that they replace."""
CHECK_SECONDS = 1.0
"""The time between two checks of the disk."""
PATIENCE_SECONDS = 600.0
"""After a cell failed for want of space: how long until the next one starts, if the disk has no more than then."""
_NAMES_FULL = re.compile("|".join(rf"\[Errno {number}\]" for number in sorted(FULL)))


@dataclass(frozen=True)
class FreeSpace:
    """What a disk still takes."""

    bytes: int
    files: int | None
    """None: the file system has no fixed number of files."""

    @property
    def out_of_files(self) -> bool:
        """Whether too few files may be made, whatever space there is."""
        return self.files is not None and self.files < LEAST_FILES

    def __str__(self) -> str:
        """For people: what is short."""
        if self.out_of_files:
            return f"{self.files} more files can be made there and a start needs {LEAST_FILES}"
        return f"{self.bytes / MIB:.1f} MiB are free there and a start needs {LEAST / MIB:.0f} MiB"


def free_space(place: Path) -> FreeSpace | None:
    """What may still be written at a place, which need not exist yet; None where the system does not say."""
    folder = next((folder for folder in (place, *place.parents) if folder.exists()), None)
    if folder is None:
        return None
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    # Some file systems have no fixed number of files, and report none.
    return FreeSpace(disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files > 0 else None)


def free_bytes(place: Path) -> int | None:
    """Bytes that may still be written at a place; None where the system does not say.

    0 also where fewer than `LEAST_FILES` files may still be made, whatever space there is.
    """
    free = free_space(place)
    if free is None:
        return None
    return 0 if free.out_of_files else free.bytes


def require_space(place: Path) -> None:
    """Raises the `OSError` of a full disk where less than `LEAST` bytes are free."""
    free = free_bytes(place)
    if free is not None and free < LEAST:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Raises the `OSError` of a full disk in place of an error that one caused, such as that of a database.

    sqlite, and what is built on it, has errors of its own for a disk that is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        cause: BaseException | None = error
        while cause is not None and not _says_full(cause):
            cause = cause.__cause__ or cause.__context__
        if cause is None and not _no_space(place):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _no_space(place: Path) -> bool:
    """With too little left, sqlite also says `disk I/O error`, or `unable to open database file`."""
    free = free_bytes(place)
    return free is not None and free < LEAST


def disk_full_error(error: OSError) -> UserError:
    """A full disk in words: which, how much is free, what to do."""
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    free = free_space(place) if place else None
    where = f"{place}: " if place else ""
    left = "" if free is None else f", {free}"
    return UserError(
        f"{where}{error.strerror}{left}",
        "free some space, or give another --workspace; what finished is kept, and the same command continues",
    )


class DiskGate:
    """Whether another cell may begin. On a full disk each would fail, one after the other, until all have."""

    def __init__(
        self,
        place: Path | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        """`place`: a folder of the disk; None for one that is never full."""
        self._place = place
        self._clock = clock
        self._free = free
        self._checked, self._open = -CHECK_SECONDS, True
        self._least, self._until = LEAST, -1.0

    def note_failure(self, failure: Failure) -> None:
        """An attempt failed; if for want of space, the next one waits until there is more than now, or for a while."""
        if self._place is not None and _NAMES_FULL.search(failure.message):
            # What it could not write whole is gone again, so this was not enough.
            self._least = (self._free(self._place) or 0) + LEAST
            self._until = self._clock() + PATIENCE_SECONDS
            self._checked = -CHECK_SECONDS

    def need(self) -> str:
        """What a closed gate waits for, in words."""
        if self._place is not None and (space := free_space(self._place)) is not None and space.out_of_files:
            return str(space)
        free = self._free(self._place) if self._place is not None else None
        return f"{(free or 0) / MIB:.1f} MiB are free there and a cell needs {self._needed() / MIB:.1f} MiB"

    def _needed(self) -> int:
        return self._least if self._clock() < self._until else LEAST

    def __call__(self) -> bool:
        """Whether there is enough space, by a check that is at most `CHECK_SECONDS` old."""
        now = self._clock()
        if self._place is not None and now - self._checked >= CHECK_SECONDS:
            free = self._free(self._place)
            self._checked, self._open = now, free is None or free >= self._needed()
        return self._open
