"""Space on the disk of a workspace: whether there is enough, what to say when there is not, when to ask again."""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Failure

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of the system for a disk that is full, and for a user's quota that is used up."""
MIB = 2**20
LEAST = MIB
"""Bytes without which nothing begins: the notes of a driver and the smallest cell take about as much."""
CHECK_SECONDS = 1.0
"""The time between two checks of the disk."""
PATIENCE_SECONDS = 600.0
"""After a cell failed for want of space: how long until the next one starts, if the disk has no more than then."""
_NAMES_FULL = re.compile("|".join(rf"\[Errno {number}\]" for number in sorted(FULL)))


def free_bytes(place: Path) -> int | None:
    """Bytes that may still be written at a place, which need not exist yet; None where the system does not say."""
    for folder in (place, *place.parents):
        if folder.exists():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None


def require_space(place: Path) -> None:
    """Raises the `OSError` of a full disk where less than `LEAST` bytes are free."""
    free = free_bytes(place)
    if free is not None and free < LEAST:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))


def disk_full_error(error: OSError) -> UserError:
    """A full disk in words: which, how much is free, what to do."""
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    free = free_bytes(place) if place else None
    where = f"{place}: " if place else ""
    left = "" if free is None else f", {free / MIB:.1f} MiB are free there and a start needs {LEAST / MIB:.0f} MiB"
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

    def __call__(self) -> bool:
        """Whether there is enough space, by a check that is at most `CHECK_SECONDS` old."""
        now = self._clock()
        if self._place is not None and now - self._checked >= CHECK_SECONDS:
            least = self._least if now < self._until else LEAST
            free = self._free(self._place)
            self._checked, self._open = now, free is None or free >= least
        return self._open
