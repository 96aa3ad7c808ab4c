"""What a search found, in memory and as files of the workspace."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, whole_file, write_json
from crossfold.platform.edge.search.study import STATES, Study, describe_space
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Search

GRACE_EPOCHS, REDUCTION = 3, 3
"""ASHA: no trial is stopped before the third epoch; at each rung the best third goes on."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    best_params: dict[str, Any]
    best_value: float
    """Mean over inner folds, targets and seeds of the best selection CCC."""
    trials: pd.DataFrame
    """One row a trial: number, state, value, epochs, seconds, parameters."""


def save_result(search: "Search", store: "FeatureStore", study: Study, workspace: Workspace) -> SearchResult:
    """Writes `searches/<name>.json` and, next to it, the table of trials."""
    table, best = study.table(), study.best
    if best is None:
        raise UserError(
            f"search {search.name}: none of {len(table)} trials ran to its end",
            "`crossfold status` lists the failures of their cells",
        )
    folder = workspace.paths.searches
    write_json(
        path_inside(folder, f"{search.name}.json"),
        {
            "name": search.name,
            "corpus": store.corpus,
            "store": store.content_hash,
            "study": study.name,
            "search": search.model_dump(mode="json"),
            "space": describe_space(search.space),
            "sampler": {"kind": "tpe", "seed": search.sampler_seed, "multivariate": True, "constant_liar": True},
            "scheduler": {"kind": "asha", "grace_epochs": GRACE_EPOCHS, "reduction": REDUCTION},
            "objective": "mean over inner folds, targets and seeds of the best selection CCC",
            "trials": {state: int((table["state"] == state).sum()) for state in STATES},
            "best_params": best[0],
            "best_value": best[1],
            "cells": study.cells,
        },
    )
    with whole_file(path_inside(folder, f"{search.name}.parquet")) as draft:
        table.to_parquet(draft, index=False)
    return SearchResult(best[0], best[1], table)
