"""A worker of the fleet: takes cells from the queue, runs them, says how they ended."""

import contextlib
import faulthandler
import importlib
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.scheduling.links import Link, QueueLost
from crossfold.platform.scheduling.worker_log import log_path
from crossfold.platform.workspace.workspace import Workspace

BEAT_SECONDS = 1.0
"""Between two signs of life of a running cell; also how late a cancellation may be noticed."""


class CellRunner(Protocol):
    """Runs one cell and commits it to the workspace; never raises for trouble of the cell."""

    def __call__(
        self, cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu"
    ) -> Outcome: ...


EndProcess = Callable[[str], None]
"""Ends this process, or does what comes closest."""


def find_trial(trial: str | CellRunner) -> CellRunner:
    """The trial itself, or the function named `package.module:function`."""
    if not isinstance(trial, str):
        return trial
    module, _, name = trial.partition(":")
    found: CellRunner = getattr(importlib.import_module(module), name)
    return found


class Heartbeat:
    """One running try as the queue sees it: beats from a thread, epochs from the trial, and the wish to stop it."""

    def __init__(self, link: Link, cell_id: str, attempt: int, end_process: EndProcess) -> None:
        """Nothing is sent before `beating`. `end_process`: what to do if the trial hangs, with the reason."""
        self._link = link
        self._end_process = end_process
        self._cell_id = cell_id
        self._attempt = attempt
        self._unwanted = threading.Event()
        self._over = threading.Event()

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        """Forwards the epoch; raises `Cancelled` if the queue wants this try to stop, or is gone."""
        try:
            verdict = self._link.epoch(cell_id, self._attempt, _with_memory(report))
        except QueueLost:
            verdict = "cancel"
        if verdict != "go" or self._unwanted.is_set():
            raise Cancelled(f"cell {cell_id} was stopped after epoch {report.epoch}")

    @contextlib.contextmanager
    def beating(self, seconds: float = BEAT_SECONDS) -> Iterator[None]:
        """Signs of life while the block runs, so that a long epoch is not taken for a dead worker."""
        thread = threading.Thread(target=self._beat, args=(seconds,), name=f"beat-{self._cell_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            try:
                verdict = self._link.beat(self._cell_id, self._attempt)
            except QueueLost:
                verdict = "cancel"
            if verdict == "go":
                continue
            self._unwanted.set()
            # One that only seemed to hang ends by itself at its next epoch; a thread cannot be stopped from outside.
            if verdict == "die" and not self._over.wait(seconds):
                self._end_process(f"cell {self._cell_id} hangs")
            return


def work(
    link: Link,
    trial: str | CellRunner,
    workspace: Workspace,
    *,
    rank: int,
    device: str = "cpu",
    threads: int = 1,
    plugins: Sequence[Path] = (),
    end_process: EndProcess | None = None,
    world: int | None = None,
    own_process: bool = False,
) -> int:
    """Runs cells until the queue has no more; returns how many. Ends quietly when the queue is gone.

    `threads`: torch threads of the calling thread, in which the cells run.
    `world`: how many workers this one's group has.
    `own_process`: nobody else's: its standard error goes to the log of the running cell, for the case that it dies.
    `end_process`: called when a cell hangs; by default the driver is told that this worker is lost.
    """
    count = 0
    with contextlib.suppress(QueueLost):
        try:
            for plugin in plugins:
                load_plugin(plugin)
            run = find_trial(trial)
            _limit_torch(threads)
        except Exception:
            # Each restart of the group would fail alike, for ever; the driver must end it.
            link.refuse(rank, f"cannot load {trial!r} and plugins {plugins!r}:\n{traceback.format_exc()}")
            return count
        generation = uuid.uuid4().hex
        link.register(rank, generation, world)
        end_process = end_process or partial(link.refuse, rank)
        answer = link.take(rank, generation)
        while answer != "leave":
            if answer == "wait":
                answer = link.take(rank, generation)
                continue
            cell = Cell.model_validate_json(answer.cell)
            outcome, recorded = _run(link, run, workspace, cell, answer.attempt, device, end_process, own_process)
            count += 1
            if outcome.failure is None:
                answer = link.finish_and_take(rank, generation, cell.cell_id, answer.attempt, outcome)
                continue
            link.finish(cell.cell_id, answer.attempt, outcome, recorded=recorded)
            if not _computes(device):
                end_process(f"cell {cell.cell_id} left {device} unusable")
            answer = link.take(rank, generation)
    return count


def _limit_torch(threads: int) -> None:
    # Always set: a process that Ray reuses keeps the count of its first torch import, and sums depend on it.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _with_memory(report: EpochReport) -> EpochReport:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return report
    return report.model_copy(update={"gpu_bytes": torch.cuda.max_memory_reserved()})


def _run(
    link: Link,
    trial: CellRunner,
    workspace: Workspace,
    cell: Cell,
    attempt: int,
    device: str,
    end_process: EndProcess,
    own_process: bool,
) -> tuple[Outcome, bool]:
    """How a try ended, and whether its failure lies in the ledger already."""
    pulse = Heartbeat(link, cell.cell_id, attempt, end_process)
    began = time.monotonic()
    heard = _heard_in(log_path(workspace, cell.cell_id)) if own_process else contextlib.nullcontext()
    with pulse.beating(), heard:
        try:
            return trial(cell, workspace, reporter=pulse, attempt=attempt, device=device), True
        except Cancelled:
            return Outcome("cancelled", time.monotonic() - began), True
        except Exception as error:
            return Outcome("failed", time.monotonic() - began, _unforeseen(cell, attempt, error)), False


def _computes(device: str) -> bool:
    """Whether this process can still use its device: after some errors of CUDA it never can again."""
    if not device.startswith("cuda"):
        return True
    import torch

    try:
        torch.ones(1, device=device).item()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def _unforeseen(cell: Cell, attempt: int, error: Exception) -> Failure:
    tail = traceback.format_exc()[-4000:]
    # Such as a disk so full that not even the failure could be written down.
    kind = FailureClass.INFRA if isinstance(error, OSError) else FailureClass.CODE
    message = f"the trial itself broke: {type(error).__name__}: {error}"
    return Failure(cell.cell_id, cell.label, kind, attempt, message, tail, utc_now())


@contextlib.contextmanager
def _heard_in(log: Path) -> Iterator[None]:
    """What this process writes to standard error goes to a file while the block runs, native stacks of a crash too."""
    with contextlib.ExitStack() as opened:
        # A disk that is full or away makes trouble enough elsewhere.
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(log.open("ab"))
            kept = os.dup(2)
            opened.callback(os.close, kept)
            opened.callback(os.dup2, kept, 2)
            os.dup2(file.fileno(), 2)
            # Ray puts handlers of its own in its place, and a second call alone would leave them.
            faulthandler.disable()
            faulthandler.enable(2, all_threads=False)
        yield
