"""The fleet: one long-lived Ray Train worker group that works off a queue of cells (architecture, section 3).

A fit per cell would cost 8 to 20 seconds each; a group that pulls cells costs its start once (engine.md, section 3).
Ray is imported when a fleet starts, so that planning and listing stay fast.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.edge.fleet.cluster import (
    MOST_WORKERS,
    ask_gpu_bytes,
    clear_train_storage,
    cluster_resources,
    connect,
    cores,
    fitting_workers,
    free_places,
    train_storage,
)
from crossfold.platform.edge.fleet.multi_device import WideTrial, ground_for
from crossfold.platform.edge.fleet.queue_client import DriverQueue
from crossfold.platform.edge.fleet.train_worker import train_worker
from crossfold.platform.edge.fleet.worker_group import Causes, WorkerGroup
from crossfold.platform.scheduling.cell_queue import HANG_SECONDS, Event
from crossfold.platform.scheduling.gpu_sharing import Sharing
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.scheduling.monitor import FleetSummary, Monitor, Progress, SilentView, View
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.scheduling.stop_signals import interruptions
from crossfold.platform.scheduling.tracker import NullTracker, Tracker
from crossfold.platform.scheduling.worker import Trial
from crossfold.platform.workspace.driver_lease import Lease, driver_lock, keep_driving
from crossfold.platform.workspace.workspace import Workspace

TRIAL = "crossfold.platform.execution.run_cell:attempt_cell"


class Fleet:
    """Ray Train workers that take cells until they are told to leave. Use as a context manager."""

    poll_seconds = 0.3
    """Between two looks of the driver at the queue."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        workers: int | None = None,
        at_most: int | None = None,
        address: str | None = None,
        use_gpu: bool | None = None,
        gpu_bytes: int | None = None,
        device: str | None = None,
        threads_per_worker: int = 1,
        trial: str | Trial = TRIAL,
        plugins: Sequence[Path] = (),
        lease_seconds: float = 60.0,
        max_attempts: int = 3,
        patience_seconds: float = 180.0,
        resize_seconds: float = 30.0,
        hang_seconds: float = HANG_SECONDS,
        cells: Sequence[Cell] = (),
    ) -> None:
        """`workers`: by default one a core, or one a share of a GPU; never more than `at_most`.

        On a cluster that others started it is the most there will be: workers come and go with its nodes, looked at
        every `resize_seconds`. Without it, `at_most` is.
        `use_gpu`: by default, if there is one. `gpu_bytes`: memory of the smallest GPU; by default Ray asks one.
        `device`: of the cells; by default the GPU that Ray gave to the worker, or the CPU.
        `plugins`: files that register systems, read by each worker as well.
        `address`: a running cluster; by default that of the Ray job this process is part of, else a cluster of our own.
        `patience_seconds`: without a sign of any worker for so long, the fleet gives up.
        `lease_seconds`, `max_attempts`, `hang_seconds`: see `CellQueue`.
        `cells`: some that will be submitted; what is known of their memory sets the share of a GPU from the start.
        """
        if workers is not None and workers < 1:
            raise UserError(f"a fleet of {workers} workers cannot work", "give at least 1")
        self._queue = DriverQueue(workspace)
        self.queue_name = self._queue.name
        self.workers = workers or 0
        """Known when the fleet was entered."""
        self.present = 0
        """Workers that had registered when the queue was drained last."""
        self.dashboard = ""
        """Address of the dashboard of the cluster that was joined, without `http://`."""
        self._at_most = at_most
        self._cells = cells
        self._workspace = workspace
        self.address = address or os.environ.get("RAY_ADDRESS")
        self._use_gpu = use_gpu
        self._gpu_bytes = gpu_bytes
        self._device = device
        self._sharing: Sharing | None = None
        self._asked = workers
        self._resize_seconds = resize_seconds
        self._threads = threads_per_worker
        self._trial = trial
        self._plugins = [str(plugin.resolve()) for plugin in plugins]
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        # A cluster's nodes may take their time.
        self._patience = patience_seconds * (3 if self.address else 1)
        self._hang_seconds = hang_seconds
        self._closing = contextlib.ExitStack()
        self._hurried = False
        self._lease: Lease | None = None
        self._group = WorkerGroup(
            self._trainer,
            silence=self._queue.silence,
            lost=self._group_lost,
            ranks=lambda: self._most,
        )

    def __enter__(self) -> "Fleet":
        with contextlib.ExitStack() as opened:
            self._lease = opened.enter_context(driver_lock(self._workspace))
            self._start_ray(opened)
            self._queue.start(self._lease_seconds, self._max_attempts, self._hang_seconds)
            opened.callback(self._dismiss)
            self._group.start()
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.close(hurried=error[0] is not None)

    def submit(self, cells: Sequence[Cell], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """Adds cells to the queue, in order; those it knows are left alone. `epoch_seconds`: see `CellQueue.submit`."""
        if self._sharing is not None:
            self._sharing.expect(cells)
        self._queue.submit({cell.cell_id: cell.model_dump_json() for cell in cells}, epoch_seconds or {})

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """Cancels cells, by default all. Running ones stop at their next epoch."""
        self._queue.cancel(cell_ids)

    def drain(self) -> list[Event]:
        """What happened since the last call. Raises `FleetError` if no worker will ever work."""
        keep_driving(self._lease)
        news = self._queue.news()
        broken = next((event.failure for event in news.events if event.kind == "broken"), None)
        if broken is not None:
            raise FleetError(f"{broken.label}: {broken.message}")
        if self._sharing is not None and self._sharing.listen(news.events):
            self._regroup()
        if news.filled_again:
            self._group.begin_anew()
        if not self._group.alive:
            raise FleetError(f"the Ray Train worker group ended: {self._group.error or 'without a reason'}")
        self.present = news.workers
        if self.address and self.present:
            self.workers = self.present
        if news.silence > self._patience:
            raise FleetError(
                f"no worker was heard for {news.silence:.0f} s; {self.workers} x {self._resources} were asked of a "
                f"cluster that has {cluster_resources()}; Ray's logs tell more"
            )
        return news.events

    def close(self, *, hurried: bool = False) -> None:
        """Lets the workers leave and shuts down what this fleet started; `hurried` does not wait for them."""
        self._hurried = hurried
        self._closing.close()

    def _start_ray(self, opened: contextlib.ExitStack) -> None:
        # One core beyond the workers' is only a number to Ray; the thin trials of a search live on it.
        cpus = max(cores(), (self._asked or 0) * self._threads) + 1
        self.dashboard = connect(self.address, opened, cpus=cpus, gpus=0 if self._use_gpu is False else None)
        there = cluster_resources()
        if self._use_gpu is None:
            self._use_gpu = there.get("GPU", 0.0) >= 1.0
        if self._use_gpu:
            self._sharing = Sharing(self._gpu_bytes or ask_gpu_bytes(), self._workspace)
            opened.callback(self._sharing.keep)
            self._sharing.expect(self._cells)
            self._sharing.listen(())
        self.workers = self._affordable()

    @property
    def _resources(self) -> dict[str, float]:
        """Of each worker."""
        gpu = {"GPU": self._sharing.share.fraction} if self._sharing is not None else {}
        return {"CPU": float(self._threads)} | gpu

    def _affordable(self) -> int:
        """How many workers to have now: as asked, else as many as fit; never more than there are cells."""
        there = cluster_resources()
        if not self.address:
            there["CPU"] = min(there.get("CPU", 0.0), float(max(cores(), (self._asked or 0) * self._threads)))
        fitting = fitting_workers(there, self._resources)
        wanted = min(self._asked, fitting) if self._asked and (self.address or self._sharing) else self._asked
        return min(wanted or fitting, self._at_most or MOST_WORKERS)

    @property
    def _most(self) -> int:
        """How many workers the fleet may grow to as nodes join."""
        return max(self.workers, min(self._asked or MOST_WORKERS, self._at_most or MOST_WORKERS, MOST_WORKERS))

    def _regroup(self) -> None:
        """Gives workers another share of a GPU: what runs ends its epoch, keeps it, and goes on in a new group."""
        self.workers = self._affordable()
        self._group.begin_anew()
        self._queue.ask("regroup")

    def _group_lost(self, causes: Causes) -> None:
        self._queue.ask("died", causes)
        free_places(self._resources)

    def _trainer(self, number: int) -> Any:
        import ray.train
        from ray.train import FailureConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from crossfold.platform.edge.fleet.worker_failures import DeathNotes

        # Their types are those of an earlier Ray Train.
        library: Any = ray.train
        # On a cluster of others nodes come and go; on our own there is one.
        elastic = bool(self.address)
        return TorchTrainer(
            train_worker,
            train_loop_config={
                "queue": self.queue_name,
                "workspace": self._workspace.address,
                "trial": self._trial,
                "plugins": self._plugins,
                "threads": self._threads,
                "use_gpu": bool(self._use_gpu),
                "device": self._device,
            },
            # The workers never speak to each other; gloo, unlike nccl, lets several share a GPU.
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=library.ScalingConfig(
                num_workers=(1, self._most) if elastic else self.workers,
                elastic_resize_monitor_interval_s=self._resize_seconds,
                use_gpu=bool(self._use_gpu),
                resources_per_worker=self._resources,
            ),
            run_config=library.RunConfig(
                # A name of its own: Ray Train would take up the group that ended.
                name=f"group-{number}",
                **train_storage(self._workspace, self.queue_name, cluster=elastic),
                callbacks=[DeathNotes(self.queue_name)],
                # The queue decides when a cell that kills workers is given up.
                failure_config=FailureConfig(max_failures=-1),
            ),
        )

    def _dismiss(self) -> None:
        self._group.leave()
        self._queue.close()
        self._group.join(0 if self._hurried else 30)
        self._queue.kill()
        clear_train_storage(self._workspace, self.queue_name, cluster=bool(self.address))


def run_cells(
    cells: Sequence[Cell],
    workspace: Workspace,
    tracker: Tracker | None = None,
    *,
    sweep: str = "cells",
    workers: int | None = None,
    address: str | None = None,
    use_gpu: bool | None = None,
    device: str | None = None,
    threads_per_worker: int = 1,
    trial: str | Trial = TRIAL,
    plugins: Sequence[Path] = (),
    view: View | None = None,
    forecast: Forecast | None = None,
    stop_after: float | None = None,
    hang_seconds: float = HANG_SECONDS,
    finished: Callable[[Cell, float], None] | None = None,
) -> FleetSummary:
    """Runs cells to their ends. The caller leaves out finished ones, and launches and closes the tracker.

    `workers=0` runs them in this process, without Ray. One Ctrl-C (or SIGTERM) lets each running cell end its epoch,
    a second one stops at once; either way the same call continues later. Raises `FleetError` if the fleet breaks.

    forecast: decides the order of the cells once the number of workers is known; by default they go as given.
    stop_after: seconds after which no cell is launched any more and running ones end their epoch.
    hang_seconds: see `CellQueue`. finished: see `Monitor`.
    """
    if not cells:
        return FleetSummary()
    view, forecast = view or SilentView(), forecast or Forecast()
    wide = [cell for cell in cells if cell.recipe.devices > 1 and workers != 0]
    narrow = [cell for cell in cells if cell.recipe.devices == 1 or workers == 0]
    began, time_up = time.monotonic(), False
    monitor = Monitor(sweep, workspace, tracker or NullTracker(), view, cells=cells, finished=finished)
    local = partial(LocalFleet, workspace, threads=threads_per_worker, hang_seconds=hang_seconds)
    with interruptions() as interrupted, view.showing(monitor.progress), contextlib.ExitStack() as opened:
        turns: list[tuple[Fleet | LocalFleet, list[Cell]]] = []
        if wide:
            joined = address or os.environ.get("RAY_ADDRESS")
            ground = opened.enter_context(
                ground_for(wide, address=joined, workers=workers, use_gpu=use_gpu, threads=threads_per_worker)
            )
            group = WideTrial(use_gpu=ground.use_gpu, device=device, threads=threads_per_worker, plugins=plugins)
            turns.append((local(trial=group, workers=min(ground.groups, len(wide))), wide))
            _tell_dashboard(ground.dashboard, joined, view)
        if narrow:
            fleet = Fleet(
                workspace,
                workers=workers or None,
                at_most=len(narrow),
                address=address,
                use_gpu=use_gpu,
                device=device,
                threads_per_worker=threads_per_worker,
                trial=trial,
                plugins=plugins,
                hang_seconds=hang_seconds,
                cells=narrow,
            )
            # Never beside each other: a fleet holds all GPUs, and a group that waits for some of them holds others.
            first = 0 if not wide or forecast.before(narrow, wide) else 1
            turns.insert(first, (local(trial=trial) if workers == 0 else fleet, narrow))
        try:
            for crew, mine in turns:
                if time_up or interrupted.is_set():
                    monitor.feed(Event(kind, cell.cell_id) for cell in mine for kind in ("queued", "cancelled"))
                    continue
                with crew:
                    monitor.progress.workers = crew.workers
                    if isinstance(crew, Fleet) and not wide:
                        _tell_dashboard(crew.dashboard, crew.address, view)
                    ends = None if stop_after is None else began + stop_after
                    time_up = _drive(crew, mine, monitor, interrupted, view, forecast, ends)
        finally:
            monitor.write_status()
    most, _ = max(turns, key=lambda turn: len(turn[1]))
    summary = _summary(monitor.progress, most.workers, began, interrupted=interrupted.is_set())
    return replace(summary, time_up=time_up and not summary.interrupted)


def _tell_dashboard(dashboard: str, address: str | None, view: View) -> None:
    if dashboard:
        view.note(f"Ray dashboard: http://{dashboard}")
    elif not address:
        view.note("Ray: a cluster for this launch alone, without a dashboard; `ray start --head` and --address auto")


def _drive(
    fleet: Fleet | LocalFleet,
    cells: Sequence[Cell],
    monitor: Monitor,
    interrupted: threading.Event,
    view: View,
    forecast: Forecast,
    ends: float | None,
) -> bool:
    """Feeds the fleet and listens until every cell has ended; says whether the time was up before."""
    fleet.submit(forecast.in_turn(cells, fleet.workers), forecast.epoch_seconds(cells))
    stopping = time_up = False
    while True:
        monitor.feed(fleet.drain())
        monitor.progress.workers = fleet.workers
        if not monitor.progress.left:
            return time_up
        if ends is not None and time.monotonic() >= ends and not stopping:
            stopping = time_up = True
            view.note("the time is up: running cells end their epoch. The same command continues.")
            fleet.cancel()
        if interrupted.is_set() and not stopping:
            stopping = True
            view.note("stopping: running cells end their epoch; once more to stop at once. The same command continues.")
            fleet.cancel()
        # After the signal the event stays set, and waiting for it would spin.
        (time.sleep if stopping else interrupted.wait)(fleet.poll_seconds)


def _summary(progress: Progress, workers: int, began: float, *, interrupted: bool) -> FleetSummary:
    now = time.monotonic()
    return FleetSummary(
        done=progress.done,
        failed=progress.failed,
        cancelled=progress.cancelled,
        interrupted=interrupted,
        workers=workers,
        wall_seconds=now - began,
        startup_seconds=(progress.first_start or now) - began,
        steady_seconds=(progress.last_end or now) - (progress.first_start or now),
        cell_seconds=dict(progress.seconds),
    )
