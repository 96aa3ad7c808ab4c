"""`crossfold report --serve`: the page over HTTP on this machine, built again whenever the workspace has changed."""

import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from markupsafe import escape

from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import build_report

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
"""Never another: a report has no password."""
POLL_SECONDS = 2.0
"""The time between two checks of the workspace; a build that takes longer is followed by as long a pause."""


class ReportServer:
    """Serves the newest page of a workspace until `close`. It answers before anything has run."""

    def __init__(
        self,
        workspace: Workspace,
        port: int,
        tables: Sequence[str] = (),
        *,
        figures: bool = True,
        media: Path | None = None,
    ) -> None:
        """Binds the port; the first `update` builds the page. 0 takes any. Raises `UserError` for one that is taken."""
        self._workspace = workspace
        self._tables, self._figures, self._media = tables, figures, media
        self._page, self._version, self._seen = _WAITING.format(words="The page is being built.").encode(), "", ""
        self._stop = threading.Event()
        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), _handler(lambda: (self._page, self._version)))
        except OSError as error:
            raise UserError(f"port {port} of this machine: {error.strerror}", "choose another with --port") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self._server.server_address[1]}/"

    @property
    def version(self) -> str:
        """Changes with the content of the page, and with nothing else."""
        return self._version

    @property
    def page(self) -> str:
        """What is served now."""
        return self._page.decode()

    def update(self) -> bool:
        """Builds the page again where the workspace has changed since the last build; whether its text is new."""
        self._workspace.refresh()
        seen = fingerprint(self._workspace)
        if seen == self._seen:
            return False
        page, undated = self._build()
        version = hashlib.sha256(undated.encode()).hexdigest()[:16]
        self._seen = seen
        changed = bool(undated) and version != self._version  # a file that no page shows may have changed
        if changed:
            self._page, self._version = page.encode(), version
        return changed

    def run(self) -> None:
        """Serves and updates the page until `close`, or an interrupt."""
        serving = threading.Thread(target=self._server.serve_forever, name="report", daemon=True)
        serving.start()
        try:
            while not self._stop.is_set():
                started = time.monotonic()
                self.update()
                self._stop.wait(max(POLL_SECONDS, time.monotonic() - started))
        finally:
            self._server.shutdown()
            self._server.server_close()

    def close(self) -> None:
        """Ends `run`."""
        self._stop.set()

    def _build(self) -> tuple[str, str]:
        """The page, and the same without its date. Empty where there is none and an older one may stay."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = build_report(
                    self._workspace,
                    tables=self._tables,
                    formats=["html"],
                    out=Path(folder),
                    figures=self._figures,
                    live=True,
                    media=self._media,
                )
            except (UserError, DataError, OSError, ValueError) as error:
                # A cell that is being replaced while it is read is complete again at the next update.
                logger.info("no new page: %s", error)
                waiting = "" if self._version else _WAITING.format(words=escape(str(error)))
                return waiting, waiting
            text = report.paths[0].read_text(encoding="utf-8")
            # With its date, every build would be a new version.
            return text, text.replace(report.page.date if report.page else "", "")


def fingerprint(workspace: Workspace) -> str:
    """A hash of the names and times of the files that a report reads; takes milliseconds for thousands of cells."""
    digest = hashlib.sha256()
    paths = workspace.paths
    for folder in (paths.cells, paths.failures, paths.sweeps, paths.rescored, paths.stores, paths.ensembles):
        if not folder.is_dir():
            continue
        for path in (folder, *sorted(path for path in folder.iterdir() if path.is_dir() and folder == paths.rescored)):
            with os.scandir(path) as entries:
                # A name with a dot at its beginning is still being written.
                found = [(e.name, e.stat().st_mtime_ns) for e in entries if not e.name.startswith(".")]
            digest.update(repr((folder.name, sorted(found))).encode())
    return digest.hexdigest()


_WAITING = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Crossfold report</title>
<meta http-equiv="refresh" content="3"></head><body><h1>Crossfold report</h1><p>{words}</p>
<p>This page reloads itself.</p></body></html>"""


def _handler(newest: Callable[[], tuple[bytes, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Two addresses: the page, and its version, which the page polls."""

        def do_GET(self) -> None:
            page, version = newest()
            # DNS rebinding: a page of another site could read this one through a host name that it points here.
            if self.headers.get("Host", "").rpartition(":")[0] not in (ADDRESS, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path.partition("?")[0] == "/":
                self._send(page, "text/html; charset=utf-8")
            elif self.path == "/version":
                self._send(version.encode(), "text/plain; charset=utf-8")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def log_message(self, format: str, *args: object) -> None:
            logger.debug(format, *args)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

    return Handler
