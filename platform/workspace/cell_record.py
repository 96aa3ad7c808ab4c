"""A finished cell as it lies on disk."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import DataError
from crossfold.platform.core.layout import RECORD
from crossfold.platform.workspace.integrity import damage_of
from crossfold.platform.workspace.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    import pandas as pd

Fetch = Callable[[str, str], None]
"""Brings a file, by cell id and name, to this machine."""


@dataclass(frozen=True)
class CellRecord:
    """A finished cell; its large files are read when something asks for them."""

    path: Path
    cell: Cell
    result: dict[str, Any]
    fetch: Fetch | None = field(default=None, compare=False, repr=False)
    """For a workspace at a URL, of which this machine may lack large files."""

    def file(self, name: str) -> Path:
        """One file of the cell, on this machine."""
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
        env: dict[str, Any] = from_json((self.path / "env.json").read_bytes())
        env.pop(RECORD, None)
        return env

    @cached_property
    def curve(self) -> "pd.DataFrame":
        """One row an epoch: epoch, learning_rate, train_loss, and `ccc_<target>` on the selection split."""
        import pandas as pd

        return pd.read_parquet(self.path / "curve.parquet")

    @cached_property
    def predictions(self) -> Predictions:
        """Frame-level predictions of the reported split."""
        return read_predictions(self.file("predictions.npz"))


def read_cell(folder: Path, fetch: Fetch | None = None) -> CellRecord:
    """The cell in a folder. Raises `DataError` where it is damaged, `OSError` where there is none."""
    try:
        cell = Cell.model_validate_json((folder / "cell.json").read_bytes())
        # A fifth of the time of `json.loads`, which would be most of what a report of 100,000 cells reads with.
        return CellRecord(folder, cell, from_json((folder / "result.json").read_bytes()), fetch)
    except (OSError, ValueError) as error:
        damage = damage_of(folder)
        if damage is None:
            raise
        raise DataError(
            f"the finished cell {folder.name} is damaged: {damage}",
            "`crossfold run` with its sweep moves it aside and computes it again",
        ) from error
