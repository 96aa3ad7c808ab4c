"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
from contextlib import contextmanager


def write_whole(path: Path, content: bytes) -> None:
    """A file beside its place, renamed. The state of a launch keeps its own time, by which readers know its age."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(beside).chmod(0o644)
        if path.parent.name == "status":
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = datetime.datetime.fromisoformat(json.loads(content)["at"]).timestamp()
                os.utime(beside, (said, said))
        Path(beside).replace(path)
    finally:
        Path(beside).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside the place and renames it, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
            file.write("\n")
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except OSError as error:
        # A full disk is told by the write, which does not say where.
        error.filename = error.filename or str(path)
        raise
    finally:
        Path(beside).unlink(missing_ok=True)


def utc_now() -> str:
    """The time, UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a fresh folder beside `out` to write into, and rename it to `out` at the end: all appears, or nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
