"""The small files of a workspace at a URL: what changed at one end is copied to the other.

A record says how each document was, here and there, when both were last the same. A document that was written here
since then is sent; else the one at the URL is fetched. Only drivers change documents, and there is one at a time.
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
from crossfold.platform.core.layout import WorkspacePaths
from crossfold.platform.workspace.remote.filesystem import RemoteFiles

_CHUNK = 64
"""Documents that are requested together."""


class DocumentSync:
    """The documents of one workspace, at both ends."""

    def __init__(self, files: RemoteFiles, paths: WorkspacePaths) -> None:
        """paths: of the copy on this machine."""
        self._files = files
        self._paths = paths
        both = (
            paths.failures, paths.rescored, paths.ensembles, paths.replaced, paths.sweeps, paths.searches,
            paths.launches, paths.unfinished, paths.status,
        )  # fmt: skip
        self._both_ways = tuple(folder.name for folder in both)
        self._sent_only = (paths.reports.name, paths.conflicts.name)
        self._single = tuple(p.name for p in (paths.durations, paths.gpu_memory, paths.memory, paths.optuna))
        self._passing = f"{paths.unfinished.name}/"
        """Documents that are removed there when they are removed here; others are removed by hand only."""

    def pull(self, top: Mapping[str, str]) -> list[str]:
        """Fetches documents that changed there and not here, and returns their names. top: the listing of the URL."""
        there = {name: top[name] for name in self._single if name in top}
        for folder in self._both_ways:
            if folder in top:
                there |= self._walk(folder)
        with self._record() as record:
            wanted = []
            for name, version in there.items():
                here, known = stat_of(self._paths.root / name), record.get(name)
                if here is not None and (known is None or here != known[:2]):
                    continue  # It was written here since, and will be sent.
                if here is not None and known is not None and known[2] in ("", version):
                    record[name] = [*here, version]
                elif known is None or not name.startswith(self._passing):
                    wanted.append(name)
            fetched = []
            for first in range(0, len(wanted), _CHUNK):
                for name, content in self._files.read(wanted[first : first + _CHUNK]).items():
                    self._write(self._paths.root / name, content)
                    record[name] = [*(stat_of(self._paths.root / name) or (0, 0)), there[name]]
                    fetched.append(name)
            for name in [name for name in record if name not in there and name.split("/")[0] not in self._sent_only]:
                if stat_of(self._paths.root / name) == record[name][:2]:
                    (self._paths.root / name).unlink()
                    del record[name]
        return fetched

    def push(self) -> None:
        """Sends documents that changed here."""
        root = self._paths.root
        names = [name for name in self._single if (root / name).is_file()]
        for folder in (*self._both_ways, *self._sent_only):
            for path in sorted((root / folder).rglob("*")):
                rel = path.relative_to(root)
                # Earlier versions kept markers of their own in `status`, with the ending `.untold`.
                if path.is_file() and path.suffix != ".untold" and not any(part.startswith(".") for part in rel.parts):
                    names.append(rel.as_posix())
        with self._record() as record:
            for name in names:
                here = stat_of(root / name)
                if here is None or here == record.get(name, [])[:2]:
                    continue
                self._send(root / name, name)
                record[name] = [*here, ""]
            for name in [name for name in record if name.startswith(self._passing) and not (root / name).is_file()]:
                self._files.remove(name)
                del record[name]

    def _write(self, path: Path, content: bytes) -> None:
        with whole_file(path) as draft:
            draft.write_bytes(content)
            if path.parent == self._paths.status:
                # Readers take the age of a sweep's state from the time of its file, so that is the driver's.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    at = datetime.datetime.fromisoformat(json.loads(content)["at"]).timestamp()
                    os.utime(draft, (at, at))

    def _send(self, path: Path, name: str) -> None:
        if path.suffix != ".db":
            with contextlib.suppress(FileNotFoundError):
                self._files.write(name, path.read_bytes())
            return
        # A database may be written to while it is read: a copy by its own means is consistent.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            with contextlib.closing(sqlite3.connect(path)) as ours, contextlib.closing(sqlite3.connect(copy)) as other:
                ours.backup(other)
            self._files.send(copy, name)

    def _walk(self, folder: str, depth: int = 2) -> dict[str, str]:
        """Files in a folder and its subfolders; a name without a suffix is a folder."""
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
        self._paths.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._paths.synced_lock):
            try:
                record: dict[str, list[Any]] = json.loads(self._paths.synced.read_text())
            except (OSError, ValueError):
                record = {}
            before = json.dumps(record)
            try:
                yield record
            finally:
                if (after := json.dumps(record)) != before:
                    write_bytes(self._paths.synced, after.encode())


def stat_of(path: Path) -> list[int] | None:
    """Size in bytes and time of the last change of a file, or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
