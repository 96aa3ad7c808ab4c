"""One driver a workspace, from whatever machine: a lock of the system, and a lease in a file that others can read.

The lock keeps processes of one machine apart and is gone with its process. It does not reach over a network, so the
driver also keeps `driver.json` with its machine, its process and a moment until which it is alive, and puts that off
again and again. A driver that finds the lease of another machine before that moment is refused; after it, it takes
over, and the other one, should it wake up, notices and stops. Clocks must agree to within half of `LEASE_SECONDS`.
"""

import contextlib
import datetime
import json
import os
import platform as host
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crossfold.platform.errors import UserError
from crossfold.platform.results import Workspace, utc_now, write_json

LEASE_SECONDS = 120.0
"""From the last sign of life of a driver until another machine may take over."""
_BEATS_A_LEASE = 8
_CLAIM_SECONDS = 10.0


@dataclass
class Lease:
    """The right to drive a workspace, as one process holds it."""

    path: Path
    """`driver.json` of the workspace."""
    machine: str
    seconds: float = LEASE_SECONDS
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: str = field(default_factory=utc_now)
    lost: threading.Event = field(default_factory=threading.Event)
    """Set when another driver took over, after this one was silent for too long."""
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def take(self) -> None:
        """Takes the lease, if it is free, expired, or of a process of this machine, which the lock says is dead."""
        with _claim(self.path.with_name("driver.claim")):
            holder = read_holder(self.path)
            if holder and holder.get("machine") != self.machine and alive(holder):
                raise in_use(self.path.parent, holder)
            self._write()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renews the lease from a thread while the block runs, then gives it up."""
        self._thread = threading.Thread(target=self._renew, name="driver-lease", daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            if read_holder(self.path).get("token") == self.token:
                self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / _BEATS_A_LEASE):
            # A file system that is away or full for a moment is no reason to stop; the lease says how long it may be.
            with contextlib.suppress(OSError):
                if read_holder(self.path).get("token", self.token) != self.token:
                    self.lost.set()
                    return
                self._write()

    def _write(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        until = now + datetime.timedelta(seconds=self.seconds)
        mine = {"pid": os.getpid(), "host": host.node(), "machine": self.machine, "token": self.token}
        times = {"since": self.since, "heartbeat": now.isoformat(), "expires": until.isoformat()}
        write_json(self.path, mine | times)


_HELD: dict[Path, Lease] = {}


@contextlib.contextmanager
def driver_lock(workspace: Workspace, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Only one process drives a workspace; it may hold the lock several times over, from any thread.

    Raises `UserError` that says who does. The lock of a driver that died is free at once on its own machine, and on
    others when its lease has run out.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace.root / "driver.lock", is_singleton=True, thread_local=False)
    path = workspace.root / "driver.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise in_use(workspace.root, read_holder(path)) from None
    try:
        if lock.lock_counter > 1:
            yield _HELD[workspace.root]
            return
        lease = Lease(path, machine_id(), lease_seconds)
        lease.take()
        with lease.kept():
            _HELD[workspace.root] = lease
            try:
                yield lease
            finally:
                del _HELD[workspace.root]
    finally:
        lock.release()


def read_holder(path: Path) -> dict[str, Any]:
    """What `driver.json` says: pid, host, machine, since, heartbeat, expires; empty if nobody drives."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def alive(holder: dict[str, Any]) -> bool:
    """Whether a lease still runs; one without an end is of an earlier version, and of a machine we cannot ask."""
    try:
        return datetime.datetime.fromisoformat(str(holder["expires"])) > datetime.datetime.now(datetime.UTC)
    except (KeyError, ValueError, TypeError):
        return False


def in_use(root: Path, holder: dict[str, Any]) -> UserError:
    """The error for a workspace that another driver holds."""
    who = {key: holder.get(key, "?") for key in ("pid", "host", "since", "expires")}
    return UserError(
        f"{root} is in use by process {who['pid']} on {who['host']} since {who['since'][:19]} UTC; "
        f"its lease runs until {who['expires'][:19]} UTC and is renewed while it lives",
        "wait for it, stop it, or give another --workspace",
    )


def machine_id() -> str:
    """Tells this machine, since it was started, from all others; containers of one machine share its locks and this."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{host.node()}-{uuid.getnode():x}"


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[None]:
    """A short exclusive section that also works over a network: whoever creates the file is in it."""
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                # Nobody needs it for so long: its owner died within.
                if time.time() - path.stat().st_mtime > _CLAIM_SECONDS:
                    path.unlink()
            time.sleep(0.05)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
