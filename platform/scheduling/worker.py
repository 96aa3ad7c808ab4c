"""A worker: takes cells from the queue, runs them, and reports how they ended."""

import contextlib
import faulthandler
import importlib
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.fleet_options import CellRunner, FleetOptions
from crossfold.platform.scheduling.worker_log import TAIL
from crossfold.platform.workspace.workspace import Workspace

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats of a running cell; also how late a cancellation may be noticed."""
IDLE_SECONDS = 0.1
"""A worker without work asks again after so long, or later in a large group, which asks 1,000 times a second."""


class QueueLost(ConnectionError):
    """The queue has ended, and with it the driver: the worker stops without a result and without a failure."""


EndProcess = Callable[[str], None]
"""Ends this process, for a reason."""


class Heartbeat:
    """One attempt as the queue sees it: heartbeats from a thread, epochs from the cell, and the wish to stop it."""

    def __init__(self, queue: CellQueue, cell_id: str, attempt: int, end_process: EndProcess) -> None:
        """Nothing is sent before `beating`. `end_process` is called if the attempt hangs."""
        self._queue = queue
        self._cell_id = cell_id
        self._attempt = attempt
        self._end_process = end_process
        self._stop = threading.Event()
        self._over = threading.Event()

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        """Forwards the epoch; raises `Cancelled` if the queue wants this attempt to stop, or is gone."""
        try:
            verdict = self._queue.epoch(cell_id, self._attempt, _with_memory(report))
        except QueueLost:
            verdict = "stop"
        if verdict != "continue" or self._stop.is_set():
            raise Cancelled(f"cell {cell_id} was stopped after epoch {report.epoch}")

    @contextlib.contextmanager
    def beating(self, seconds: float = HEARTBEAT_SECONDS) -> Iterator[None]:
        """Sends heartbeats while the block runs, so that a long epoch is not taken for a dead worker."""
        thread = threading.Thread(target=self._beat, args=(seconds,), name=f"heartbeat-{self._cell_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            try:
                verdict = self._queue.heartbeat(self._cell_id, self._attempt)
            except QueueLost:
                verdict = "stop"
            if verdict == "continue":
                continue
            self._stop.set()
            # One that only seemed to hang ends by itself at its next epoch; a thread cannot be stopped from outside.
            if verdict == "kill" and not self._over.wait(seconds):
                self._end_process(f"cell {self._cell_id} hangs")
            return


def work(
    queue: CellQueue,
    workspace: Workspace,
    options: FleetOptions,
    *,
    rank: int,
    world: int | None = None,
    device: str = "cpu",
    end_process: EndProcess | None = None,
) -> int:
    """Runs cells until the queue has no more; returns how many. Ends quietly when the queue is gone.

    `world`: how many workers this one's group has.
    `end_process`: ends this process when a cell hangs, or leaves its device unusable. It then belongs to this worker
    alone, so its standard error goes to the log of the running cell. By default the driver learns that the worker is
    lost.
    """
    count = 0
    end = end_process or partial(queue.report_fatal, rank)
    with contextlib.suppress(QueueLost):
        try:
            for plugin in options.plugins:
                load_plugin(plugin)
            runner = _find_runner(options.runner)
            _limit_torch(options.threads)
        except Exception:
            # Every worker that starts in its place would fail in the same way.
            reason = f"cannot load {options.runner!r} and plugins {options.plugins!r}:\n{traceback.format_exc()}"
            queue.report_fatal(rank, reason)
            return count
        # Ranks are used again after a restart; this name says which process asks.
        generation = uuid.uuid4().hex
        queue.register(rank, generation, world)
        answer = queue.take(rank, generation)
        while answer != "leave":
            if answer == "wait":
                time.sleep(max(IDLE_SECONDS, (world or 1) / 1000))
                answer = queue.take(rank, generation)
                continue
            cell, attempt = Cell.model_validate_json(answer.cell), answer.attempt
            heartbeat = Heartbeat(queue, cell.cell_id, attempt, end)
            log = _standard_error_to(workspace.paths.log(cell.cell_id)) if end_process else contextlib.nullcontext()
            with heartbeat.beating(), log:
                outcome, recorded = _attempt(runner, cell, workspace, heartbeat, attempt, device)
            count += 1
            if outcome.failure is None:
                answer = queue.finish_and_take(rank, generation, cell.cell_id, attempt, outcome)
                continue
            queue.finish(cell.cell_id, attempt, outcome, recorded=recorded)
            if not _computes(device):
                end(f"cell {cell.cell_id} left {device} unusable")
            answer = queue.take(rank, generation)
    return count


def _find_runner(runner: str | CellRunner) -> CellRunner:
    """The runner itself, or the function named `package.module:function`."""
    if not isinstance(runner, str):
        return runner
    module, _, name = runner.partition(":")
    found: CellRunner = getattr(importlib.import_module(module), name)
    return found


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


def _attempt(
    runner: CellRunner, cell: Cell, workspace: Workspace, heartbeat: Heartbeat, attempt: int, device: str
) -> tuple[Outcome, bool]:
    """How an attempt ended, and whether the failure log has its failure already."""
    began = time.monotonic()
    try:
        return runner(cell, workspace, reporter=heartbeat, attempt=attempt, device=device), True
    except Cancelled:
        return Outcome("cancelled", time.monotonic() - began), True
    except Exception as error:
        # Such as a disk so full that not even the failure could be recorded.
        kind = FailureClass.INFRA if isinstance(error, OSError) else FailureClass.CODE
        message = f"the runner of the cell failed: {type(error).__name__}: {error}"
        tail = traceback.format_exc()[-TAIL:]
        failure = Failure(cell.cell_id, cell.label, kind, attempt, message, tail, utc_now())
        return Outcome("failed", time.monotonic() - began, failure), False


def _computes(device: str) -> bool:
    """Whether this process can still use its device: after some errors of CUDA it never can again."""
    if not device.startswith("cuda"):
        return True
    import torch

    try:
        torch.ones(1, device=device).item()
    except torch.OutOfMemoryError:
        # Other processes may have filled the GPU; that passes.
        return True
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def _standard_error_to(log: Path) -> Iterator[None]:
    """Sends standard error of this process to a file while the block runs, native stacks of a crash included."""
    with contextlib.ExitStack() as opened:
        # Without a log the cell still runs; a disk that is full shows itself elsewhere.
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(log.open("ab"))
            before = os.dup(2)
            opened.callback(os.close, before)
            opened.callback(os.dup2, before, 2)
            os.dup2(file.fileno(), 2)
            # Ray puts handlers of its own in its place, and a second call alone would leave them.
            faulthandler.disable()
            faulthandler.enable(2, all_threads=False)
        yield
