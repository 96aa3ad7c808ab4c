"""The folder of a Ray cluster of our own, for its sockets and logs: where it lies, whose it is, and when it goes."""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import owner_alive, owner_tag, same_machine, write_bytes

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path of a socket that the system takes."""
SESSION_BYTES = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""What Ray adds to its folder for the longest path of its sockets."""
SESSION_PREFIX, SESSION_NAME, OWNER = "ray-", "r", "owner"
KEEP_SECONDS = 7 * 86400.0
"""How long the logs of a launch that ended with an error stay."""


@contextlib.contextmanager
def session_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs that only this user may open; after an error it stays for a week.

    It lies in RAY_TMPDIR, else with other temporary files if their path is short enough for sockets, else in `/tmp`.
    Folders there of launches that were killed are removed first. Raises `UserError` where it cannot be made.
    """
    place = session_place()
    remove_sessions(place)
    try:
        # No other user may replace a socket in it: here the mode 0700 is what is wanted.
        folder = Path(tempfile.mkdtemp(prefix=SESSION_PREFIX, dir=place))  # noqa: TID251
        write_bytes(folder / OWNER, owner_tag().encode())
    except OSError as error:
        problem = f"Ray does not start: its folder cannot be made in {place}: {error.strerror}"
        raise UserError(problem, "set RAY_TMPDIR to a folder that you may write, or give --workers 0") from error
    try:
        # Ray opens its own folder to everybody.
        yield folder / SESSION_NAME
    except (UserError, KeyboardInterrupt):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        (folder / OWNER).unlink(missing_ok=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def session_place() -> Path:
    """Where the folder of a cluster of our own is made. Raises `UserError` where RAY_TMPDIR is too long for sockets."""
    most = SOCKET_BYTES - SESSION_BYTES - len(f"/{SESSION_PREFIX}12345678/{SESSION_NAME}")
    given = os.environ.get("RAY_TMPDIR")
    place = Path(given or tempfile.gettempdir()).absolute()
    length = len(os.fsencode(place))
    if length <= most:
        return place
    if given:
        problem = f"RAY_TMPDIR={given} is a path of {length} bytes, and Ray's sockets in it would be too long"
        raise UserError(problem, f"set it to a folder with a path of at most {most} bytes, such as /tmp")
    return Path("/tmp")


def remove_sessions(place: Path) -> list[Path]:
    """Removes the folders of this user's launches that were killed, and of those that ended with an error a week ago.

    A folder stays while any process that this user can see was started with its path, as all of Ray's are, and
    whenever another machine or container made it, whose processes cannot be seen from here. Returns what was removed.
    """
    ended = [folder for folder in place.glob(f"{SESSION_PREFIX}*") if _is_ours(folder) and _has_ended(folder)]
    if not ended:
        return []
    started = "\0".join(_command_lines())
    removed = [folder for folder in ended if str(folder) not in started]
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def _is_ours(folder: Path) -> bool:
    """Whether this user made it for Ray; a folder that others may write to could hold anything."""
    try:
        facts = folder.lstat()
        inside = {path.name for path in folder.iterdir()} if stat.S_ISDIR(facts.st_mode) else None
    except OSError:
        return False
    private = facts.st_uid == os.getuid() and stat.S_IMODE(facts.st_mode) == 0o700
    return private and inside is not None and inside <= {SESSION_NAME, OWNER}


def _has_ended(folder: Path) -> bool:
    try:
        owner = (folder / OWNER).read_text()
    except FileNotFoundError:
        return _last_change(folder) < time.time() - KEEP_SECONDS
    except (OSError, UnicodeDecodeError):
        return False
    return same_machine(owner) and not owner_alive(owner)


def _last_change(folder: Path) -> float:
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        # It is changing now.
        return time.time()


def _command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield " ".join(process.cmdline())
