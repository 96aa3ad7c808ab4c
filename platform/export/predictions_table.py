"""Predictions as a table with one row per frame: csv or parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import whole_file
from crossfold.platform.workspace.predictions import Predictions

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
COLUMNS = ("cell", "system", "fold", "seed", "clip", "frame", "target", "prediction", "label", "labelled")
"""Of the table that `tidy` makes."""


def tidy(members: Sequence[tuple[Cell, Predictions]]) -> pd.DataFrame:
    """Every prediction of these cells, a row each: what the cell is, clip, frame from 0, target, prediction, label.

    `labelled` is false where a frame has no annotation or no window reached it: it is in no score.
    """
    parts = []
    for cell, predictions in members:
        clips = np.repeat(np.array(predictions.clips, dtype=object), np.diff(predictions.offsets))
        for t, target in enumerate(predictions.targets):
            # Where it is false the stored label is a placeholder, such as -5.
            valid = predictions.valid[:, t]
            parts.append(
                pd.DataFrame(
                    {
                        "cell": cell.cell_id,
                        "system": cell.system,
                        "fold": cell.fold,
                        "seed": cell.seed,
                        "clip": clips,
                        "frame": predictions.frame,
                        "target": target,
                        "prediction": predictions.prediction[:, t],
                        "label": np.where(valid, predictions.label[:, t], np.float32(np.nan)),
                        "labelled": valid,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a table as `.csv` or `.parquet`, whole or not at all."""
    with whole_file(path) as draft:
        if path.suffix == ".parquet":
            table.to_parquet(draft, index=False)
        else:
            names = table.select_dtypes(["object", "string"])
            table.assign(**{str(column): _harmless(names[column]) for column in names}).to_csv(draft, index=False)


def _harmless(names: "pd.Series[Any]") -> "pd.Series[Any]":
    """Names with a quote before those that a spreadsheet would run as a formula."""
    return names.mask(names.str.lstrip().str.startswith(_FORMULA), "'" + names)
