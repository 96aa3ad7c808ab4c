"""What `run`, `search` and `demo` have in common: from a sweep to finished cells."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import PROTOCOL, Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.plan import Plan, expand
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.sweep_files import Search, Sweep, load
from crossfold.sweeps.trials import check_space, corners, trial_cells, winner_sweep


@dataclass(frozen=True)
class Prepared:
    """A sweep that was read, checked and expanded against its store."""

    sweep: Sweep
    store: FeatureStore
    plan: Plan
    finished: frozenset[str]
    narrowed: bool = False
    """Whether `--set` changed the sweep for this launch only."""

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells without a result."""
        return tuple(cell for cell in self.plan.cells if cell.cell_id not in self.finished)


def read_sweep(source: str, overrides: Sequence[str] | None, plugins: Sequence[Path] | None) -> Sweep:
    """A grid sweep; a search answers with the right command."""
    for plugin in plugins or ():
        load_plugin(plugin)
    sweep = load(source, overrides or ())
    if isinstance(sweep, Search):
        raise UserError(f"{source} is a search, not a grid", f"run `crossfold search {source}`")
    return sweep


def read_search(source: str, overrides: Sequence[str] | None) -> Search:
    """A search; a grid sweep answers with the right command."""
    search = load(source, overrides or ())
    if isinstance(search, Sweep):
        raise UserError(f"{source} is a grid, not a search (it has no `space`)", f"run `crossfold run {source}`")
    return search


def prepare_cells(sweep: Sweep, workspace: Workspace, *, narrowed: bool = False) -> Prepared:
    """Expands a sweep and compares it with what the workspace has, by one listing."""
    store = FeatureStore(workspace.find_store(sweep.corpus, sweep.store))
    return Prepared(sweep, store, expand(sweep, store), frozenset(workspace.finished()), narrowed)


def use_weights(folder: Path | None) -> None:
    """What `--weights` names, for this process and every worker it starts, as `CROSSFOLD_WEIGHTS`."""
    if folder is not None:
        os.environ["CROSSFOLD_WEIGHTS"] = str(folder.resolve())


def check_address(address: str | None) -> None:
    """Ray waits for minutes for what is no address at all; a dashboard's is for `submit`."""
    if address is None or address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith("http") or not (host and colon and port.isdecimal()):
        what = "the address of a dashboard" if address.startswith("http") else "no address of a Ray cluster"
        remedy = "give auto, head:6379 or ray://head:10001"
        raise UserError(
            f"--address {address!r} is {what}", remedy + (", or use `crossfold submit`" if "http" in address else "")
        )


def check_before_work(prepared: Prepared, workspace: Workspace, weights: Path | None = None) -> None:
    """Raises `UserError` where the store lacks what the cells feed on, or weights they start from are not there."""
    check_cells(prepared.missing, prepared.store, workspace, weights)


def check_search(search: Search, store: FeatureStore, workspace: Workspace) -> None:
    """The same for all that a search may choose, and for the cells of its winner; and that its space is sound.

    Trials run on the workers of one fleet, which have a device each.
    """
    check_space(search, store)
    cells: list[Cell] = []
    for chosen in corners(search):
        cells += trial_cells(search, store, chosen)
        if wide := [cell.recipe.devices for cell in cells if cell.recipe.devices > 1]:
            raise UserError(
                f"search {search.name}: devices {wide[0]}, and the cells of a search have one device each",
                "search with --set devices=1; a sweep of the winner may have more",
            )
        cells += expand(winner_sweep(search, chosen), store).cells
    check_cells(cells, store, workspace)


def check_cells(cells: Sequence[Cell], store: FeatureStore, workspace: Workspace, weights: Path | None = None) -> None:
    """Raises `UserError` where `store` lacks what one of these feeds on, or weights it starts from are not there."""
    from crossfold.platform.modeling.emotion_model import modalities_of
    from crossfold.platform.modeling.frame_encoder import check_inputs, check_weights
    from crossfold.platform.modeling.pretrained import weights_folder

    folder = weights_folder(weights, workspace)
    variants = {(cell.system, id(cell.params), id(cell.recipe)): cell for cell in cells}
    asked = {(cell.recipe.identity_json, modalities_of(cell)): cell.recipe for cell in variants.values()}
    for (_, modalities), recipe in asked.items():
        check_inputs(recipe, store, modalities)
        check_weights(recipe, modalities, folder)


