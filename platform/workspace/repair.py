"""What a driver cleans up before it begins: what killed processes left, and damaged cells."""

import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from crossfold.platform.core.layout import CELL_ID, LEFTOVER_SECONDS
from crossfold.platform.workspace.integrity import damage_of
from crossfold.platform.workspace.remote.cell_sync import LARGE
from crossfold.platform.workspace.workspace import Workspace

_HALF_WRITTEN = re.compile(rf"\.{CELL_ID.pattern}-[a-z0-9_]{{8}}")


def remove_leftovers(workspace: Workspace) -> int:
    """Removes what killed processes left; returns how many half-written cell folders there were.

    A driver calls this before it starts workers, so nothing in `fleet/` is in use.
    """
    oldest = time.time() - LEFTOVER_SECONDS
    left = [
        folder
        for folder in workspace.paths.cells.glob(".*-*")
        if _HALF_WRITTEN.fullmatch(folder.name) and folder.stat().st_mtime < oldest
    ]
    for folder in (*left, *workspace.paths.fleet.glob("*")):
        shutil.rmtree(folder, ignore_errors=True)
    finished = workspace.finished()
    for note in workspace.paths.unfinished.glob("[!.]*.json"):
        if note.stem in finished:
            note.unlink(missing_ok=True)
    return len(left)


def damaged_cells(workspace: Workspace, cell_ids: Iterable[str]) -> list[str]:
    """Those of some finished cells that are damaged, in the order of their identities.

    Of a workspace at a URL, a damaged copy is fetched again first.
    """
    damaged = [cell_id for cell_id in sorted(cell_ids) if _damage(workspace, cell_id) is not None]
    if workspace.mirror is None:
        return damaged
    return [cell_id for cell_id in damaged if not workspace.mirror.cells.fetch([cell_id], replace=True)]


def move_damaged_aside(workspace: Workspace, cell_ids: Iterable[str]) -> dict[str, tuple[str, Path]]:
    """Moves damaged cells out of `cells/`, so that the next run computes them; returns what was wrong, and where to."""
    found = {}
    for cell_id in cell_ids:
        damage = _damage(workspace, cell_id)
        if damage is None:
            continue
        number = 1
        while (place := workspace.paths.damaged / f"damaged-{cell_id}-{number}").exists():
            number += 1
        place.parent.mkdir(parents=True, exist_ok=True)
        workspace.paths.cell(cell_id).rename(place)
        if workspace.mirror is not None:
            workspace.mirror.cells.withdraw(cell_id)
        found[cell_id] = (damage, place)
    return found


def _damage(workspace: Workspace, cell_id: str) -> str | None:
    """What is wrong with a finished cell; a large file that was never fetched is no damage."""
    folder = workspace.paths.cell(cell_id)
    return damage_of(folder, LARGE if workspace.mirror is not None else ()) if folder.is_dir() else None
