"""A workspace at a URL, as one machine sees it: a folder here that follows the place, and hands over what is written.

All other code reads and writes the folder. What goes which way:

- A cell comes here when it is whole there, without its predictions and weights, which come when they are asked for. It
  goes there file by file, `env.json` last, which makes it whole: it holds the sizes of the others. Two attempts write
  the same bytes, so a race is harmless.
- Documents (failures, sweeps, forecasts, the state of a launch) follow whoever wrote last (`followed_documents`).
- Stores come when they are asked for (`node_stores`) and go there once, `manifest.json` last.
- Checkpoints of running cells go there now and then, so that another machine can go on.

What could not be sent stays in `outbox/`, and the next process that uses the folder sends it. The MLflow database is of
this machine; `crossfold mlflow sync` rebuilds it on another.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossfold.platform.core.errors import DataError, RemoteUnavailable, UserError
from crossfold.platform.core.files import publish_folder, temporary_folder, whole_file, write_bytes, write_json
from crossfold.platform.core.layout import CELL_FILES, HASHED, LEFTOVER_SECONDS, RECORD
from crossfold.platform.workspace.remote.document_sync import Documents, stat_of
from crossfold.platform.workspace.remote.filesystem import RemoteFiles, without_password

logger = logging.getLogger(__name__)

LAST = "env.json"
"""The file that makes a cell whole."""
LARGE = ("predictions.npz", "best.safetensors")
"""What comes here only when it is asked for."""
SYNC_SECONDS = 5.0
"""Between two looks of a driver at the place, and before it is tried again after it was away."""
CHECKPOINT_SECONDS = 20.0
"""Between two checkpoints of one cell sent; more where sending takes long."""
_AT_ONCE = 64
_CELL = re.compile(r"[0-9a-f]{16}")
_BIG = 50 * 2**20


_OPENED: list["Mirror"] = []


def leave() -> None:
    """The end of a command: sends what it wrote. Raises `RemoteUnavailable` where that has to wait."""
    while _OPENED:
        mirror = _OPENED.pop()
        try:
            mirror.push()
        except RemoteUnavailable as error:
            raise RemoteUnavailable(f"{mirror.files.shown}: {error}; what was written waits in {mirror.root}") from None


def mirror_root(url: str) -> Path:
    """The folder here of a workspace there: in `CROSSFOLD_CACHE`, else in the user's cache folder."""
    plain = without_password(url.rstrip("/"))
    cache = os.environ.get("CROSSFOLD_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfold"
    name = re.sub(r"[^A-Za-z0-9._-]", "_", plain.rpartition("/")[2]) or "workspace"
    folder = f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"
    return (Path(cache) if cache else home).resolve() / "workspaces" / folder


class Mirror:
    """The two ends of a workspace at a URL, and the ways between them."""

    large = LARGE

    def __init__(self, url: str, root: Path | None = None) -> None:
        """Nothing is contacted. root: by default `mirror_root`."""
        self.files = RemoteFiles(url)
        self.root = root or mirror_root(url)
        self._cells, self._outbox = self.root / "cells", self.root / "outbox"
        self._documents = Documents(self.files, self.root)
        self._away_since = self._looked = -SYNC_SECONDS
        self._notes_wait = False
        self._courier: threading.Thread | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Sends what waits and brings what is new. Raises `UserError` where the place cannot be read."""
        self.files.check()
        try:
            self._finished_there()
            with contextlib.suppress(RemoteUnavailable):
                self.push()
            self.pull()
        except RemoteUnavailable as error:
            raise UserError(f"{self.files.shown}: {error}", "the same command continues when it is back") from None
        if self not in _OPENED:
            _OPENED.append(self)

    def refresh(self) -> None:
        """Brings what is new, not more often than every `SYNC_SECONDS`; a place that is away is asked again later."""
        if time.monotonic() - self._looked >= SYNC_SECONDS:
            with contextlib.suppress(RemoteUnavailable):
                self.pull()
            self._looked = time.monotonic()

    def pull(self) -> None:
        """Brings documents and finished cells that are new there, without large files. Raises `RemoteUnavailable`."""
        here = _names(self._cells)
        waiting = _names(self._outbox)
        top = self.files.listed("")
        there = self._finished_there()
        for rel in self._documents.pull(top):
            folder, _, name = rel.partition("/")
            if folder == "replaced" and name.partition("-")[0] not in waiting:
                here.discard(name.partition("-")[0])
                shutil.rmtree(self._cells / name.partition("-")[0], ignore_errors=True)
        for cell_id in here - there - waiting:
            # Somebody removed it there. It no longer counts, and is kept, as nothing else may have it.
            gone = self.root / "gone" / cell_id
            gone.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(gone, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                (self._cells / cell_id).rename(gone)
        self.fetch_cells(sorted(there - here))

    def _finished_there(self) -> set[str]:
        """Cells there, whole or not. Raises `UserError` where there is none any more."""
        known = _names(self._cells) - _names(self._outbox)
        there = {name for name in self.files.listed("cells") if _CELL.fullmatch(name)}
        if known and not there:
            raise UserError(
                f"{self.files.shown} has no cells, and this machine knows {len(known)} of it",
                f"is it mounted, and the address right? If it was emptied on purpose, remove {self.root}",
            )
        return there

    def push(self) -> None:
        """Sends what waits: cells, stores, documents. Raises `RemoteUnavailable` where the place is."""
        self.send_waiting()
        for store in sorted(self.root.glob("stores/[!.]*-*/manifest.json")):
            self._send_store(store.parent)
        self._documents.push()

    # Cells

    def expect(self, cell_id: str) -> None:
        """A cell will be written here and must go there, whatever happens in between."""
        self._outbox.mkdir(parents=True, exist_ok=True)
        (self._outbox / cell_id).touch()

    def send_soon(self, cell_id: str) -> None:
        """Sends a cell now if the place is there, else from a thread when it is back."""
        if time.monotonic() - self._away_since >= SYNC_SECONDS:
            try:
                self._send_cell(cell_id)
            except OSError as error:
                self._note_away(error)
            else:
                self._away_since = -SYNC_SECONDS
                return
        self._send_later()

    def send_notes(self) -> None:
        """Sends documents that changed now if the place is there, else from a thread when it is back."""
        try:
            self._documents.push()
        except RemoteUnavailable as error:
            self._note_away(error)
            self._notes_wait = True
            self._send_later()

    def _send_later(self) -> None:
        with self._lock:
            if self._courier is None or not self._courier.is_alive():
                self._courier = threading.Thread(target=self._deliver, name="workspace-courier", daemon=True)
                self._courier.start()

    def waiting(self) -> set[str]:
        """Cells that are here and not yet there."""
        return {name for name in _names(self._outbox) if (self._cells / name).is_dir()}

    def settle(self, seconds: float) -> bool:
        """Waits until what this process wrote is there, so long at most; whether it is."""
        end = time.monotonic() + seconds
        while (courier := self._courier) is not None and courier.is_alive() and time.monotonic() < end:
            courier.join(0.1)
        return not self.waiting()

    def send_waiting(self) -> None:
        """Sends the cells that wait. Raises `RemoteUnavailable`."""
        for name in sorted(_names(self._outbox)):
            if (self._cells / name).is_dir():
                self._send_cell(name)
            elif time.time() - _modified(self._outbox / name) > LEFTOVER_SECONDS:
                # Its process was killed before the cell was here.
                (self._outbox / name).unlink(missing_ok=True)

    def fetch_cells(self, cell_ids: Sequence[str], *, over: bool = False) -> set[str]:
        """Brings cells that are whole there, but for their large files; returns which were. `over`: replaces ours."""
        found: set[str] = set()
        if len(cell_ids) > 10 * _AT_ONCE:
            logger.info("fetching %d finished cells from %s", len(cell_ids), self.files.shown)
        for first in range(0, len(cell_ids), _AT_ONCE):
            some = cell_ids[first : first + _AT_ONCE]
            whole = self.files.read(f"cells/{cell_id}/{LAST}" for cell_id in some)
            chosen = [cell_id for cell_id in some if f"cells/{cell_id}/{LAST}" in whole]
            small = [name for name in CELL_FILES if name not in (*LARGE, LAST)]
            read = whole | self.files.read(f"cells/{cell_id}/{name}" for cell_id in chosen for name in small)
            for cell_id in chosen:
                content = {name: read.get(f"cells/{cell_id}/{name}") for name in (*small, LAST)}
                if _is_whole(content):
                    self._place(cell_id, {name: part for name, part in content.items() if part is not None}, over)
                    found.add(cell_id)
        return found

    def finished_among(self, cell_ids: set[str]) -> set[str]:
        """Brings those of some cells that are there; not more often than every `SYNC_SECONDS`."""
        if not cell_ids or time.monotonic() - self._looked < SYNC_SECONDS:
            return set()
        self._looked = time.monotonic()
        try:
            return self.fetch_cells(sorted(cell_ids))
        except RemoteUnavailable:
            return set()

    def fetch_again(self, cell_id: str) -> bool:
        """Replaces a cell by what is there, if that is whole; else leaves it alone."""
        return bool(self.fetch_cells([cell_id], over=True))

    def fetch_file(self, cell_id: str, name: str) -> None:
        """Brings a large file of a cell. Raises `DataError` where it is not what was committed."""
        place = self._cells / cell_id / name
        size = json.loads((self._cells / cell_id / LAST).read_text()).get(RECORD, {}).get(name)
        problem = f"{name} of cell {cell_id} is not at {self.files.shown} as it was committed"
        remedy = f"`crossfold rerun {cell_id}` computes it again"
        with whole_file(place) as draft:
            try:
                self.files.fetch(f"cells/{cell_id}/{name}", draft)
            except FileNotFoundError:
                raise DataError(problem, remedy) from None
            if size not in (None, draft.stat().st_size):
                raise DataError(problem, remedy)

    def withdraw(self, cell_id: str) -> None:
        """Ends that a cell counts there, as it is to be made anew; its other files stay until they are replaced."""
        self.files.remove(f"cells/{cell_id}/{LAST}")

    def replace(self, cell_id: str) -> None:
        """Sends a cell that was made anew or put back; other machines then fetch it again."""
        self.expect(cell_id)
        note = self.root / "replaced" / f"{cell_id}-{time.time_ns():x}.json"
        write_json(note, {})
        self.send_soon(cell_id)

    def _send_cell(self, cell_id: str) -> None:
        folder, there = self._cells / cell_id, f"cells/{cell_id}"
        first = self.files.read([f"{there}/{LAST}"]).get(f"{there}/{LAST}")
        if first is not None:
            # Another attempt was first; its `env.json` is the one that all machines shall see.
            if not (folder / LAST).is_file() or first != (folder / LAST).read_bytes():
                self.fetch_again(cell_id)
        else:
            for name in (*(name for name in CELL_FILES if name != LAST), LAST):
                # Large files of a cell that is put back may be only there.
                if (folder / name).is_file():
                    self.files.send(folder / name, f"{there}/{name}")
        (self._outbox / cell_id).unlink(missing_ok=True)
        self.files.remove(f"running/{cell_id}")

    def _place(self, cell_id: str, content: dict[str, bytes], over: bool) -> None:
        with temporary_folder(self._cells, cell_id) as draft, temporary_folder(self._cells, cell_id) as old:
            for name, part in content.items():
                (draft / name).write_bytes(part)
            if over:
                with contextlib.suppress(FileNotFoundError):
                    (self._cells / cell_id).rename(old / cell_id)
            # Another process may have brought the same cell by now.
            with contextlib.suppress(FileExistsError):
                publish_folder(draft, self._cells / cell_id)

    def _deliver(self) -> None:
        while self.waiting() or self._notes_wait:
            time.sleep(SYNC_SECONDS)
            try:
                self.send_waiting()
                self._documents.push()
                self._notes_wait = False
            except RemoteUnavailable as error:
                self._note_away(error)
            except OSError as error:
                logger.warning("cannot read what waits in %s: %s", self._outbox, error)

    def _note_away(self, error: BaseException) -> None:
        if self._away_since < 0:
            logger.warning("%s is away (%s); results wait in %s", self.files.shown, error, self.root)
        self._away_since = time.monotonic()

    # Stores

    def store_names(self) -> set[str]:
        """The stores that are whole there."""
        names = [name for name in self.files.listed("stores") if not name.startswith(".")]
        return {name.split("/")[1] for name in self.files.read(f"stores/{name}/manifest.json" for name in names)}

    def _send_store(self, folder: Path) -> None:
        marked = self.root / "stores" / ".sent" / folder.name
        if marked.exists():
            return
        place = f"stores/{folder.name}"
        if not self.files.read([f"{place}/manifest.json"]):
            files = sorted(path for path in folder.iterdir() if path.is_file())
            size = sum(path.stat().st_size for path in files)
            if size > _BIG:
                logger.info("sending store %s (%.1f GiB) to %s", folder.name, size / 2**30, self.files.shown)
            for path in sorted(files, key=lambda path: path.name == "manifest.json"):
                self.files.send(path, f"{place}/{path.name}")
        marked.parent.mkdir(parents=True, exist_ok=True)
        marked.touch()

    # Running cells

    @contextlib.contextmanager
    def sync_checkpoint(self, cell_id: str, *, send: bool = True) -> Iterator[None]:
        """Takes up the checkpoint that another machine left, and sends this one's now and then while the block runs."""
        place, name = self.root / "running" / cell_id / "last.pt", f"running/{cell_id}/last.pt"
        unsent = self.root / "running" / cell_id / ".unsent"
        if not unsent.exists():
            with contextlib.suppress(OSError):
                content = self.files.read([name]).get(name)
                if content is not None:
                    write_bytes(place, content)
        over, seen = threading.Event(), stat_of(place)

        def follow() -> None:
            nonlocal seen
            pause = CHECKPOINT_SECONDS
            while not over.wait(pause):
                began = time.monotonic()
                with contextlib.suppress(OSError):
                    seen = self._send_checkpoint(place, name, seen)
                pause = max(CHECKPOINT_SECONDS, 10 * (time.monotonic() - began))

        if not send:
            yield
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        unsent.touch()
        follower = threading.Thread(target=follow, name=f"carry-{cell_id}", daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
            # Of a cell that is finished there is none.
            with contextlib.suppress(OSError):
                self._send_checkpoint(place, name, seen)
                unsent.unlink(missing_ok=True)

    def _send_checkpoint(self, place: Path, name: str, seen: list[int] | None) -> list[int] | None:
        now = stat_of(place)
        if now is not None and now != seen:
            self.files.write(name, place.read_bytes())
        return now

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Sends and brings what is new, from a thread, while the block runs, and once more at its end."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(SYNC_SECONDS):
                self._exchange()

        follower = threading.Thread(target=follow, name="workspace-follower", daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
            self._exchange(last=True)

    def _exchange(self, *, last: bool = False) -> None:
        try:
            self.push()
            self.pull()
            if last:
                for cell_id in self.files.listed("running").keys() & _names(self._cells):
                    self.files.remove(f"running/{cell_id}")
            self._away_since = -SYNC_SECONDS
        except (OSError, UserError) as error:
            # Nothing is lost: what is here waits. The command says so at its end, if it waits still.
            self._note_away(error)


def _is_whole(content: dict[str, bytes | None]) -> bool:
    """Whether the small files of a cell are what its `env.json` says; one of an older version says nothing."""
    if any(part is None for part in content.values()):
        return False
    try:
        record = json.loads(content[LAST] or b"").get(RECORD, {})
    except (ValueError, AttributeError):
        return False
    numbers = hashlib.sha256(content[HASHED] or b"").hexdigest()
    sizes = {name: len(part or b"") for name, part in content.items() if name in record}
    return record.get("sha256", numbers) == numbers and all(record[name] == size for name, size in sizes.items())


def _names(folder: Path) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return set()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
