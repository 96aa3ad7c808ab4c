"""The one way files are written: a reader, also one after a crash or a full disk, finds a whole file or the old one."""

import datetime
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from crossfold.platform.core.errors import UserError

MOST_NAME_BYTES = 240
"""Of a name from data; file systems take 255, and some names get a prefix or a suffix."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of the system for a disk that is full, and for a user's quota that is used up."""
LEFTOVER_SECONDS = 3600.0
"""Age from which a temporary file of another machine counts as left behind: a commit takes a second or a few."""
_LONGEST_NAME = 255
_DRAFT = re.compile(r"\..*-([0-9a-f]{8}-\d+)-[0-9a-f]{8}(?:\..*)?", re.DOTALL)
_NAME_RULES = (
    (re.compile(r"^/|^[A-Za-z]:|\\"), "it is a path from the root, or holds a backslash"),
    (re.compile(r"(?:^|/)\."), "a part of it begins with a dot"),
    (re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]"), "it holds a character that cannot be printed"),
)
_TIDIED: set[Path] = set()
"""Folders from which this process has removed the drafts of others."""
_CANNOT_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP})
"""What a mount answers that has no way to flush a file; there, the rename alone must do."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; the old one stays until the new one is on the disk.

    The mode is what the umask leaves of 0666. Raises `OSError` that names `path`; the temporary file is then gone.
    """
    with _replacing(path, "") as draft:
        draft.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of `json_bytes`."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """JSON with sorted keys, one item a line, UTF-8; equal values give equal bytes. Raises `ValueError` for NaN."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """As `write_bytes`, for a library that writes the file itself: gives the temporary path, which has the suffix of
    `path`, and puts the file in its place when the block ends without an error.
    """
    with _replacing(path, path.suffix) as draft:
        try:
            yield draft
        except BaseException:
            # Some libraries keep files of their own next to it, such as the journal of sqlite.
            for left in draft.parent.glob(f"{glob.escape(draft.name)}*"):
                left.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder next to `path` to write into, and renames it to `path` when the block ends without an
    error. Raises `FileExistsError` where `path` is a folder that holds something; nothing temporary is left.
    """
    with temporary_folder(path.parent, path.name) as draft:
        yield draft
        publish_folder(draft, path)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Makes a hidden folder with the name of a draft in `parent`, and removes it unless `publish_folder` moved it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = _draft(parent, name)
    folder.mkdir()
    try:
        with _naming(parent / name, full_only=True):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(draft: Path, path: Path) -> None:
    """Flushes the files of a temporary folder to the disk and renames it. Raises what `whole_folder` raises."""
    for file in sorted(draft.rglob("*")):
        if file.is_file():
            with _naming(path):
                _flush(file)
    try:
        draft.rename(path)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise


@contextmanager
def _replacing(path: Path, suffix: str) -> Iterator[Path]:
    if path.exists() and not path.is_file() and not path.is_dir():
        # A device or a pipe, such as /dev/stdout: there is nothing to replace.
        yield path
        return
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path.parent, path.name, suffix)
    try:
        with _naming(path, draft):
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            mode = draft.stat().st_mode
            yield draft
            # Some libraries choose a mode of their own: safetensors 0600, which locks other users out.
            draft.chmod(mode)
            _flush(draft)
            draft.replace(path)
    finally:
        # Half a file would keep a full disk full.
        draft.unlink(missing_ok=True)


def owner_tag() -> str:
    """This process, on this machine, as part of a file name."""
    return f"{_machine()}-{os.getpid()}"


def same_machine(owner: str) -> bool:
    """Whether an owner is a process of this machine."""
    return owner.partition("-")[0] == _machine()


def owner_alive(owner: str) -> bool:
    """Whether the process of an owner may still run; one on another machine always may."""
    number = owner.partition("-")[2]
    if not same_machine(owner) or not number.isdecimal():
        return True
    try:
        # In a container without an init, a process that ended stays in the list of processes for ever.
        return bool(psutil.Process(int(number)).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OverflowError):
        return True


def remove_drafts(folder: Path, *, recursive: bool = False) -> int:
    """Removes temporary files and folders whose process was killed; returns how many there were.

    What a living process of this machine writes stays, and so does what another machine may still write: it goes when
    it has been left alone for `LEFTOVER_SECONDS`. Folders that cannot be read are left out.
    """
    removed = 0
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if (found := _DRAFT.fullmatch(name)) and _abandoned(Path(place, name), found[1]):
                _remove(Path(place, name))
                removed += 1
        folders[:] = [name for name in folders if recursive and not _DRAFT.fullmatch(name)]
    return removed


def remove_folder(folder: Path) -> None:
    """Removes a folder that may be in use no more; of one that is removed by half, the rest goes by `remove_drafts`."""
    draft = _draft(folder.parent, folder.name)
    with suppress(OSError):
        folder.rename(draft)
        _remove(draft)


def _abandoned(path: Path, owner: str) -> bool:
    if same_machine(owner):
        return not owner_alive(owner)
    try:
        last = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    except OSError:
        return False
    return last < time.time() - LEFTOVER_SECONDS


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _machine() -> str:
    """This machine, and in a container its processes: the same number is another process in each of them."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()}{processes}".encode()).hexdigest()[:8]


def _draft(parent: Path, name: str, suffix: str = "") -> Path:
    """A name that says who writes, so that what a killed process leaves is known for what it is.

    The first one in a folder removes what killed processes left there: the folder may be one that a user names, where
    nothing else would.
    """
    place = parent.absolute()
    if place not in _TIDIED:
        _TIDIED.add(place)
        remove_drafts(parent)
    tag = f"-{owner_tag()}-{uuid.uuid4().hex[:8]}{suffix}"
    shown = os.fsencode(name)[: _LONGEST_NAME - 1 - len(os.fsencode(tag))].decode(errors="ignore")
    return parent / f".{shown}{tag}"


@contextmanager
def _naming(path: Path, draft: Path | None = None, *, full_only: bool = False) -> Iterator[None]:
    """An error of the disk names the file that people know; the write that finds a disk full names none.

    full_only: other errors may come from files that are read, and stay as they are.
    """
    try:
        yield
    except OSError as error:
        known = error.errno in FULL if full_only else error.errno is not None
        if known and error.filename2 is None and error.filename in (None, str(draft)):
            error.filename = str(path)
        raise


def _flush(path: Path) -> None:
    """Waits until a file is on the disk. Without it, the rename may outlive a power cut, and the content not."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(file)


def path_inside(folder: Path, name: str) -> Path:
    """`folder / name`, for a name that comes from data: of a clip, a corpus, a sweep, a cell, a target.

    The name may hold folders of its own, as in `session/clip`. Raises `UserError` for one that would lead elsewhere, or
    that file systems refuse.
    """
    problem = next((why for broken, why in _NAME_RULES if broken.search(name)), "")
    if problem or not all(0 < len(os.fsencode(part)) <= MOST_NAME_BYTES for part in name.split("/")):
        shown = repr(name if len(name) <= 80 else f"{name[:80]}...")
        raise UserError(
            f"{shown} cannot name a file in {folder}: {problem or f'it is empty, or over {MOST_NAME_BYTES} bytes'}",
            "a name from data never leads to another folder: rename it where it comes from",
        )
    return folder / name


def utc_now() -> str:
    """The time, UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
