"""Joining workspaces of several people into one, by the identity of cells; nothing is lost, nothing is overwritten.

Finished cells and stores are copied, checked (`foreign`) and appear whole. Two cells of one identity should be equal
byte by byte but for `env.json`; where they are not, the one that is there stays and the other one is kept under
`conflicts/<cell>/<workspace>/`, and the report names both. What is no sound part of a workspace stays where it is, and
the report says why.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, publish_folder, temporary_folder, write_bytes, write_json
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.workspace.documents import Ensemble, LaunchedSweep, Rescored
from crossfold.platform.workspace.foreign import (
    MOST_DOCUMENT_BYTES,
    Refused,
    check_cell,
    check_folder,
    check_store,
    checked_document,
    checked_failure,
    copy_files,
    limit_of,
    read_regular,
    same_bytes,
)
from crossfold.platform.workspace.workspace import Workspace

_MAY_DIFFER = "env.json"
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""As files of sweeps have it; the name is that of a file."""


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
    """What was left in the other workspaces, and why."""


def merge(target: Workspace, sources: Sequence[Workspace]) -> Merged:
    """Takes over everything that `sources` have and `target` has not; the same call again changes nothing.

    Raises `UserError` for a folder that is no workspace, before anything is written.
    """
    check_sources(target, sources)
    merged = Merged()
    for source, name in zip(sources, _names(sources), strict=True):
        _stores(target, source, merged)
        _cells(target, source, name, merged)
        _failures_and_scores(target, source, merged)
        _sweeps(target, source, name, merged)
    return merged


def check_sources(target: Workspace, sources: Sequence[Workspace]) -> None:
    """Raises `UserError` for a folder that is no workspace, and for the target itself."""
    for source in sources:
        if source.root == target.root:
            raise UserError(f"{source} cannot be joined to itself", "name the other workspaces")
        if not any(
            folder.is_dir()
            for folder in (source.paths.cells, source.paths.stores, source.paths.sweeps, source.paths.failures)
        ):
            raise UserError(f"{source} is no workspace", "give the folder that holds cells/ and stores/")


def _names(sources: Sequence[Workspace]) -> list[str]:
    """A short name for each: its folder, or the one above a `.crossfold`; numbered where two are called alike."""
    plain = [s.root.parent.name if s.root.name.startswith(".") else s.root.name for s in sources]
    plain = [re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80] or "workspace" for name in plain]
    return [name if plain.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(plain, start=1)]


def _entries(folder: Path, merged: Merged) -> Iterator[Path]:
    """What lies in a folder of another workspace, by name, without hidden entries."""
    if folder.is_symlink():
        merged.damaged.append(f"{folder}: it is a symbolic link")
    elif folder.is_dir():
        with os.scandir(folder) as entries:
            yield from sorted(folder / entry.name for entry in entries if not entry.name.startswith("."))


def _stores(target: Workspace, source: Workspace, merged: Merged) -> None:
    for store in _entries(source.paths.stores, merged):
        try:
            # Stores are named after their content, so one of the same name is the same.
            here = path_inside(target.paths.stores, store.name)
            if here.exists():
                continue
            names = check_folder(store)
            with temporary_folder(target.paths.stores, "merged") as draft:
                copy_files(store, draft, names)
                check_store(draft, store.name)
                publish_folder(draft, here)
            merged.stores += 1
        except (Refused, UserError) as error:
            merged.damaged.append(f"{store}: {error}")


def _cells(target: Workspace, source: Workspace, name: str, merged: Merged) -> None:
    for theirs in _entries(source.paths.cells, merged):
        try:
            _cell(target, theirs, name, merged)
        except (Refused, UserError, FileNotFoundError) as error:
            merged.damaged.append(f"{theirs}: {error}")


