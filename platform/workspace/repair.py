"""What a driver cleans up before it begins: what killed processes left, and damaged cells."""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from crossfold.platform.core.files import LEFTOVER_SECONDS, remove_drafts
from crossfold.platform.core.layout import CELL_ID
from crossfold.platform.workspace.integrity import damage_of
from crossfold.platform.workspace.remote.cell_sync import LARGE
from crossfold.platform.workspace.workspace import Workspace

_HALF_WRITTEN = re.compile(rf"\.{CELL_ID.pattern}-[a-z0-9_]{{8}}")
"""A temporary folder of earlier versions, which does not say whose it is."""
_ASIDE = re.compile(rf"\.({CELL_ID.pattern})-aside")


def remove_leftovers(workspace: Workspace) -> int:
    """Removes what killed processes left (docs/faults.md); returns how many half-written files and folders there were.

    Whoever holds the lock of the driver calls this before it starts workers, so nothing in `fleet/` is in use.
    """
    paths, removed = workspace.paths, 0
    if paths.cells.is_dir():
        with os.scandir(paths.cells) as entries:
            hidden = [Path(entry) for entry in entries if entry.name.startswith(".")]
        for folder in hidden:
            if (aside := _ASIDE.fullmatch(folder.name)) is not None:
                # A cell that was to be computed again: the new result counts if it was committed, else the old one.
                workspace.restore(aside[1], folder)
            elif _HALF_WRITTEN.fullmatch(folder.name) and folder.stat().st_mtime < time.time() - LEFTOVER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    for folder in (workspace.root, paths.cells, paths.stores, paths.stores / ".prepared"):
        removed += remove_drafts(folder)
    for folder in _written(workspace):
        removed += remove_drafts(folder, recursive=True)
    # Uploads of MLflow, which are made under the same lock.
    for file in paths.mlflow_artifacts.glob("*/artifacts/**/.artifact.uploading.*"):
        file.unlink(missing_ok=True)
        removed += 1
    for folder in paths.fleet.glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    finished = workspace.finished()
    for folder in paths.running.glob("[!.]*"):
        if folder.name in finished:
            shutil.rmtree(folder, ignore_errors=True)
    for note in paths.unfinished.glob("[!.]*.json"):
        if note.stem in finished:
            note.unlink(missing_ok=True)
    return removed


def _written(workspace: Workspace) -> Iterator[Path]:
    """Folders in which commands write files whole; what finished cells and stores hold is never changed."""
    paths = workspace.paths
    yield from (paths.failures, paths.rescored, paths.ensembles, paths.searches, paths.sweeps, paths.reports)
    yield from (paths.launches, paths.unfinished, paths.running, paths.status, paths.mlflow_pending, paths.conflicts)


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
