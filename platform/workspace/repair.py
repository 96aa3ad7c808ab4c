"""What a driver cleans up before it begins: leftovers of killed processes, and damaged cells."""

import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossfold.platform.workspace.workspace import Workspace
from crossfold.platform.core.layout import LEFTOVER_SECONDS
from crossfold.platform.workspace.integrity import damage_of

_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{16}-[a-z0-9_]{8}")


def remove_leftovers(workspace: "Workspace") -> int:
    """Removes what processes that were killed left; returns how many half-written cell folders there were.

    Called by a driver, before its own workers: whatever an earlier fleet kept for itself is nobody's any more.
    """
    oldest = time.time() - LEFTOVER_SECONDS
    left = [
        folder
        for folder in workspace.paths.cells.glob(".*-*")
        if _HALF_WRITTEN.fullmatch(folder.name) and folder.stat().st_mtime < oldest
    ]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in workspace.paths.fleet.glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    finished = workspace.finished()
    for note in workspace.paths.unfinished.glob("[!.]*.json"):
        if note.stem in finished:
            note.unlink(missing_ok=True)
    return len(left)


def damaged_cells(workspace: "Workspace", cell_ids: Iterable[str]) -> list[str]:
    """Those of some finished cells that are damaged, in the order of their identities.

    Of a workspace at a URL a damaged copy is fetched again first, and files that were never asked for are no damage.
    """
    mirror = workspace.mirror
    if mirror is None:
        return [cell_id for cell_id in sorted(cell_ids) if damage_of(workspace.paths.cell(cell_id)) is not None]
    return [
        cell_id
        for cell_id in sorted(cell_ids)
        if (place := workspace.paths.cell(cell_id)).is_dir() and damage_of(place, mirror.large) is not None
        if not mirror.fetch_again(cell_id)
    ]


def move_damaged_aside(workspace: "Workspace", cell_ids: Iterable[str]) -> dict[str, tuple[str, Path]]:
    """Moves damaged cells out of `cells/`, so that the next run computes them; returns what was wrong, and where to."""
    found = {}
    for cell_id in cell_ids:
        folder = workspace.paths.cell(cell_id)
        damage = damage_of(folder, workspace.mirror.large if workspace.mirror is not None else ())
        if damage is None or not folder.is_dir():
            continue
        number = 1
        while (place := workspace.paths.damaged / f"damaged-{cell_id}-{number}").exists():
            number += 1
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        if workspace.mirror is not None:
            workspace.mirror.withdraw(cell_id)
        found[cell_id] = (damage, place)
    return found
