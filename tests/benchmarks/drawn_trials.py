"""A trial that lasts as long as its cell says, for clusters without devices. Imported by Ray workers: no pytest."""

import time

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Outcome, Reporter
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.workspace.workspace import Workspace

RECIPE = Recipe()


def drawn_cell(seed: int, seconds: float) -> Cell:
    """One of an unknown system that will last `seconds`."""
    return Cell(
        system="drawn", params={"seconds": seconds}, corpus="none", store="0", fold=0, targets=("valence",), seed=seed,
        recipe=RECIPE,
    )  # fmt: skip


def last(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """Sleeps in two epochs, and reports both."""
    began = time.monotonic()
    seconds = float(cell.params["seconds"])
    for epoch in (1, 2):
        time.sleep(max(began + epoch * seconds / 2 - time.monotonic(), 0.0))
        report = EpochReport(
            epoch=epoch, epochs=2, learning_rate=0.1, train_loss=1.0, ccc={"valence": 0.1}, best_ccc=0.1, seconds=0.0
        )
        reporter.epoch(cell.cell_id, report)
    return Outcome("done", time.monotonic() - began)
