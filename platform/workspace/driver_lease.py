"""One driver a workspace, from whatever machine: a lock of the system, and a lease in a file that others can read.

The lock keeps processes of one machine apart and is gone with its process. It does not reach over a network, so the
driver also keeps `driver.json` with its machine, its process and a moment until which it is alive, and puts that off
again and again. A driver that finds the lease of another machine before that moment is refused; after it, it takes
over, and the other one, should it wake up, notices and stops. Clocks must agree to within half of `LEASE_SECONDS`.

Of a workspace at a URL the lock keeps apart what uses one folder here, and `driver.json` lies at the URL.
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
from typing import Any, Protocol

from filelock import FileLock, Timeout

from crossfold.platform.core.errors import FleetError, RemoteUnavailable, UserError
from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.workspace.remote.filesystem import RemoteFiles
from crossfold.platform.workspace.workspace import Workspace

LEASE_SECONDS = 120.0
"""From the last sign of life of a driver until another machine may take over."""
_BEATS_A_LEASE = 8
_CLAIM_SECONDS = 10.0


class Place(Protocol):
    """Where a lease is written down."""

    def read(self) -> dict[str, Any]: ...

    def write(self, holder: dict[str, Any]) -> None: ...

    def remove(self) -> None: ...

    def claim(self) -> contextlib.AbstractContextManager[None]: ...


@dataclass(frozen=True)
class FilePlace:
    """`driver.json` in a folder that drivers share."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> dict[str, Any]:
        """See `read_holder`."""
        return read_holder(self.path)

    def write(self, holder: dict[str, Any]) -> None:
        """Replaces it whole."""
        write_json(self.path, holder)

    def remove(self) -> None:
        """Removes it if it is there."""
        self.path.unlink(missing_ok=True)

    def claim(self) -> contextlib.AbstractContextManager[None]:
        """A short exclusive section."""
        return _claim(self.path.with_suffix(".claim"))


@dataclass(frozen=True)
class UrlPlace:
    """`driver.json` at a URL."""

    files: RemoteFiles
    name: str = "driver.json"

    def __str__(self) -> str:
        return f"{self.files.shown}/{self.name}"

    def read(self) -> dict[str, Any]:
        """See `read_holder`."""
        return _parsed(self.files.read([self.name]).get(self.name, b""))

    def write(self, holder: dict[str, Any]) -> None:
        """Replaces it whole."""
        self.files.write(self.name, json.dumps(holder, indent=1, sort_keys=True).encode())

    def remove(self) -> None:
        """Removes it if it is there."""
        self.files.remove(self.name)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """A short exclusive section: whoever has the name is in it. How sure that is, `RemoteFiles.claim` says."""
        name, since = "driver.claim", time.monotonic()
        while not self.files.claim(name, uuid.uuid4().hex.encode()):
            # Clocks of others say nothing here: one that was there all the time we watched is of a dead process.
            if time.monotonic() - since > _CLAIM_SECONDS:
                self.files.remove(name)
                since = time.monotonic()
            time.sleep(0.2)
        try:
            yield
        finally:
            self.files.remove(name)


@dataclass
class Lease:
    """The right to drive a workspace, as one process holds it."""

    place: Place
    """Of `driver.json`."""
    machine: str
    root: str
    """The workspace, for people."""
    seconds: float = LEASE_SECONDS
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: str = field(default_factory=utc_now)
    lost: threading.Event = field(default_factory=threading.Event)
    """Set when another driver took over, after this one was silent for too long."""
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _until: float = 0.0

    def take(self) -> None:
        """Takes the lease, if it is free, expired, or of a process of this machine, which the lock says is dead."""
        with self.place.claim():
            holder = self.place.read()
            if holder and holder.get("machine") != self.machine and alive(holder):
                raise in_use(self.root, holder)
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
            # A place that is away cannot be told; there the lease runs out.
            with contextlib.suppress(RemoteUnavailable):
                if self.place.read().get("token") == self.token:
                    self.place.remove()

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / _BEATS_A_LEASE):
            # A file system that is away or full for a moment is no reason to stop; the lease says how long it may be.
            # One that ran out may be anybody's by now, between a look and a word.
            ran_out = time.monotonic() > self._until
            with contextlib.suppress(OSError), self.place.claim() if ran_out else contextlib.nullcontext():
                if self.place.read().get("token", self.token) != self.token:
                    self.lost.set()
                    return
                self._write()

    def _write(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        until = now + datetime.timedelta(seconds=self.seconds)
        mine = {"pid": os.getpid(), "host": host.node(), "machine": self.machine, "token": self.token}
        times = {"since": self.since, "heartbeat": now.isoformat(), "expires": until.isoformat()}
        self._until = time.monotonic() + self.seconds
        self.place.write(mine | times)


_HELD: dict[Path, Lease] = {}


@contextlib.contextmanager
def driver_lock(workspace: Workspace, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Only one process drives a workspace; it may hold the lock several times over, from any thread.

    Raises `UserError` that says who does. The lock of a driver that died is free at once on its own machine, and on
    others when its lease has run out.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace.paths.driver_lock, is_singleton=True, thread_local=False)
    mirror, place, machine = workspace.mirror, _place_of(workspace), machine_id()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise in_use(str(workspace), place.read()) from None
    try:
        if lock.lock_counter > 1:
            yield _HELD[workspace.root]
            return
        if mirror is not None:
            mirror.files.check(write=True)
            # The lock speaks for one folder of this machine only.
            machine = f"{machine}:{workspace.root}"
        lease = Lease(place, machine, str(workspace), lease_seconds)
        lease.take()
        with lease.kept(), mirror.following() if mirror is not None else contextlib.nullcontext():
            _HELD[workspace.root] = lease
            try:
                yield lease
            finally:
                del _HELD[workspace.root]
    finally:
        lock.release()


def _place_of(workspace: Workspace) -> Place:
    mirror = workspace.mirror
    return FilePlace(workspace.paths.driver_lease) if mirror is None else UrlPlace(mirror.files)


def driver_of(workspace: Workspace) -> dict[str, Any]:
    """Who drives a workspace, as `read_holder` says it; empty also where the place cannot be asked now."""
    try:
        return _place_of(workspace).read()
    except RemoteUnavailable:
        return {}


def read_holder(path: Path) -> dict[str, Any]:
    """What `driver.json` says: pid, host, machine, since, heartbeat, expires; empty if nobody drives."""
    try:
        return _parsed(path.read_bytes())
    except FileNotFoundError:
        return {}


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def alive(holder: dict[str, Any]) -> bool:
    """Whether a lease still runs; one without an end is of an earlier version, and of a machine we cannot ask."""
    try:
        return datetime.datetime.fromisoformat(str(holder["expires"])) > datetime.datetime.now(datetime.UTC)
    except (KeyError, ValueError, TypeError):
        return False


def in_use(root: str, holder: dict[str, Any]) -> UserError:
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


def hold_lease(lease: Lease | None) -> None:
    """Raises `FleetError` if another machine drives the workspace by now."""
    if lease is not None and lease.lost.is_set():
        raise FleetError(
            f"another driver took over: nothing was heard of this one for {lease.seconds:.0f} s; see {lease.place}"
        )
