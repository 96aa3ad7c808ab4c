"""The sweeps that were launched in a workspace, and the cells that they asked for."""

import contextlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import PROTOCOL, Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, write_json
from crossfold.platform.workspace.documents import read_launched
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import Prepared, prepare_cells
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.sweep_files import Sweep


def find_launched(workspace: Workspace, cell: str) -> Cell | None:
    """The planned cell of this id (or its first digits) in a launched sweep; other sweeps are not expanded."""
    for launched in _launched(workspace):
        if any(cell_id.startswith(cell) for cell_id in launched["cells"]):
            for planned in _cells_of(launched, workspace):
                if planned.cell_id.startswith(cell):
                    return planned
    return None


def planned_cells(workspace: Workspace, wanted: AbstractSet[str]) -> Iterator[tuple[str, Cell]]:
    """Those of the wanted cells that launched sweeps plan, each with the name of the first such sweep.

    A sweep that cannot be expanded any more, as when its store or a plugin is gone, is skipped.
    """
    left = set(wanted)
    for launched in _launched(workspace):
        if left & set(launched["cells"]):
            with contextlib.suppress(UserError):
                for cell in _cells_of(launched, workspace):
                    if cell.cell_id in left:
                        left.remove(cell.cell_id)
                        yield str(launched["name"]), cell


def _launched(workspace: Workspace) -> Iterator[dict[str, Any]]:
    # A name with a dot at its beginning is still being written.
    return (read_launched(path) for path in sorted(workspace.paths.sweeps.glob("[!.]*.json")))


def _cells_of(launched: dict[str, Any], workspace: Workspace) -> tuple[Cell, ...]:
    return prepare_cells(Sweep.parse(launched["sweep"], f"{launched['name']}.json"), workspace).plan.cells


@dataclass(frozen=True)
class Earlier:
    """What a sweep asked for under earlier protocols."""

    protocol: int
    planned: int = 0
    """Cells that the last launch asked for, if it was under an earlier protocol."""
    finished: tuple[str, ...] = ()
    """All cells of earlier protocols that the workspace has of the sweep; it keeps them."""


def earlier_cells(prepared: Prepared, workspace: Workspace) -> tuple[Cell, ...]:
    """The finished cells that a sweep asked for under earlier protocols."""
    found = _earlier(_last_launch(prepared, workspace), prepared)
    return tuple(workspace.read_exactly(cell_id).cell for cell_id in found.finished)


def remember_sweep(prepared: Prepared, workspace: Workspace) -> Earlier:
    """Writes what the sweep asks for, from which reports take the N of n/N and `status` the names.

    A launch narrowed by `--set` adds cells to what the sweep asked for before, and removes none. Cells of an earlier
    protocol are asked for no more; those that have finished stay in the file as `earlier`. Returns what there was.
    """
    before = _last_launch(prepared, workspace)
    found, asked = _earlier(before, prepared), _asked(prepared)
    if prepared.narrowed and all(before.get(key) == asked[key] for key in ("store", "recipe", "protocol")):
        both = list(dict.fromkeys([*before["cells"], *asked["cells"]]))
        asked |= {"cells": both, "labels": before["labels"] | asked["labels"], "sweep": before["sweep"]}
    # What was seen once stays seen, however the sweep is launched later.
    if seen := list(dict.fromkeys([*before.get("seen", ()), *_seen(prepared)])):
        asked["seen"] = seen
    if found.finished:
        asked["earlier"] = list(found.finished)
    write_json(_file_of(prepared, workspace), asked)
    return found


def _seen(prepared: Prepared) -> list[str]:
    """The cells of folds whose reported clips were seen when the parameters or the recipe were chosen."""
    return [cell.cell_id for cell in prepared.plan.cells if cell.fold in prepared.seen]


def _file_of(prepared: Prepared, workspace: Workspace) -> Path:
    return path_inside(workspace.paths.sweeps, f"{prepared.sweep.name}.json")


def _last_launch(prepared: Prepared, workspace: Workspace) -> dict[str, Any]:
    """The file of a sweep as it was last launched; empty if it never was."""
    path = _file_of(prepared, workspace)
    return read_launched(path) if path.is_file() else {}


def _earlier(before: dict[str, Any], prepared: Prepared) -> Earlier:
    protocol = before.get("protocol", PROTOCOL)
    if before.get("store") != prepared.store.content_hash:
        return Earlier(protocol)
    planned = before["cells"] if protocol < PROTOCOL else []
    known = (*before.get("earlier", ()), *planned)
    return Earlier(protocol, len(planned), tuple(cell_id for cell_id in known if cell_id in prepared.finished))


def variant_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Cell id -> its system, with the parameters, and the modality dropout, in which the variants of it differ."""
    params: dict[str, dict[str, set[str]]] = {}
    # Cells of one variant share one object of parameters, and one of the recipe.
    variants = {(cell.system, id(cell.params), id(cell.recipe)): cell for cell in cells}
    for cell in variants.values():
        seen = params.setdefault(cell.system, {})
        for key, value in _varied(cell).items():
            seen.setdefault(key, set()).add(str(value))
    names = {
        key: " ".join([cell.system, *(f"{k}={v}" for k, v in _varied(cell).items() if len(params[cell.system][k]) > 1)])
        for key, cell in variants.items()
    }
    return {cell.cell_id: names[cell.system, id(cell.params), id(cell.recipe)] for cell in cells}


def _varied(cell: Cell) -> dict[str, object]:
    """What makes two cells of a system, corpus, fold, target and seed two variants."""
    dropout = ",".join(f"{name}:{share:g}" for name, share in sorted(cell.recipe.modality_dropout.items()))
    return {**cell.params, "modality_dropout": dropout or "none"}


def _asked(prepared: Prepared) -> dict[str, Any]:
    named = variant_names(prepared.plan.cells)
    # The stores of doses are made again where they are gone, so that the sweep need not name them.
    doses = not isinstance(prepared.sweep.corpus, str)
    store = None if doses else prepared.store.content_hash
    return {
        "name": prepared.sweep.name,
        "corpus": prepared.store.corpus,
        "store": prepared.store.content_hash,
        "fold_rule": prepared.store.fold_rule,
        "sweep": prepared.sweep.model_copy(update={"store": store}).model_dump(mode="json"),
        "recipe": load_recipe(prepared.sweep.recipe, prepared.sweep.set).model_dump(mode="json"),
        "protocol": PROTOCOL,
        "cells": [cell.cell_id for cell in prepared.plan.cells],
        "labels": {
            cell.cell_id: {
                **{name: getattr(cell, name) for name in ("system", "params", "fold", "target", "seed")},
                "selection": cell.recipe.selection,
                "label": cell.label_of(named[cell.cell_id]),
                **({"corpus": cell.corpus, "store": cell.store} if doses else {}),
            }
            for cell in prepared.plan.cells
        },
    }
