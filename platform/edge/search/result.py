"""What a search found, in memory and as files of the workspace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, whole_file, write_bytes, write_json
from crossfold.platform.edge.search.importance import importance_of
from crossfold.platform.edge.search.retrain import Retrained, fresh_cells, read_retrained
from crossfold.platform.edge.search.samplers import describe_sampler, describe_scheduler
from crossfold.platform.edge.search.study import STATES, Study, describe_space
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.trials import winner_sweep

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Budget


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    best_params: dict[str, Any]
    """Of the best trial, or, where the best ones were judged again, of the best of these with fresh seeds."""
    best_value: float
    """Mean over inner folds, targets and seeds of the best selection CCC, in the search."""
    trials: pd.DataFrame
    """One row a trial: number, state, value, further objectives, epochs, seconds, parameters."""
    retrained: Sequence[Retrained] = field(default=())
    """The best trials once more with fresh seeds, where that was asked for."""

    def optimism(self) -> list[str]:
        """What being the best of many trials is worth, in words; nothing where none was judged again."""
        if not self.retrained:
            return []
        first = self.retrained[0]
        low, high = first.interval
        price = first.search_value - first.mean
        return [
            f"the best trial had {first.search_value:.4f} in the search, and with {len(first.values)} fresh seeds "
            f"it has {first.mean:.4f} [{low:.4f}, {high:.4f}]: being chosen as the best was worth {price:+.4f}"
        ]


def save_result(study: Study, limits: "Budget", store: "FeatureStore", workspace: Workspace) -> SearchResult:
    """Writes `searches/<name>.json`, the table of trials, the winner's sweep and its recipe."""
    search, table, best = study.search, study.table(), study.best
    if best is None:
        raise UserError(
            f"search {search.name}: none of {len(table)} trials ran to its end",
            "`crossfold status` lists the failures of their cells",
        )
    retrained = read_retrained(study, store, workspace)
    chosen, value = best
    if retrained:
        winner = max(retrained, key=lambda each: each.mean)
        chosen, value = dict(winner.params), winner.search_value
    folder = workspace.paths.searches
    with whole_file(path_inside(folder, f"{search.name}.parquet")) as draft:
        table.to_parquet(draft, index=False)
    winning = winner_sweep(search, chosen)
    _write_yaml(workspace, f"{winning.name}.sweep.yaml", winning.model_dump(mode="json", exclude_none=True))
    recipe = load_recipe(winning.recipe, winning.set).model_dump(mode="json", exclude={"name"})
    _write_yaml(workspace, f"{winning.name}.recipe.yaml", recipe)
    again = [cell.cell_id for cells in fresh_cells(study, store).values() for cell in cells]
    # The last one, as it says that the search is whole.
    write_json(
        path_inside(folder, f"{search.name}.json"),
        {
            "name": search.name,
            "group": search.group or search.name,
            "repeat": search.repeat,
            "corpus": store.corpus,
            "store": store.content_hash,
            "study": study.name,
            "search": search.model_dump(mode="json"),
            "space": describe_space(search.space),
            "sampler": describe_sampler(search),
            "scheduler": describe_scheduler(search),
            "objective": OBJECTIVE,
            "objectives": list(search.objective),
            "budget": limits.model_dump(exclude_none=True),
            "spent": study.spent,
            "trials": {state: int((table["state"] == state).sum()) for state in STATES},
            "best_params": chosen,
            "best_value": value,
            "front": study.front if len(search.objective) > 1 else [],
            "importance": importance_of(study.complete(), seed=search.sampler_seed),
            "retrained": [each.as_dict() for each in retrained],
            "cells": list(dict.fromkeys([*study.cells, *again])),
        },
    )
    return SearchResult(chosen, value, table, retrained)


OBJECTIVE = "mean over inner folds, targets and seeds of the best selection CCC"


def _write_yaml(workspace: Workspace, name: str, content: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_bytes(path_inside(workspace.paths.searches, name), text.encode())
