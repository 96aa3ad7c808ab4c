"""Room on the disk of a workspace: whether there is any, what to say when there is none, when to try again."""

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
"""What the system answers where a disk, or the share of it that somebody may use, is full."""
MIB = 2**20
LEAST = MIB
"""Bytes without which nothing begins: the notes of a driver and the smallest cell take about as much."""
LOOK_SECONDS = 1.0
"""Between two looks at the disk."""
PATIENCE_SECONDS = 600.0
"""After a cell found no room: how long until the next one tries, where the disk shows no more room than then."""
_SAID = re.compile("|".join(rf"\[Errno {number}\]" for number in sorted(FULL)))


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
        "make room, or give another --workspace; what finished is kept, and the same command continues",
    )


class DiskGate:
    """Whether another cell may begin. Where there is no room each would fail, one after the other, until all have."""

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
        self._looked, self._open = -LOOK_SECONDS, True
        self._least, self._until = LEAST, -1.0

    def heard(self, failure: Failure) -> None:
        """A try failed; if for want of room, the next one waits for more than there is now, or for a while."""
        if self._place is not None and _SAID.search(failure.message):
            # What it could not write whole is gone again, so this was not enough.
            self._least = (self._free(self._place) or 0) + LEAST
            self._until = self._clock() + PATIENCE_SECONDS
            self._looked = -LOOK_SECONDS

    def __call__(self) -> bool:
        """Whether there is room, by a look that is at most `LOOK_SECONDS` old."""
        now = self._clock()
        if self._place is not None and now - self._looked >= LOOK_SECONDS:
            least = self._least if now < self._until else LEAST
            free = self._free(self._place)
            self._looked, self._open = now, free is None or free >= least
        return self._open
