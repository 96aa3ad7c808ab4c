"""What workers do with a cell, instead of training it or around it: sleep, do harm on the way, end early.

Processes of Ray import this file by name, so it needs nothing of pytest, and torch only where a cell is trained.
`python -m tests.support.trials` is one of several processes that share a cell.
"""

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.workspace.workspace import Workspace

SLEEPY, FRAGILE, JUDGED, LASTING = (f"{__name__}:{name}" for name in ("sleepy", "fragile", "judged", "lasting"))
"""Their names, as a fleet looks them up."""


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
            whole = checkpoint.with_suffix(".new")
            whole.write_text(str(epoch))
            whole.replace(checkpoint)
            peak = int(cell.params.get("gib", 0)) * 2**30
            reporter.epoch(cell.cell_id, _report(cell, epoch, epochs, epoch / 100, gpu_bytes=peak))
    except Cancelled:
        return Outcome("cancelled", time.monotonic() - began)
    except MemoryError as error:
        return Outcome("failed", 0.1, _failure(cell, FailureClass.OOM, attempt, str(error)))
    workspace.paths.cell(cell.cell_id).mkdir(parents=True, exist_ok=True)
    _log(workspace, f"done {cell.cell_id} {attempt} {epochs} {os.getpid()}")
    return Outcome("done", time.monotonic() - began)


