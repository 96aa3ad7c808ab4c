"""Scratch folders of runs that were killed: whose they are, and when they may go."""

import glob
from pathlib import Path

from crossfold.platform.core.files import (
    owner_alive,
    owner_tag,
    remove_drafts,
    remove_folder,
    same_machine,
    write_bytes,
)

_OWNER = ".owner"


def acquire(folder: Path) -> str | None:
    """Makes a folder this process's own; if a living process of this machine has it, returns that one instead."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = _owner_of(folder)
    if owner is not None and owner != owner_tag() and owner_alive(owner) and same_machine(owner):
        return owner
    write_bytes(folder / _OWNER, owner_tag().encode())
    return None


def prune(stores: Path, corpus: str, plan: str) -> None:
    """Removes what killed runs left: half-written stores, and clips of a corpus read for the same plan of other files.

    Clips that were read for another plan stay: its own command goes on with them.
    """
    for folder in (stores, stores / ".prepared"):
        remove_drafts(folder)
    for folder in stores.glob(f".preparing-{glob.escape(corpus)}-{plan}-*"):
        owner = _owner_of(folder)
        if owner is not None and owner != owner_tag() and not owner_alive(owner):
            remove_folder(folder)


def _owner_of(folder: Path) -> str | None:
    try:
        return (folder / _OWNER).read_text().strip()
    except OSError:
        return None
