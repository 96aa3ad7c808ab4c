"""Finished cells of a workspace at a URL: sent file by file, and fetched when they are whole there.

`env.json` is sent last and makes a cell whole: it holds the sizes of the other files. Two attempts at a cell write the
same bytes, so a race between machines is harmless. Predictions and weights are fetched only when something reads them.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.files import LEFTOVER_SECONDS, publish_folder, temporary_folder, whole_file, write_json
from crossfold.platform.core.layout import CELL_FILES, CELL_ID, HASHED, RECORD, WorkspacePaths
from crossfold.platform.workspace.remote.filesystem import RemoteFiles

logger = logging.getLogger(__name__)

LAST = "env.json"
"""The file that makes a cell whole."""
LARGE = ("predictions.npz", "best.safetensors")
"""What is fetched only when something reads it."""
_SMALL = tuple(name for name in CELL_FILES if name not in (*LARGE, LAST))
_CHUNK = 64
"""Cells that are requested together."""


class CellSync:
    """The finished cells of one workspace, at both ends."""

    def __init__(self, files: RemoteFiles, paths: WorkspacePaths) -> None:
        """paths: of the copy on this machine."""
        self._files = files
        self._paths = paths

    def local(self) -> set[str]:
        """Cells on this machine."""
        return names_in(self._paths.cells)

    def unsent(self) -> set[str]:
        """Cells that are to be sent, also those that are not written yet."""
        return names_in(self._paths.outbox)

    def waiting(self) -> set[str]:
        """Cells that are written and not sent."""
        return {name for name in self.unsent() if self._paths.cell(name).is_dir()}

    def remote(self) -> set[str]:
        """Cells at the URL, whole or not. Raises `UserError` where all that this machine knows are missing."""
        known = self.local() - self.unsent()
        found = {name for name in self._files.listed("cells") if CELL_ID.fullmatch(name)}
        if known and not found:
            raise UserError(
                f"{self._files.shown} has no cells, and this machine knows {len(known)} of it",
                f"is it mounted, and the address right? If it was emptied on purpose, remove {self._paths.root}",
            )
        return found

    def expect_commit(self, cell_id: str) -> None:
        """Notes that a cell is about to be written here, so that it is sent even if this process dies after that."""
        self._paths.outbox.mkdir(parents=True, exist_ok=True)
        (self._paths.outbox / cell_id).touch()

    def send(self, cell_id: str) -> None:
        """Sends a cell, unless another attempt was first. Raises `OSError`."""
        folder, there = self._paths.cell(cell_id), f"cells/{cell_id}"
        first = self._files.read([f"{there}/{LAST}"]).get(f"{there}/{LAST}")
        if first is None:
            for name in (*(name for name in CELL_FILES if name != LAST), LAST):
                # Of a cell that was restored, the large files may be only there.
                if (folder / name).is_file():
                    self._files.send(folder / name, f"{there}/{name}")
        elif not (folder / LAST).is_file() or first != (folder / LAST).read_bytes():
            # The `env.json` that was first is the one that all machines shall see.
            self.fetch([cell_id], replace=True)
        (self._paths.outbox / cell_id).unlink(missing_ok=True)
        self._files.remove(f"running/{cell_id}")

    def send_waiting(self) -> None:
        """Sends what waits. Raises `RemoteUnavailable`."""
        for name in sorted(self.unsent()):
            note = self._paths.outbox / name
            if self._paths.cell(name).is_dir():
                self.send(name)
            elif time.time() - _modified(note) > LEFTOVER_SECONDS:
                # The process was killed before it had written the cell.
                note.unlink(missing_ok=True)

    def fetch(self, cell_ids: Sequence[str], *, replace: bool = False) -> set[str]:
        """Fetches the small files of those cells that are whole there, and returns which were.

        replace: also where this machine has the cell. Raises `RemoteUnavailable`.
        """
        found: set[str] = set()
        if len(cell_ids) > 10 * _CHUNK:
            logger.info("fetching %d finished cells from %s", len(cell_ids), self._files.shown)
        for begin in range(0, len(cell_ids), _CHUNK):
            some = cell_ids[begin : begin + _CHUNK]
            last = self._files.read(f"cells/{cell_id}/{LAST}" for cell_id in some)
            chosen = [cell_id for cell_id in some if f"cells/{cell_id}/{LAST}" in last]
            read = last | self._files.read(f"cells/{cell_id}/{name}" for cell_id in chosen for name in _SMALL)
            for cell_id in chosen:
                content = {name: read.get(f"cells/{cell_id}/{name}", b"") for name in (*_SMALL, LAST)}
                if _is_whole(content):
                    self._place(cell_id, content, replace)
                    found.add(cell_id)
        return found

    def fetch_file(self, cell_id: str, name: str) -> None:
        """Fetches a large file of a cell. Raises `DataError` where it is not what was committed."""
        folder = self._paths.cell(cell_id)
        size = json.loads((folder / LAST).read_text()).get(RECORD, {}).get(name)
        with whole_file(folder / name) as draft:
            with contextlib.suppress(FileNotFoundError):
                self._files.fetch(f"cells/{cell_id}/{name}", draft)
            # Where there was nothing to fetch the draft is empty, which no file of a cell is.
            if (found := draft.stat().st_size) == 0 or size not in (None, found):
                raise DataError(
                    f"{name} of cell {cell_id} is not at {self._files.shown} as it was committed",
                    f"`crossfold rerun {cell_id}` computes the cell again",
                )

    def withdraw(self, cell_id: str) -> None:
        """Ends that a cell counts there, as it is to be computed again; its other files stay until then."""
        self._files.remove(f"cells/{cell_id}/{LAST}")

    def note_replaced(self, cell_id: str) -> None:
        """Notes that a cell was computed again or restored, so that it is sent and other machines fetch it again."""
        self.expect_commit(cell_id)
        write_json(self._paths.replaced / f"{cell_id}-{time.time_ns():x}.json", {})

    def drop_replaced(self, notes: Sequence[str]) -> None:
        """Removes the copies here of cells that another machine replaced. notes: names of new files in `replaced`."""
        unsent = self.unsent()
        for cell_id in {note.partition("-")[0] for note in notes} - unsent:
            shutil.rmtree(self._paths.cell(cell_id), ignore_errors=True)

    def set_gone_aside(self, there: set[str]) -> None:
        """Moves cells that were removed at the URL to `gone`: they no longer count, and may exist nowhere else."""
        for cell_id in self.local() - there - self.unsent():
            gone = self._paths.gone / cell_id
            gone.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(gone, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                self._paths.cell(cell_id).rename(gone)

    def _place(self, cell_id: str, content: Mapping[str, bytes], replace: bool) -> None:
        cells, place = self._paths.cells, self._paths.cell(cell_id)
        with temporary_folder(cells, cell_id) as draft, temporary_folder(cells, cell_id) as old:
            for name, part in content.items():
                (draft / name).write_bytes(part)
            if replace:
                with contextlib.suppress(FileNotFoundError):
                    place.rename(old / cell_id)
            # Another process of this machine may have fetched it by now.
            with contextlib.suppress(FileExistsError):
                publish_folder(draft, place)


def names_in(folder: Path) -> set[str]:
    """Names in a folder, without hidden ones; empty where there is no folder."""
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return set()


def _is_whole(content: Mapping[str, bytes]) -> bool:
    """Whether the small files of a cell are what its `env.json` says; one of an older version says nothing."""
    if not all(content.values()):
        return False
    try:
        record = json.loads(content[LAST]).get(RECORD, {})
    except (ValueError, AttributeError):
        return False
    numbers = hashlib.sha256(content[HASHED]).hexdigest()
    sizes = {name: len(part) for name, part in content.items() if name in record}
    return record.get("sha256", numbers) == numbers and all(record[name] == size for name, size in sizes.items())


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