def find_launched(workspace: Workspace, cell: str) -> Cell | None:
    """The planned cell of this id (or its first digits) in a launched sweep; other sweeps are not expanded."""
    for path in sorted(workspace.sweeps.glob("*.json")):
        launched = json.loads(path.read_text())
        if any(cell_id.startswith(cell) for cell_id in launched["cells"]):
            plan = prepare_cells(Sweep.parse(launched["sweep"], path.name), workspace).plan
            for planned in plan.cells:
                if planned.cell_id.startswith(cell):
                    return planned
    return None


def planned_cells(workspace: Workspace, wanted: AbstractSet[str]) -> Iterator[tuple[str, Cell]]:
    """Those of the wanted cells that launched sweeps plan, each with the name of the first such sweep.

    A sweep that cannot be expanded any more, as when its store or a plugin is gone, is passed over.
    """
    left = set(wanted)
    for path in sorted(workspace.sweeps.glob("[!.]*.json")):
        launched = json.loads(path.read_text())
        if left & set(launched["cells"]):
            with contextlib.suppress(UserError):
                for cell in prepare_cells(Sweep.parse(launched["sweep"], path.name), workspace).plan.cells:
                    if cell.cell_id in left:
                        left.remove(cell.cell_id)
                        yield str(launched["name"]), cell


def remember_sweep(prepared: Prepared, workspace: Workspace) -> None:
    """Writes down what the sweep asks for, so that reports know N of n/N and `status` knows the names.

    A launch narrowed by `--set` adds to what the sweep owes and takes nothing away.
    """
    path = workspace.sweeps / f"{prepared.sweep.name}.json"
    asked = _asked(prepared)
    if prepared.narrowed and path.is_file():
        before = json.loads(path.read_text())
        if (before["store"], before.get("recipe")) == (asked["store"], asked["recipe"]):
            both = list(dict.fromkeys([*before["cells"], *asked["cells"]]))
            asked |= {"cells": both, "labels": before["labels"] | asked["labels"], "sweep": before["sweep"]}
    write_json(path, asked)


def variant_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Of each cell, by identity: its system, with the parameters in which the variants of that system differ."""
    params: dict[str, dict[str, set[str]]] = {}
    # Cells of one variant share their parameters.
    variants = {(cell.system, id(cell.params)): cell for cell in cells}
    for cell in variants.values():
        seen = params.setdefault(cell.system, {})
        for key, value in cell.params.items():
            seen.setdefault(key, set()).add(str(value))
    names = {
        key: " ".join([cell.system, *(f"{k}={v}" for k, v in cell.params.items() if len(params[cell.system][k]) > 1)])
        for key, cell in variants.items()
    }
    return {cell.cell_id: names[cell.system, id(cell.params)] for cell in cells}


def _asked(prepared: Prepared) -> dict[str, Any]:
    named = variant_names(prepared.plan.cells)
    return {
        "name": prepared.sweep.name,
        "corpus": prepared.store.corpus,
        "store": prepared.store.content_hash,
        "sweep": prepared.sweep.model_copy(update={"store": prepared.store.content_hash}).model_dump(mode="json"),
        "recipe": load_recipe(prepared.sweep.recipe, prepared.sweep.set).model_dump(mode="json"),
        "protocol": PROTOCOL,
        "cells": [cell.cell_id for cell in prepared.plan.cells],
        "labels": {
            cell.cell_id: {
                "system": cell.system,
                "params": cell.params,
                "fold": cell.fold,
                "target": cell.target,
                "seed": cell.seed,
                "selection": cell.recipe.selection,
                "label": cell.label_of(named[cell.cell_id]),
            }
            for cell in prepared.plan.cells
        },
    }
