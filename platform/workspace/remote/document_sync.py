"""The small files of a workspace at a URL: what changed there comes here, what changed here goes there.

A record says of each document how it was, here and there, when both were last the same. What was written here since
goes there; else what is there comes here. Those that change are written by drivers, and only one drives at a time.
"""

import contextlib
import datetime
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from crossfold.platform.core.files import whole_file, write_bytes
from crossfold.platform.workspace.remote.filesystem import RemoteFiles

FOLLOWED = ("failures", "rescored", "ensembles", "replaced", "sweeps", "searches", "launches", "unfinished", "status")
PASSING = "unfinished/"
"""Documents that are removed when their cell has ended; of others only the place itself may remove some."""
SENT_ONLY = ("reports", "conflicts")
FILES = ("forecast.json", "gpu-memory.json", "memory.json", "optuna.db")
_AT_ONCE = 64


class Documents:
    """The documents of one workspace, at both ends."""

    def __init__(self, files: RemoteFiles, root: Path) -> None:
        """root: of the workspace here."""
        self._files = files
        self._root = root

    def pull(self, top: Mapping[str, str]) -> list[str]:
        """Brings documents that changed there and not here, and returns their names; `top`: what lies there, listed."""
        there = {name: top[name] for name in FILES if name in top}
        for folder in FOLLOWED:
            if folder in top:
                there |= self._walk(folder)
        with self._record() as record:
            wanted = []
            for name, version in there.items():
                here, known = stat_of(self._root / name), record.get(name)
                if here is not None and (known is None or here != known[:2]):
                    continue  # written here since, and goes there
                if here is not None and known is not None and known[2] in ("", version):
                    record[name] = [*here, version]
                elif known is None or not name.startswith(PASSING):
                    wanted.append(name)
            brought = []
            for first in range(0, len(wanted), _AT_ONCE):
                for name, content in self._files.read(wanted[first : first + _AT_ONCE]).items():
                    self._write(name, content)
                    record[name] = [*(stat_of(self._root / name) or (0, 0)), there[name]]
                    brought.append(name)
            for name in [name for name in record if name not in there and name.split("/")[0] not in SENT_ONLY]:
                if stat_of(self._root / name) == record[name][:2]:
                    (self._root / name).unlink()
                    del record[name]
        return brought

    def push(self) -> None:
        """Sends documents that changed here."""
        names = [name for name in FILES if (self._root / name).is_file()]
        for folder in (*FOLLOWED, *SENT_ONLY):
            for path in sorted((self._root / folder).rglob("*")):
                rel = path.relative_to(self._root)
                if path.is_file() and not any(part.startswith(".") for part in rel.parts):
                    names.append(rel.as_posix())
        with self._record() as record:
            for name in names:
                here = stat_of(self._root / name)
                if here is None or here == record.get(name, [])[:2]:
                    continue
                self._send(self._root / name, name)
                record[name] = [*here, ""]
            for name in [name for name in record if name.startswith(PASSING) and not (self._root / name).is_file()]:
                self._files.remove(name)
                del record[name]

    def _write(self, name: str, content: bytes) -> None:
        with whole_file(self._root / name) as draft:
            draft.write_bytes(content)
            if name.startswith("status/"):
                # Readers take the age of a launch's state from the file's time, so it keeps the driver's.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    at = datetime.datetime.fromisoformat(json.loads(content)["at"]).timestamp()
                    os.utime(draft, (at, at))

    def _send(self, path: Path, name: str) -> None:
        if path.suffix != ".db":
            with contextlib.suppress(FileNotFoundError):
                self._files.write(name, path.read_bytes())
            return
        # Somebody may be writing to a database: a copy by its own means is whole.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            with contextlib.closing(sqlite3.connect(path)) as ours, contextlib.closing(sqlite3.connect(copy)) as other:
                ours.backup(other)
            self._files.send(copy, name)

    def _walk(self, folder: str, depth: int = 2) -> dict[str, str]:
        """Files in a folder and the folders in it; what has no ending is a folder."""
        found: dict[str, str] = {}
        for name, version in self._files.listed(folder).items():
            if name.startswith("."):
                continue
            if Path(name).suffix:
                found[f"{folder}/{name}"] = version
            elif depth > 1:
                found |= self._walk(f"{folder}/{name}", depth - 1)
        return found

    @contextlib.contextmanager
    def _record(self) -> Iterator[dict[str, list[Any]]]:
        """Of each document: size and time here, and its version there, when both were last the same."""
        path = self._root / "followed.json"
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._root / "followed.lock"):
            try:
                record: dict[str, list[Any]] = json.loads(path.read_text())
            except (OSError, ValueError):
                record = {}
            before = json.dumps(record)
            try:
                yield record
            finally:
                if (after := json.dumps(record)) != before:
                    write_bytes(path, after.encode())


def stat_of(path: Path) -> list[int] | None:
    """Size in bytes and time of the last change of a file, or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
