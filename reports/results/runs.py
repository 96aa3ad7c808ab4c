"""The runs of one variant."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from crossfold.reports.results.model import Results, Setting
from crossfold.reports.stats.runs import Run

RAW = "raw"
"""The name of no post-processing."""


def runs_of(
    results: Results, setting: Setting, variant: str, target: str, folds: Sequence[int] = (), post: str = RAW
) -> list[Run]:
    """The finished runs of one variant and target that were scored with `post`; without `folds`, of all folds."""
    if post == RAW:
        runs = results.finished_runs.get((setting.key, variant, target), ())
        return [run for run in runs if not folds or run.fold in folds]
    cells = cells_of_variant(results, setting, variant, target, folds)
    done = cells["cell_id"].to_numpy()[cells["status"].to_numpy() == "done"]
    return [run for cell_id in done if (run := results.processed.get((cell_id, target, post)))]


def cells_of_variant(
    results: Results, setting: Setting, variant: str, target: str, folds: Sequence[int]
) -> pd.DataFrame:
    """The rows of a variant in a setting, of these folds or of all."""
    cells = results.groups.get((setting.key, variant, target), results.cells.iloc[:0])
    return cells[np.isin(cells["fold"].to_numpy(), list(folds))] if folds else cells