def lasting(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """Lasts exactly `seconds`, in two epochs; for clusters without devices."""
    began, seconds = time.monotonic(), float(cell.params["seconds"])
    for epoch in (1, 2):
        time.sleep(max(began + epoch * seconds / 2 - time.monotonic(), 0.0))
        reporter.epoch(cell.cell_id, _report(cell, epoch, 2, 0.1))
    return Outcome("done", time.monotonic() - began)


def judged(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """A few epochs, better the nearer `iterations` is to 3; `CROSSFOLD_TEST_FAIL` names those whose cells fail.

    `CROSSFOLD_TEST_EPOCH_SECONDS` is how long an epoch lasts, by default 0.1.
    """
    import pandas as pd

    from tests.support.factories import commit_untrained

    began, epochs, curve = time.monotonic(), cell.recipe.epochs, []
    with (workspace.root / "ran.log").open("a") as log:
        log.write(f"{cell.cell_id}\n")
    if os.environ.get("CROSSFOLD_TEST_FAIL") == str(cell.params["iterations"]):
        return Outcome("failed", 0.1, _failure(cell, FailureClass.DIVERGED, attempt, "diverged"))
    for epoch in range(1, epochs + 1):
        time.sleep(float(os.environ.get("CROSSFOLD_TEST_EPOCH_SECONDS", "0.1")))
        curve.append(epoch / 20 - abs(cell.params["iterations"] - 3) / 10)
        try:
            reporter.epoch(cell.cell_id, _report(cell, epoch, epochs, curve[-1]))
        except Cancelled:
            return Outcome("cancelled", time.monotonic() - began)
    columns = {"epoch": range(epochs), "train_loss": 1.0} | {f"ccc_{target}": curve for target in cell.targets}
    commit_untrained(workspace, cell, pd.DataFrame(columns), finished_at=utc_now(), train_seconds=0.1, seconds=0.1)
    return Outcome("done", time.monotonic() - began)


def fragile(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu") -> Outcome:
    """Trains. The first attempt of seed 1 kills its process after epoch 3, with a checkpoint of epoch 2."""
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


class RecordingTracker:
    """A tracker that keeps every call, in order."""

    def __init__(self) -> None:
        """Starts with an empty record: (call, cell id or sweep name, detail)."""
        self.calls: list[tuple[str, str, Any]] = []

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        self.calls.append(("launch", sweep, len(cells)))

    def started(self, cell: Cell, attempt: int) -> None:
        self.calls.append(("started", cell.cell_id, attempt))

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        self.calls.append(("epoch", cell.cell_id, report))

    def finished(self, cell: Cell) -> None:
        self.calls.append(("finished", cell.cell_id, None))

    def failed(self, cell: Cell, failure: Failure) -> None:
        self.calls.append(("failed", cell.cell_id, failure))

    def close(self) -> None:
        self.calls.append(("close", "", None))

    def calls_of(self, cell_id: str) -> list[str]:
        """The names of the calls about one cell."""
        return [call for call, name, _ in self.calls if name == cell_id]


class StopAfter:
    """A reporter that cancels the run when one of these epochs, counted from 1, has ended."""

    def __init__(self, *epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        if report.epoch in self.epochs:
            raise Cancelled(f"epoch {report.epoch}")


def bytes_of(workspace: Workspace, cell: Cell) -> dict[str, bytes]:
    """What a finished cell left and must leave again, however often it was stopped, by file."""
    names = [name for name in CELL_FILES if name != "env.json"]
    return {name: (workspace.paths.cell(cell.cell_id) / name).read_bytes() for name in names}


FATAL, HELD = ("concat", 1), ("jca", 3)
"""System and seed of the two cells that `install_gate` disturbs."""
GATE = "from tests.support.trials import install_gate\n\ninstall_gate()\n"
"""The plug-in that does it in the driver and in each worker: they look their runner up after plug-ins are loaded."""


class _Gated:
    """Passes epochs on, and does what is due after the second."""

    def __init__(self, cell: Cell, reporter: Reporter, folder: Path) -> None:
        self._kind, self._reporter, self._folder = (cell.system, cell.seed), reporter, folder

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        self._reporter.epoch(cell_id, report)
        if report.epoch != 2:
            return
        if self._kind == FATAL and not (self._folder / "killed").exists():
            (self._folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == HELD:
            (self._folder / "held").write_text(str(os.getpid()))
            while not (self._folder / "open").exists():
                time.sleep(0.05)


def install_gate() -> None:
    """Makes the real runner kill its worker in one cell, and hold another one at its second epoch.

    `CROSSFOLD_TEST_GATE` names a folder: `killed` is written before the worker ends itself, `held`, with the process,
    when the other cell waits; `open` lets it pass. So a test acts on what happened, however fast the machine is.
    """
    from crossfold.platform.execution import run_cell

    attempt_cell = run_cell.attempt_cell

    def gated(cell: Cell, workspace: Workspace, *, reporter: Reporter, **keywords: Any) -> Outcome:
        folder = Path(os.environ["CROSSFOLD_TEST_GATE"])
        return attempt_cell(cell, workspace, reporter=_Gated(cell, reporter, folder), **keywords)

    run_cell.attempt_cell = gated


def compute_in_double(patch: Callable[[Any, str, Any], object]) -> None:
    """Trains and scores in double precision from now on.

    `patch(object, name, value)` widens what is gathered from a store; weights follow torch's default type.
    """
    import torch

    from crossfold.datasets.batches.source import Batch, WindowSource

    gathered = WindowSource.batch

    def widened(source: WindowSource, chosen: Any) -> Batch:
        batch = gathered(source, chosen)
        x = {m: values.double() if values.is_floating_point() else values for m, values in batch.x.items()}
        return Batch(x=x, y=batch.y.double(), valid=batch.valid, real=batch.real)

    patch(WindowSource, "batch", widened)
    torch.set_default_dtype(torch.float64)


def share_cells(rank: str, world: str, meeting: str, workspace: str, *jobs: str) -> None:
    """One of `world` processes that share cells; prints how each attempt ended.

    A job: the file of a cell, and after which epoch each attempt is stopped, as in `cell.json:1,0`; 0 is never.
    """
    import torch.distributed as dist

    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.platform.training import train as training
    from crossfold.platform.training.data_parallel import ProcessGroup

    compute_in_double(setattr)
    training.CHECKPOINT_SECONDS, training.CHECKPOINT_PAUSE = -1.0, 0.0
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(world))
    group = ProcessGroup(int(rank), int(world))
    for job in jobs:
        path, _, stops = job.rpartition(":")
        cell = Cell.model_validate_json(Path(path).read_text())
        for stop in stops.split(","):
            outcome = attempt_cell(cell, Workspace(Path(workspace)), reporter=StopAfter(int(stop)), group=group)
            print(outcome.failure.message if outcome.failure else outcome.status)
    dist.destroy_process_group()


def trial_log(workspace: Workspace) -> list[list[str]]:
    """What the attempts of this workspace wrote down, a line each: start or done, cell, attempt, epoch, process."""
    path = workspace.root / "trials.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _trouble(trouble: str, cell: Cell, attempt: int) -> None:
    if trouble == "kills" or (trouble == "kills once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "segfaults":
        faulthandler._sigsegv()
    if trouble == "quits once" and attempt == 1:
        os._exit(7)
    if trouble == "needs a GPU alone" and _ray_share() < 1:
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


def _ray_share() -> float:
    """Of a GPU, as Ray gave it to this worker."""
    import ray

    return ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)


def _report(cell: Cell, epoch: int, epochs: int, ccc: float, **others: Any) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        epochs=epochs,
        learning_rate=0.1,
        train_loss=1 / epoch,
        ccc=dict.fromkeys(cell.targets, ccc),
        best_ccc=ccc,
        seconds=0.0,
        **others,
    )


def _failure(cell: Cell, kind: FailureClass, attempt: int, message: str) -> Failure:
    return Failure(cell.cell_id, cell.label, kind, attempt, message, "", utc_now())


def _log(workspace: Workspace, line: str) -> None:
    with (workspace.root / "trials.log").open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    share_cells(*sys.argv[1:])
