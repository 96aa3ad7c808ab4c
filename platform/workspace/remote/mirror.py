"""A workspace at a URL, as one machine sees it: a copy in a folder here, which all other code reads and writes.

Cells (`cell_sync`), documents (`document_sync`), stores (`store_sync`) and checkpoints (`checkpoint_sync`) each have
rules of their own about what goes which way. What cannot be sent stays in `outbox/` of the copy, and the next process
that uses the copy sends it. The MLflow database stays on this machine; `crossfold mlflow sync` rebuilds it on another.
"""

import contextlib
import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from crossfold.platform.core.errors import RemoteUnavailable, UserError
from crossfold.platform.core.layout import WorkspacePaths, cache_folder
from crossfold.platform.workspace.remote.cell_sync import CellSync
from crossfold.platform.workspace.remote.document_sync import DocumentSync
from crossfold.platform.workspace.remote.filesystem import RemoteFiles, without_password
from crossfold.platform.workspace.remote.store_sync import send_stores

logger = logging.getLogger(__name__)

SYNC_SECONDS = 5.0
"""The time between two exchanges of a driver with the URL, and before one that could not be reached is asked again."""

_OPENED: list["Mirror"] = []


def push_all() -> None:
    """The end of a command: sends what it wrote. Raises `RemoteUnavailable` where that has to wait."""
    while _OPENED:
        mirror = _OPENED.pop()
        try:
            mirror.push()
        except RemoteUnavailable as error:
            raise RemoteUnavailable(f"{mirror.files.shown}: {error}; what was written waits in {mirror.root}") from None


def mirror_root(url: str) -> Path:
    """The folder of the copy on this machine."""
    plain = without_password(url.rstrip("/"))
    name = re.sub(r"[^A-Za-z0-9._-]", "_", plain.rpartition("/")[2]) or "workspace"
    folder = f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"
    return cache_folder() / "workspaces" / folder


class Mirror:
    """The two ends of a workspace at a URL."""

    def __init__(self, url: str, root: Path | None = None) -> None:
        """Contacts nothing. root: by default `mirror_root`. Raises `UserError` as `RemoteFiles`."""
        self.files = RemoteFiles(url)
        self.root = root or mirror_root(url)
        paths = WorkspacePaths(self.root)
        self.cells = CellSync(self.files, paths)
        self._paths = paths
        self._documents = DocumentSync(self.files, paths)
        self._unreachable_since = self._pulled = -SYNC_SECONDS
        self._documents_wait = False
        self._sender: threading.Thread | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Sends what waits and fetches what is new. Raises `UserError` where the URL cannot be read."""
        self.files.check()
        try:
            self.cells.remote()
            with contextlib.suppress(RemoteUnavailable):
                self.push()
            self.pull()
        except RemoteUnavailable as error:
            raise UserError(f"{self.files.shown}: {error}", "repeat the command when it can be reached") from None
        if self not in _OPENED:
            _OPENED.append(self)

    def refresh(self) -> None:
        """Fetches what is new, at most every `SYNC_SECONDS`; a URL that cannot be reached is asked again later."""
        if time.monotonic() - self._pulled >= SYNC_SECONDS:
            with contextlib.suppress(RemoteUnavailable):
                self.pull()
            self._pulled = time.monotonic()

    def pull(self) -> None:
        """Fetches new documents, and new cells without their large files. Raises `RemoteUnavailable`."""
        top, there = self.files.listed(""), self.cells.remote()
        replaced = f"{self._paths.replaced.name}/"
        fetched = self._documents.pull(top)
        self.cells.drop_replaced([name.removeprefix(replaced) for name in fetched if name.startswith(replaced)])
        self.cells.set_gone_aside(there)
        self.cells.fetch(sorted(there - self.cells.local()))

    def push(self) -> None:
        """Sends what waits: cells, stores, documents. Raises `RemoteUnavailable`."""
        self.cells.send_waiting()
        send_stores(self.files, self._paths)
        self._documents.push()

    def finished_among(self, cell_ids: set[str]) -> set[str]:
        """Fetches those of some cells that are whole at the URL, which is asked at most every `SYNC_SECONDS`."""
        if not cell_ids or time.monotonic() - self._pulled < SYNC_SECONDS:
            return set()
        self._pulled = time.monotonic()
        try:
            return self.cells.fetch(sorted(cell_ids))
        except RemoteUnavailable:
            return set()

    def send_soon(self, cell_id: str) -> None:
        """Sends a cell now, or from a thread when the URL can be reached again."""
        if time.monotonic() - self._unreachable_since >= SYNC_SECONDS:
            try:
                self.cells.send(cell_id)
            except OSError as error:
                self._note_unreachable(error)
            else:
                self._unreachable_since = -SYNC_SECONDS
                return
        self._send_later()

    def send_documents(self) -> None:
        """Sends documents that changed now, or from a thread when the URL can be reached again."""
        try:
            self._documents.push()
        except RemoteUnavailable as error:
            self._note_unreachable(error)
            self._documents_wait = True
            self._send_later()

    def replace(self, cell_id: str) -> None:
        """Sends a cell that was computed again or restored; other machines then fetch it again."""
        self.cells.note_replaced(cell_id)
        self.send_soon(cell_id)

    def flush_uploads(self, seconds: float) -> bool:
        """Waits, at most so long, until what this process wrote is sent; returns whether it is."""
        end = time.monotonic() + seconds
        while (sender := self._sender) is not None and sender.is_alive() and time.monotonic() < end:
            sender.join(0.1)
        return not self.cells.waiting()

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Exchanges what is new from a thread while the block runs, and once more at its end."""
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(SYNC_SECONDS):
                self._exchange()

        follower = threading.Thread(target=follow, name="workspace-follower", daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            self._exchange(last=True)

    def _exchange(self, *, last: bool = False) -> None:
        try:
            self.push()
            self.pull()
            if last:
                running = self._paths.running.name
                for cell_id in self.files.listed(running).keys() & self.cells.local():
                    self.files.remove(f"{running}/{cell_id}")
            self._unreachable_since = -SYNC_SECONDS
        except (OSError, UserError) as error:
            # Nothing is lost: what is here waits, and the command says so at its end if it still does.
            self._note_unreachable(error)

    def _send_later(self) -> None:
        with self._lock:
            if self._sender is None or not self._sender.is_alive():
                self._sender = threading.Thread(target=self._keep_sending, name="workspace-sender", daemon=True)
                self._sender.start()

    def _keep_sending(self) -> None:
        while self.cells.waiting() or self._documents_wait:
            time.sleep(SYNC_SECONDS)
            try:
                self.cells.send_waiting()
                self._documents.push()
                self._documents_wait = False
            except RemoteUnavailable as error:
                self._note_unreachable(error)
            except OSError as error:
                logger.warning("cannot read what waits in %s: %s", self._paths.outbox, error)

    def _note_unreachable(self, error: BaseException) -> None:
        if self._unreachable_since < 0:
            logger.warning("%s cannot be reached (%s); results wait in %s", self.files.shown, error, self.root)
        self._unreachable_since = time.monotonic()
