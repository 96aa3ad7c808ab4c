"""Trials that only sleep, and a real one that dies once. Imported by Ray workers, so it needs nothing of pytest."""

import faulthandler
import os
import signal
import time
from pathlib import Path

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.workspace.workspace import Workspace


def make_cell(seed: int, **params) -> Cell:
    return Cell(
        system="fake", params=params, corpus="none", store="0", fold=0, targets=("valence",), seed=seed, recipe=Recipe()
    )


def sleepy(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """Sleeps `epochs` times `seconds`, keeping its epoch in scratch; `trouble` names what happens on the way."""
    began = time.monotonic()
    epochs = int(cell.params.get("epochs", 2))
    trouble = cell.params.get("trouble", "")
    checkpoint = workspace.paths.scratch(cell.cell_id) / "epoch"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    first = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
    _log(workspace, f"start {cell.cell_id} {attempt} {first} {os.getpid()}")
    try:
        for epoch in range(first, epochs + 1):
            time.sleep(float(cell.params.get("seconds", 0.01)))
            _trouble(trouble, cell, attempt)
            beside = checkpoint.with_suffix(".new")
            beside.write_text(str(epoch))
            beside.replace(checkpoint)
            report = EpochReport(
                epoch=epoch,
                epochs=epochs,
                learning_rate=0.1,
                train_loss=1 / epoch,
                ccc={"valence": epoch / 100},
                best_ccc=epoch / 100,
                seconds=0.0,
                gpu_bytes=int(cell.params.get("gib", 0)) * 2**30,
            )
            reporter.epoch(cell.cell_id, report)
    except Cancelled:
        return Outcome("cancelled", time.monotonic() - began)
    except MemoryError as error:
        kind = FailureClass.OOM
        return Outcome("failed", 0.1, Failure(cell.cell_id, cell.label, kind, attempt, str(error), "", utc_now()))
    workspace.paths.cell(cell.cell_id).mkdir(parents=True, exist_ok=True)
    _log(workspace, f"done {cell.cell_id} {attempt} {epochs} {os.getpid()}")
    return Outcome("done", time.monotonic() - began)


def fragile(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """The real trial; the first try of seed 1 kills its process after epoch 3, with a checkpoint of epoch 2."""
    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.platform.training.train import CHECKPOINT_SECONDS

    class Fragile:
        def epoch(self, cell_id: str, report: EpochReport) -> None:
            reporter.epoch(cell_id, report)
            if (cell.seed, attempt) == (1, 1):
                time.sleep({1: 1.1 * CHECKPOINT_SECONDS, 3: 0.5}.get(report.epoch, 0))
                if report.epoch == 3:
                    os.kill(os.getpid(), signal.SIGKILL)

    _log(workspace, f"start {cell.cell_id} {attempt} 0 {os.getpid()}")
    return attempt_cell(cell, workspace, reporter=Fragile(), attempt=attempt, device=device)


def _trouble(trouble: str, cell: Cell, attempt: int) -> None:
    if trouble == "kills" or (trouble == "kills once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "segfaults":
        faulthandler._sigsegv()
    if trouble == "quits once" and attempt == 1:
        os._exit(7)
    if trouble == "needs a GPU alone" and ray_share() < 1:
        raise MemoryError("CUDA out of memory")
    if trouble == "oom" or (trouble == "oom once" and attempt == 1):
        raise MemoryError(f"too large: seed {cell.seed}")
    if trouble == "eats once" and attempt == 1:
        eaten = b"x" * (int(cell.params["gib"]) * 2**30)
        time.sleep(600 if eaten else 0)
    if trouble == "hangs once" and attempt == 1:
        time.sleep(600)
    if trouble == "bug":
        raise ZeroDivisionError("a bug in the trial")


def ray_share() -> float:
    """Of a GPU, as Ray gave it to this worker."""
    import ray

    return ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)


def _log(workspace: Workspace, line: str) -> None:
    path: Path = workspace.root / "trials.log"
    with path.open("a") as file:
        file.write(line + "\n")
