"""Cells that end at once, better the nearer `iterations` is to 3. Ray workers import this file by name."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.workspace.predictions import Predictions
from crossfold.platform.workspace.workspace import Workspace


def score(cell: Cell, epoch: int) -> float:
    return epoch / 20 - abs(cell.params["iterations"] - 3) / 10


def commit(cell: Cell, workspace: Workspace, epochs: int) -> None:
    """A whole cell folder without training."""
    curve = [score(cell, epoch) for epoch in range(1, epochs + 1)]
    shape = (2, len(cell.targets))
    workspace.commit(
        cell,
        result={
            "status": "done",
            "cell_id": cell.cell_id,
            "metrics": {t: {"ccc": 0.1, "ccc_video_mean": 0.1, "pcc": 0.1, "rmse": 0.1} for t in cell.targets},
            "videos": {},
            "selection": {"best_epoch": epochs, "epochs": epochs, "best_ccc": max(curve)},
            "model": {"parameters": 1},
        },
        curve=pd.DataFrame({"epoch": range(epochs), "train_loss": 1.0} | {f"ccc_{t}": curve for t in cell.targets}),
        predictions=Predictions(
            ("a",), np.array([0, 2]), np.arange(2), np.zeros(shape), np.zeros(shape), np.ones(shape, bool), cell.targets
        ),
        env={"finished_at": utc_now(), "train_seconds": 0.1},
        weights=b"",
    )


def quick(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """A few epochs; `CROSSFOLD_TEST_FAIL` names the iterations whose cells fail."""
    began, epochs = time.monotonic(), cell.recipe.epochs
    with Path(workspace.root / "ran.log").open("a") as log:
        log.write(f"{cell.cell_id}\n")
    if os.environ.get("CROSSFOLD_TEST_FAIL") == str(cell.params["iterations"]):
        failure = Failure(cell.cell_id, cell.label, FailureClass.DIVERGED, attempt, "diverged", "", utc_now())
        return Outcome("failed", 0.1, failure)
    for epoch in range(1, epochs + 1):
        time.sleep(0.1)
        ccc = score(cell, epoch)
        report = EpochReport(
            epoch=epoch, epochs=epochs, learning_rate=0.1, train_loss=1.0, ccc=dict.fromkeys(cell.targets, ccc),
            best_ccc=ccc, seconds=0.1,
        )  # fmt: skip
        try:
            reporter.epoch(cell.cell_id, report)
        except Cancelled:
            return Outcome("cancelled", time.monotonic() - began)
    commit(cell, workspace, epochs)
    return Outcome("done", time.monotonic() - began)
