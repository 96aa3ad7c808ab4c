"""The results of a workspace as data frames, and its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from crossfold.platform.workspace.workspace import Workspace as Files

if TYPE_CHECKING:
    from crossfold.platform.edge.api.trained_cell import TrainedCell
    from crossfold.reports.power import SweepPower

Place = str | Path | None
"""A workspace: a folder or a URL, else `CROSSFOLD_HOME`, else `./.crossfold`."""


class Workspace:
    """Reads what finished in a workspace. Needs neither torch nor Ray nor MLflow, and changes nothing."""

    def __init__(self, path: Place = None) -> None:
        """Raises `UserError` for a URL that cannot be used; a folder need not exist yet."""
        self.files = Files.locate(path)

    def __repr__(self) -> str:
        return f"Workspace({str(self.files)!r}): {len(self.files.finished())} finished cells"

    def results(self, *, every: bool = False) -> pd.DataFrame:
        """One row per cell and target: what the cell is, then `ccc`, `ccc_video_mean`, `pcc`, `rmse`, and its cost.

        The columns are described in `docs/python.md`. every: rows of failed and planned cells too, see `status`.
        """
        from crossfold.reports.results.load import load_results

        cells = load_results(self.files).cells
        return cells if every else cells[cells["status"] == "done"].reset_index(drop=True)

    def predictions(self, *cells: str) -> pd.DataFrame:
        """One row per frame and target of some cells, or of all: cell, system, fold, seed, clip, frame, target,
        prediction, label, labelled.

        cells: their ids, or the beginnings of them. Raises `UserError` for one that is not there.
        """
        from crossfold.platform.export.predictions_table import tidy

        records = [self.files.read(cell) for cell in cells] if cells else list(self.files.records())
        return tidy([(record.cell, record.predictions) for record in records])

    def curves(self, *cells: str) -> pd.DataFrame:
        """One row per cell and epoch: cell, epoch, learning_rate, train_loss, `ccc_<target>` on the selection split.

        cells: as for `predictions`.
        """
        records = [self.files.read(cell) for cell in cells] if cells else list(self.files.records())
        parts = [record.curve.assign(cell=record.cell_id) for record in records]
        curves = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["cell", "epoch"])
        return curves[["cell", *(column for column in curves.columns if column != "cell")]]

    def load(self, cell: str) -> "TrainedCell":
        """A finished cell by its id, or the beginning of it. Raises `UserError` where there is none."""
        from crossfold.platform.edge.api.trained_cell import TrainedCell

        return TrainedCell(self.files.read(cell), self.files)

    def report(self, *, out: str | Path | None = None, tables: Sequence[str] = ()) -> Path:
        """Writes the report and returns the page; see `report`."""
        return report(self.files.address, out=out, tables=tables)


def report(workspace: Place = None, *, out: str | Path | None = None, tables: Sequence[str] = ()) -> Path:
    """Writes `report.html`, and each table as Markdown, LaTeX and CSV; returns the path of the page.

    out: a folder, by default `reports` in the workspace. tables: ids such as `dca-t1`; none means all.
    Raises `UserError` for an unknown table, and where nothing has run yet.
    """
    from crossfold.reports.build import build_report

    written = build_report(Files.locate(workspace), tables=tables, out=Path(out) if out is not None else None)
    return written.paths[0]


def power(sweep: str, gain: float = 0.01, *, pair: Sequence[str] = (), workspace: Place = None) -> "SweepPower":
    """How likely a true gain in CCC is to be seen, and which seeds, folds and videos that takes, from finished runs.

    sweep: the name of one that has run to its end in the workspace. pair: two systems, better and base, whose gain
    alone is looked at; without, the typical pair of all. `targets` has one forecast for each setting and target,
    `printed` one for each printed gain (docs/statistics.md). Raises `UserError` as `crossfold power`.
    """
    from crossfold.reports.power import forecast_power

    return forecast_power(Files.locate(workspace), sweep, gain, pair)
