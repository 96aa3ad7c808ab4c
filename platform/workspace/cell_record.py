"""A finished cell as it lies on disk."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.layout import RECORD
from crossfold.platform.workspace.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class CellRecord:
    """A finished cell as it lies on disk; the large parts are read when asked for."""

    path: Path
    cell: Cell
    result: dict[str, Any]
    fetch: Callable[[str, str], None] | None = field(default=None, compare=False, repr=False)
    """Brings a file of the cell that is not here yet, where the workspace lies at a URL."""

    def file(self, name: str) -> Path:
        """One file of the cell, here."""
        path = self.path / name
        if self.fetch is not None and not path.is_file():
            self.fetch(self.cell_id, name)
        return path

    @property
    def cell_id(self) -> str:
        """The folder's name, equal to the identity of the cell in it."""
        return self.path.name

    @cached_property
    def env(self) -> dict[str, Any]:
        """Machine, versions and wall times: what may differ between two runs of one cell."""
        env: dict[str, Any] = json.loads((self.path / "env.json").read_text())
        env.pop(RECORD, None)
        return env

    @cached_property
    def curve(self) -> pd.DataFrame:
        """One row an epoch: epoch, learning_rate, train_loss, and `ccc_<target>` on the selection split."""
        return pd.read_parquet(self.path / "curve.parquet")

    @cached_property
    def predictions(self) -> Predictions:
        """Frame-level predictions of the reported split."""
        return read_predictions(self.file("predictions.npz"))
