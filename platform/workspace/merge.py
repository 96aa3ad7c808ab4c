"""Joining workspaces of several people into one, by the identity of cells; nothing is lost, nothing is overwritten.

Finished cells and stores are linked where the file system can, else copied, and appear whole. Two cells of one identity
should be equal byte by byte but for `env.json`; where they are not, the one that is there stays and the other one is
kept under `conflicts/<cell>/<workspace>/`, and the report names both.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import whole_folder, write_bytes, write_json
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.workspace.workspace import Workspace

_MAY_DIFFER = "env.json"


@dataclass(frozen=True)
class Conflict:
    """Something that two workspaces have under one name, and that differs."""

    what: str
    """`cell` or `sweep`."""
    name: str
    label: str
    workspace: str
    differs: tuple[str, ...]
    """File names, or fields of a sweep."""
    kept: str
    """Where the one from the other workspace is now."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Of a cell, by target: CCC here and there."""


@dataclass
class Merged:
    """What a merge did."""

    cells: int = 0
    same: int = 0
    """Cells that were here already, byte by byte."""
    stores: int = 0
    failures: int = 0
    sweeps: int = 0
    rescored: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Cells of other workspaces that were left there, and why."""


def merge(target: Workspace, sources: Sequence[Workspace]) -> Merged:
    """Takes over everything that `sources` have and `target` has not; the same call again changes nothing.

    Raises `UserError` for a folder that is no workspace, before anything is written.
    """
    for source in sources:
        if source.root == target.root:
            raise UserError(f"{source} cannot be joined to itself", "name the other workspaces")
        if not any(
            folder.is_dir()
            for folder in (source.paths.cells, source.paths.stores, source.paths.sweeps, source.paths.failures)
        ):
            raise UserError(f"{source} is no workspace", "give the folder that holds cells/ and stores/")
    merged = Merged()
    for source, name in zip(sources, _names(sources), strict=True):
        _stores(target, source, merged)
        _cells(target, source, name, merged)
        _failures_and_scores(target, source, merged)
        _sweeps(target, source, name, merged)
    return merged


def _names(sources: Sequence[Workspace]) -> list[str]:
    """A short name for each: its folder, or the one above a `.crossfold`; numbered where two are called alike."""
    plain = [s.root.parent.name if s.root.name.startswith(".") else s.root.name for s in sources]
    return [name if plain.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(plain, start=1)]


def _stores(target: Workspace, source: Workspace, merged: Merged) -> None:
    for store in sorted(source.paths.stores.glob("[!.]*-*")):
        # Stores are named after their content, so one of the same name is the same.
        if (store / "manifest.json").is_file() and not (target.paths.stores / store.name).exists():
            _take(store, target.paths.stores / store.name)
            merged.stores += 1


def _cells(target: Workspace, source: Workspace, name: str, merged: Merged) -> None:
    for cell_id in sorted(source.finished()):
        theirs, ours = source.paths.cell(cell_id), target.paths.cell(cell_id)
        if wrong := _wrong(theirs):
            merged.damaged.append(f"{theirs}: {wrong}")
        elif not ours.is_dir():
            target.expect_commit(cell_id)
            _take(theirs, ours)
            merged.cells += 1
        elif differs := _differing(ours, theirs):
            kept = target.paths.conflicts / cell_id / name
            if not kept.exists():
                _take(theirs, kept)
            label = Cell.model_validate_json((theirs / "cell.json").read_text()).label
            place = str(kept.relative_to(target.root))
            merged.conflicts.append(Conflict("cell", cell_id, label, name, differs, place, _scores(ours, theirs)))
        else:
            merged.same += 1


def _wrong(folder: Path) -> str:
    """Why a finished cell cannot be taken over; nothing if it can."""
    missing = [name for name in CELL_FILES if not (folder / name).is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    try:
        cell = Cell.model_validate_json((folder / "cell.json").read_text())
        json.loads((folder / "result.json").read_text())["metrics"]
    except (ValueError, KeyError, TypeError, UserError):
        return "cell.json or result.json cannot be read by this version"
    return "" if cell.cell_id == folder.name else f"its identity is {cell.cell_id}, by this version"


def _differing(ours: Path, theirs: Path) -> tuple[str, ...]:
    def same(name: str) -> bool:
        mine, other = ours / name, theirs / name
        if not mine.is_file():
            return False
        return mine.samefile(other) or mine.read_bytes() == other.read_bytes()

    return tuple(name for name in CELL_FILES if name != _MAY_DIFFER and not same(name))


def _scores(ours: Path, theirs: Path) -> dict[str, str]:
    def metrics(folder: Path) -> dict[str, Any]:
        try:
            read: dict[str, Any] = json.loads((folder / "result.json").read_text())["metrics"]
        except (OSError, ValueError, KeyError):
            return {}
        return read

    mine, other = metrics(ours), metrics(theirs)
    return {target: f"{_ccc(mine.get(target))} here, {_ccc(other[target])} there" for target in other}


def _ccc(metrics: Mapping[str, Any] | None) -> str:
    return f"{metrics['ccc']:.6f}" if metrics and isinstance(metrics.get("ccc"), float) else "nothing"


def _failures_and_scores(target: Workspace, source: Workspace, merged: Merged) -> None:
    """Failed attempts, rescored cells and ensembles: files that are never changed once written."""
    for path in sorted(source.paths.failures.glob("[!.]*.json")):
        merged.failures += _take_file(path, target.paths.failures / path.name)
    for root, here in (
        (source.paths.rescored, target.paths.rescored),
        (source.paths.ensembles, target.paths.ensembles),
    ):
        for path in sorted(root.rglob("[!.]*.json")):
            merged.rescored += _take_file(path, here / path.relative_to(root))


def _sweeps(target: Workspace, source: Workspace, name: str, merged: Merged) -> None:
    for path in sorted(source.paths.sweeps.glob("[!.]*.json")):
        here = target.paths.sweeps / path.name
        try:
            theirs = json.loads(path.read_text())
        except ValueError:
            merged.damaged.append(f"{path}: is not JSON")
            continue
        if not here.is_file():
            write_json(here, theirs)
            merged.sweeps += 1
            continue
        ours = json.loads(here.read_text())
        differs = tuple(key for key in ("corpus", "store", "recipe", "protocol") if ours.get(key) != theirs.get(key))
        if differs:
            # Another sweep of the same name: it gets a name that says which workspace it is from.
            other = f"{theirs['name']}-{name}"
            kept = target.paths.sweeps / f"{other}.json"
            write_json(kept, theirs | {"name": other})
            place = str(kept.relative_to(target.root))
            merged.conflicts.append(Conflict("sweep", path.stem, path.stem, name, differs, place))
            continue
        both = list(dict.fromkeys([*ours["cells"], *theirs["cells"]]))
        if len(both) > len(ours["cells"]):
            write_json(here, ours | {"cells": both, "labels": theirs["labels"] | ours["labels"]})
            merged.sweeps += 1


def _take(source: Path, target: Path) -> None:
    """A folder appears at its place whole: linked file by file, or copied."""
    with whole_folder(target) as draft:
        mode = draft.stat().st_mode
        shutil.copytree(source, draft, copy_function=_link, dirs_exist_ok=True)
        draft.chmod(mode)


def _take_file(source: Path, target: Path) -> bool:
    if target.exists():
        return False
    write_bytes(target, source.read_bytes())
    return True


def _link(source: str, target: str) -> str:
    """Finished files are never written to again, so a second name for the same bytes is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
