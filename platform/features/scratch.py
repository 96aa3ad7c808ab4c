"""Scratch folders of runs that were killed: whose they are, and when they may go."""

import hashlib
import os
import re
import shutil
import socket
from pathlib import Path

import psutil

_OWNER = ".owner"


def owner_tag() -> str:
    """This process, on this machine, as part of a file name."""
    return f"{_machine()}-{os.getpid()}"


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def owner_alive(owner: str) -> bool:
    """Whether the process of an owner may still run; one on another machine always may."""
    machine, _, process = owner.partition("-")
    return machine != _machine() or not process.isdecimal() or psutil.pid_exists(int(process))


def acquire(folder: Path) -> str | None:
    """Makes a folder this process's own; if a living process of this machine has it, returns that one instead."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = _owner_of(folder)
    if owner is not None and owner != owner_tag() and owner_alive(owner) and owner.startswith(_machine()):
        return owner
    (folder / _OWNER).write_text(owner_tag())
    return None


def prune(stores: Path, corpus: str, named: str, plan: str) -> None:
    """Removes what killed runs of a corpus left: half-written stores, and clips read for the same plan of other files.

    named: what the corpus is called in its store. Clips that were read for another plan stay: its own command goes on
    with them.
    """
    half = re.compile(rf"\.{re.escape(named)}-([0-9a-f]{{8}}-\d+)-[^-]*")
    owners = {folder: found[1] for folder in stores.glob(f".{named}-*") if (found := half.fullmatch(folder.name))}
    read = {folder: _owner_of(folder) for folder in stores.glob(f".preparing-{corpus}-{plan}-*")}
    for folder, owner in {**owners, **read}.items():
        if owner is not None and owner != owner_tag() and not owner_alive(owner):
            shutil.rmtree(folder, ignore_errors=True)


def _owner_of(folder: Path) -> str | None:
    try:
        return (folder / _OWNER).read_text().strip()
    except OSError:
        return None
