"""Scratch folders of runs that were killed: whose they are, and when they may go."""

import hashlib
import os
import re
import shutil
import socket
from pathlib import Path

_OWNER = ".owner"


def me() -> str:
    """This process, on this machine, as part of a file name."""
    return f"{_machine()}-{os.getpid()}"


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def alive(owner: str) -> bool:
    """Whether the process of an owner may still run; one on another machine always may."""
    machine, _, process = owner.partition("-")
    if machine != _machine() or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def claim(folder: Path) -> str | None:
    """Makes a folder ours; if a living process has it already, returns that one and leaves it alone."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = _owner_of(folder)
    if owner is not None and owner != me() and alive(owner) and owner.startswith(_machine()):
        return owner
    (folder / _OWNER).write_text(me())
    return None


def _owner_of(folder: Path) -> str | None:
    try:
        return (folder / _OWNER).read_text().strip()
    except OSError:
        return None


def clear(stores: Path, corpus: str, named: str, plan: str) -> None:
    """Removes what killed runs of a corpus left: half-written stores, and clips read for the same plan of other files.

    named: what the corpus is called in its store. Clips that were read for another plan stay: its own command goes on
    with them.
    """
    half = re.compile(rf"\.{re.escape(named)}-(?P<owner>[0-9a-f]{{8}}-\d+)-[^-]*")
    for folder in stores.glob(f".{named}-*"):
        found = half.fullmatch(folder.name)
        if found is not None and found["owner"] != me() and not alive(found["owner"]):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in stores.glob(f".preparing-{corpus}-{plan}-*"):
        owner = _owner_of(folder)
        if owner is not None and owner != me() and not alive(owner):
            shutil.rmtree(folder, ignore_errors=True)