def _cell(target: Workspace, theirs: Path, name: str, merged: Merged) -> None:
    cell_id = theirs.name
    for extra in check_folder(theirs, CELL_FILES):
        merged.damaged.append(f"{theirs / extra}: no cell has such a file")
    ours = path_inside(target.paths.cells, cell_id)
    there = ours.is_dir()
    differs = tuple(n for n in CELL_FILES if n != _MAY_DIFFER and not same_bytes(ours / n, theirs / n)) if there else ()
    if there and not differs:
        merged.same += 1
        return
    here = target.paths.conflicts / cell_id / name if there else ours
    label = ""
    if not here.exists():
        with temporary_folder(here.parent, cell_id) as draft:
            copy_files(theirs, draft, CELL_FILES, limit_of)
            label = check_cell(draft, cell_id).label
            if not there:
                target.expect_commit(cell_id)
            publish_folder(draft, here)
    if not there:
        merged.cells += 1
        return
    label = label or check_cell(here, cell_id).label
    place = str(here.relative_to(target.root))
    merged.conflicts.append(Conflict("cell", cell_id, label, name, differs, place, _scores(ours, here)))


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
    for path in _entries(source.paths.failures, merged):
        merged.failures += _document(path, target.paths.failures, None, merged)
    for path in _entries(source.paths.ensembles, merged):
        merged.rescored += _document(path, target.paths.ensembles, Ensemble, merged)
    for folder in _entries(source.paths.rescored, merged):
        for path in _entries(folder, merged) if folder.is_dir() else (folder,):
            merged.rescored += _document(path, target.paths.rescored / folder.name, Rescored, merged)


def _document(path: Path, folder: Path, model: type[BaseModel] | None, merged: Merged) -> bool:
    """Takes over one file, whose content is that of `model` or of a failure; whether there was none."""
    try:
        here = path_inside(folder, path.name)
        if path.suffix != ".json":
            raise Refused("no file of a workspace is called so")
        if here.exists():
            return False
        if model is None:
            checked_failure(path)
        else:
            checked_document(path, model)
        write_bytes(here, read_regular(path, MOST_DOCUMENT_BYTES))
    except (Refused, UserError, FileNotFoundError) as error:
        merged.damaged.append(f"{path}: {error}")
        return False
    return True


def _sweeps(target: Workspace, source: Workspace, name: str, merged: Merged) -> None:
    for path in _entries(source.paths.sweeps, merged):
        try:
            _sweep(target, path, name, merged)
        except (Refused, UserError, FileNotFoundError) as error:
            merged.damaged.append(f"{path}: {error}")


def _sweep(target: Workspace, path: Path, name: str, merged: Merged) -> None:
    theirs = checked_document(path, LaunchedSweep)
    if path.suffix != ".json" or theirs["name"] != path.stem or not _SWEEP_NAME.fullmatch(path.stem):
        raise Refused("its name is not that of its file")
    here = path_inside(target.paths.sweeps, path.name)
    if not here.is_file():
        write_json(here, theirs)
        merged.sweeps += 1
        return
    try:
        ours = checked_document(here, LaunchedSweep)
    except Refused as error:
        raise Refused(f"the sweep of that name in {target} cannot be read: {error}") from None
    differs = tuple(key for key in ("corpus", "store", "recipe", "protocol") if ours.get(key) != theirs.get(key))
    if differs:
        # Another sweep of the same name: it gets a name that says which workspace it is from.
        other = f"{theirs['name']}-{name}"
        kept = path_inside(target.paths.sweeps, f"{other}.json")
        write_json(kept, theirs | {"name": other})
        place = str(kept.relative_to(target.root))
        merged.conflicts.append(Conflict("sweep", path.stem, path.stem, name, differs, place))
        return
    both = list(dict.fromkeys([*ours["cells"], *theirs["cells"]]))
    seen = list(dict.fromkeys([*ours.get("seen", ()), *theirs.get("seen", ())]))
    if len(both) > len(ours["cells"]) or len(seen) > len(ours.get("seen", ())):
        joined = ours | {"cells": both, "labels": theirs["labels"] | ours["labels"]}
        write_json(here, joined | ({"seen": seen} if seen else {}))
        merged.sweeps += 1
