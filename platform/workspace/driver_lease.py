"""One driver a workspace, from whatever machine: a lock of the system, and a lease in a file that others can read.

The lock keeps processes of one machine apart and ends with its process. It does not reach over a network, so the
driver also keeps `driver.json` with its machine, its process and a time until which it is alive, and renews it again
and again. A driver that finds the lease of another machine before that time is refused; after it, it takes over, and
the other one, should it wake up, notices and stops. Clocks must agree to within half of `LEASE_SECONDS`.

Of a workspace at a URL, the lock keeps apart what uses one copy on this machine, and `driver.json` is at the URL.
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

from crossfold.platform.core.errors import FleetError, RemoteUnavailable, UserError
from crossfold.platform.core.files import json_bytes, utc_now
from crossfold.platform.workspace.remote.filesystem import RemoteFiles
from crossfold.platform.workspace.workspace import Workspace

LEASE_SECONDS = 120.0
"""From the last sign of life of a driver until another machine may take over."""
_RENEWALS_A_LEASE = 8
_CLAIM_SECONDS = 10.0
"""After which a claim is of a dead process: whoever has it needs it for milliseconds, or a few requests."""

Holder = dict[str, Any]
"""What `driver.json` says: pid, host, machine, token, since, heartbeat, expires; empty where there is no driver."""


@dataclass(frozen=True)
class LeaseFile:
    """`driver.json` of a workspace, in a folder or at a URL."""

    files: RemoteFiles
    name: str = "driver.json"
    claim_name: str = "driver.claim"

    def __str__(self) -> str:
        return f"{self.files.shown}/{self.name}".removeprefix("file://")

    def read(self) -> Holder:
        """Who drives; empty also where the file cannot be understood."""
        try:
            holder = json.loads(self.files.read([self.name]).get(self.name, b""))
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}

    def write(self, holder: Holder) -> None:
        """Replaces it, whole."""
        self.files.write(self.name, json_bytes(holder))

    def remove(self) -> None:
        """Removes it if it is there."""
        self.files.remove(self.name)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """A short exclusive section: whoever creates `driver.claim` is in it."""
        seen, since = None, time.monotonic()
        while not self.files.claim(self.claim_name, uuid.uuid4().hex.encode()):
            # Clocks of other machines say nothing here, so the claim is watched by our own.
            found = self.files.listed("").get(self.claim_name)
            if found != seen:
                seen, since = found, time.monotonic()
            elif found is not None and time.monotonic() - since > _CLAIM_SECONDS:
                self.files.remove(self.claim_name)
            time.sleep(0.05)
        try:
            yield
        finally:
            self.files.remove(self.claim_name)


@dataclass
class Lease:
    """The right to drive a workspace, as one process holds it."""

    file: LeaseFile
    machine: str
    root: str
    """The workspace, for people."""
    seconds: float = LEASE_SECONDS
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: str = field(default_factory=utc_now)
    lost: threading.Event = field(default_factory=threading.Event)
    """Set when another driver took over, after this one was silent for too long."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _until: float = 0.0

    def take(self) -> None:
        """Takes the lease if it is free, expired, or of a process of this machine, which the lock says is dead.

        Raises `UserError` where a driver of another machine holds it.
        """
        with self.file.claim():
            holder = self.file.read()
            if holder and holder.get("machine") != self.machine and alive(holder):
                raise _in_use(self.root, holder)
            self._write()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renews the lease from a thread while the block runs, then gives it up."""
        thread = threading.Thread(target=self._renew, name="driver-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            # At a URL that cannot be reached, the lease runs out by itself.
            with contextlib.suppress(RemoteUnavailable):
                if self.file.read().get("token") == self.token:
                    self.file.remove()

    def check(self) -> None:
        """Raises `FleetError` if another machine drives the workspace by now."""
        if self.lost.is_set():
            raise FleetError(
                f"another driver took over, as this one was silent for {self.seconds:.0f} s; {self.file} names it"
            )

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds / _RENEWALS_A_LEASE):
            # A disk that is full or a URL that cannot be reached for a moment is no reason to stop. A lease that ran
            # out may be taken by another driver between our reading and our writing, so that needs the claim.
            ran_out = time.monotonic() > self._until
            with contextlib.suppress(OSError), self.file.claim() if ran_out else contextlib.nullcontext():
                if self.file.read().get("token", self.token) != self.token:
                    self.lost.set()
                    return
                self._write()

    def _write(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        until = now + datetime.timedelta(seconds=self.seconds)
        self._until = time.monotonic() + self.seconds
        self.file.write(
            {
                "pid": os.getpid(),
                "host": host.node(),
                "machine": self.machine,
                "token": self.token,
                "since": self.since,
                "heartbeat": now.isoformat(),
                "expires": until.isoformat(),
            }
        )


_HELD: dict[Path, Lease] = {}


@contextlib.contextmanager
def driver_lock(workspace: Workspace, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Only one process drives a workspace; it may hold the lock several times over, from any thread.

    Raises `UserError` that says who does. The lock of a driver that died is free at once on its own machine, and on
    others when its lease has run out.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace.paths.driver_lock, is_singleton=True, thread_local=False)
    mirror, file, machine = workspace.mirror, _lease_file(workspace), machine_id()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _in_use(str(workspace), file.read()) from None
    try:
        if lock.lock_counter > 1:
            yield _HELD[workspace.root]
            return
        if mirror is not None:
            mirror.files.check(write=True)
            # The lock keeps apart what uses one copy only; another copy on this machine is as another machine.
            machine = f"{machine}:{workspace.root}"
        lease = Lease(file, machine, str(workspace), lease_seconds)
        try:
            lease.take()
        except RemoteUnavailable as error:
            # Of a folder, the error of the system says what is wrong, such as a full disk.
            raise (error if mirror is not None else error.__cause__ or error) from None
        with lease.kept(), mirror.following() if mirror is not None else contextlib.nullcontext():
            _HELD[workspace.root] = lease
            try:
                yield lease
            finally:
                del _HELD[workspace.root]
    finally:
        lock.release()


def driver_of(workspace: Workspace) -> Holder:
    """Who drives a workspace; empty also where the URL cannot be reached."""
    try:
        return _lease_file(workspace).read()
    except RemoteUnavailable:
        return {}


def alive(holder: Holder) -> bool:
    """Whether a lease still runs; one without an end is of an earlier version, and does not."""
    try:
        return datetime.datetime.fromisoformat(str(holder["expires"])) > datetime.datetime.now(datetime.UTC)
    except (KeyError, ValueError, TypeError):
        return False


def machine_id() -> str:
    """Distinguishes this machine, since it was started, from others; its containers share its locks and this."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{host.node()}-{uuid.getnode():x}"


def _lease_file(workspace: Workspace) -> LeaseFile:
    return LeaseFile(RemoteFiles(f"file://{workspace.root}") if workspace.mirror is None else workspace.mirror.files)


def _in_use(root: str, holder: Holder) -> UserError:
    who = {key: str(holder.get(key, "?")) for key in ("pid", "host", "since", "expires")}
    return UserError(
        f"{root} is in use by process {who['pid']} on {who['host']} since {who['since'][:19]} UTC; "
        f"its lease runs until {who['expires'][:19]} UTC and is renewed while it lives",
        "wait for it, stop it, or give another --workspace",
    )
