"""The one way files are written: a reader, also one after a crash or a full disk, finds a whole file or the old one."""

import datetime
import errno
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import UserError

MOST_NAME_BYTES = 240
"""Of a name from data; file systems take 255, and the names of temporary files are a little longer."""
_NAME_RULES = (
    (re.compile(r"^/|^[A-Za-z]:|\\"), "it is a path from the root, or holds a backslash"),
    (re.compile(r"(?:^|/)\."), "a part of it begins with a dot"),
    (re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]"), "it holds a character that cannot be printed"),
)
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
    """Makes the folder `.<name>-<8 hex digits>` in `parent` and removes it, unless `publish_folder` moved it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f".{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
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
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}{suffix}")
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


@contextmanager
def _naming(path: Path, draft: Path | None = None) -> Iterator[None]:
    """An error of the disk names the file that people know; the write that finds a disk full names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename2 is None and error.filename in (None, str(draft)):
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
