"""What `run`, `search` and `demo` have in common: from a sweep to finished cells."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfold.datasets.store import FeatureStore
from crossfold.platform.contracts import PROTOCOL, Cell
from crossfold.platform.errors import UserError
from crossfold.platform.registry import load_plugin
from crossfold.platform.results import Workspace, write_json
from crossfold.sweeps.plan import Plan, Search, Sweep, expand, load
from crossfold.sweeps.recipe_files import load_recipe


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


def check_before_work(prepared: Prepared, workspace: Workspace) -> None:
    """Raises `UserError` where the store lacks what the cells feed on, or weights they start from are not there."""
    from crossfold.platform.end_to_end import check_inputs, check_weights
    from crossfold.platform.model import modalities_of
    from crossfold.platform.weights import weights_folder

    asked = {(cell.recipe.identity_json, modalities_of(cell)): cell.recipe for cell in prepared.missing}
    for (_, modalities), recipe in asked.items():
        check_inputs(recipe, prepared.store, modalities)
        check_weights(recipe, modalities, weights_folder(workspace=workspace))


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


def _asked(prepared: Prepared) -> dict[str, Any]:
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
                "label": cell.label,
            }
            for cell in prepared.plan.cells
        },
    }
