"""A worker of the fleet: takes cells from the queue, runs them, says how they ended."""

import contextlib
import importlib
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from crossfold.platform.contracts import Cell, EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.edge.cell_queue import Ticket
from crossfold.platform.edge.fleet_link import NAMESPACE, Link, QueueLost, RayLink
from crossfold.platform.errors import Cancelled
from crossfold.platform.registry import load_plugin
from crossfold.platform.results import Workspace, utc_now

BEAT_SECONDS = 1.0
"""Between two signs of life of a running cell; also how late a cancellation may be noticed."""


class Trial(Protocol):
    """Runs one cell and commits it to the workspace; never raises for trouble of the cell."""

    def __call__(
        self, cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu"
    ) -> Outcome: ...


def find_trial(trial: str | Trial) -> Trial:
    """The trial itself, or the function named `package.module:function`."""
    if not isinstance(trial, str):
        return trial
    module, _, name = trial.partition(":")
    found: Trial = getattr(importlib.import_module(module), name)
    return found


class Pulse:
    """One running try as the queue sees it: beats from a thread, epochs from the trial, and the wish to stop it."""

    def __init__(self, link: Link, cell_id: str, attempt: int) -> None:
        """Nothing is sent before `beating`."""
        self._link = link
        self._cell_id = cell_id
        self._attempt = attempt
        self._unwanted = threading.Event()
        self._over = threading.Event()

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        """Forwards the epoch; raises `Cancelled` if the queue wants this try to stop, or is gone."""
        try:
            verdict = self._link.epoch(cell_id, self._attempt, report)
        except QueueLost:
            verdict = "cancel"
        if verdict == "cancel" or self._unwanted.is_set():
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
            if verdict == "cancel":
                self._unwanted.set()
                return


def work(
    link: Link,
    trial: str | Trial,
    workspace: Workspace,
    *,
    rank: int,
    device: str = "cpu",
    threads: int = 1,
    plugins: Sequence[Path] = (),
) -> int:
    """Runs cells until the queue has no more; returns how many. Ends quietly when the queue is gone.

    `threads`: torch threads of the calling thread, in which the cells run.
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
        link.register(rank, generation)
        while (answer := link.take(rank, generation)) != "leave":
            if isinstance(answer, Ticket):
                _run(link, run, workspace, answer, device)
                count += 1
    return count


def _limit_torch(threads: int) -> None:
    # Always set: a process that Ray reuses keeps the count of its first torch import, and sums depend on it.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _run(link: Link, trial: Trial, workspace: Workspace, ticket: Ticket, device: str) -> None:
    cell = Cell.model_validate_json(ticket.cell)
    pulse = Pulse(link, cell.cell_id, ticket.attempt)
    began, recorded = time.monotonic(), True
    with pulse.beating():
        try:
            outcome = trial(cell, workspace, reporter=pulse, attempt=ticket.attempt, device=device)
        except Cancelled:
            outcome = Outcome("cancelled", time.monotonic() - began)
        except Exception as error:
            recorded = False
            outcome = Outcome("failed", time.monotonic() - began, _unforeseen(cell, ticket.attempt, error))
    link.finish(cell.cell_id, ticket.attempt, outcome, recorded=recorded)


def _unforeseen(cell: Cell, attempt: int, error: Exception) -> Failure:
    tail = traceback.format_exc()[-4000:]
    message = f"the trial itself broke: {type(error).__name__}: {error}"
    return Failure(cell.cell_id, cell.label, FailureClass.CODE, attempt, message, tail, utc_now())


def train_worker(config: dict[str, Any]) -> None:
    """The loop of one Ray Train worker. Never calls `ray.train.report`, which would hold up all ranks."""
    import ray
    import ray.train
    import ray.train.torch

    device = str(ray.train.torch.get_device()) if config["use_gpu"] else "cpu"
    link = RayLink(ray.get_actor(config["queue"], namespace=NAMESPACE))
    rank = ray.train.get_context().get_world_rank()
    work(
        link,
        config["trial"],
        Workspace(Path(config["workspace"])),
        rank=rank,
        device=device,
        threads=config["threads"],
        plugins=[Path(plugin) for plugin in config["plugins"]],
    )
