"""The fleet: one long-lived Ray Train worker group that works off a queue of cells (architecture, section 3).

A fit per cell would cost 8 to 20 seconds each; a group that pulls cells costs its start once (engine.md, section 3).
Ray is imported when a fleet starts, so that planning and listing stay fast.
"""

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfold.platform.contracts import Cell
from crossfold.platform.edge.cell_queue import Event
from crossfold.platform.edge.fleet_link import NAMESPACE, QueueActor
from crossfold.platform.edge.fleet_worker import Trial, train_worker
from crossfold.platform.edge.local_fleet import FleetError, LocalFleet, driver_lock, interruptions
from crossfold.platform.edge.progress import Monitor, Progress, SilentView, View
from crossfold.platform.errors import UserError
from crossfold.platform.results import Workspace
from crossfold.platform.tracking import NullTracker, Tracker

__all__ = ["Fleet", "FleetError", "FleetSummary", "LocalFleet", "run_cells"]

TRIAL = "crossfold.platform.trial:attempt_cell"

OBJECT_STORE_BYTES = 150 * 2**20
"""For our own cluster. Features are mapped from files, so Ray's store only carries messages."""

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray reports dead workers on the driver's standard output, which belongs to our own view or to JSON.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Read by Ray when it is imported; what a user has set stays."""

OWN_CLUSTER_SETTINGS = {
    # Reached from this machine only; a token would be written into the user's home.
    "RAY_AUTH_MODE": "disabled",
    # Under `uv run`, Ray would otherwise start every worker through uv, which resolves the project anew.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@dataclass(frozen=True)
class FleetSummary:
    """How a launch went."""

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    interrupted: bool = False
    """Stopped by a signal; the same command continues."""
    workers: int = 0
    wall_seconds: float = 0.0
    startup_seconds: float = 0.0
    """Until the first worker took a cell."""
    cell_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each finished cell, by identity."""

    @property
    def overhead_seconds(self) -> float:
        """Wall time beyond that of workers which train all the time; start-up and shutdown included."""
        return self.wall_seconds - sum(self.cell_seconds.values()) / max(self.workers, 1)


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
        use_gpu: bool = False,
        gpu_fraction: float = 1.0,
        threads_per_worker: int = 1,
        trial: str | Trial = TRIAL,
        plugins: Sequence[Path] = (),
        lease_seconds: float = 60.0,
        max_attempts: int = 3,
        patience_seconds: float = 180.0,
    ) -> None:
        """`workers`: by default one a core, or one a share of a GPU; never more than `at_most`.

        `plugins`: files that register systems, read by each worker as well.
        `address`: a running cluster; by default that of the Ray job this process is part of, else a cluster of our own.
        `patience_seconds`: without a sign of any worker for so long, the fleet gives up.
        """
        if workers is not None and workers < 1:
            raise UserError(f"a fleet of {workers} workers cannot work", "give at least 1")
        self.queue_name = f"cells-{uuid.uuid4().hex[:8]}"
        self.workers = workers or 0
        """Known when the fleet was entered."""
        self._at_most = at_most
        self._workspace = workspace
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._use_gpu = use_gpu
        self._resources = {"CPU": float(threads_per_worker)} | ({"GPU": gpu_fraction} if use_gpu else {})
        self._threads = threads_per_worker
        self._trial = trial
        self._plugins = [str(plugin.resolve()) for plugin in plugins]
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._patience = patience_seconds
        self._closing = contextlib.ExitStack()
        self._hurried = False
        self._actor: Any = None
        self._fit_error: BaseException | None = None
        self._fit = threading.Thread(target=self._run_fit, name="fleet-fit", daemon=True)

    def __enter__(self) -> "Fleet":
        with contextlib.ExitStack() as opened:
            opened.enter_context(driver_lock(self._workspace))
            self._start_ray(opened)
            self._start_queue()
            opened.callback(self._dismiss)
            self._fit.start()
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.close(hurried=error[0] is not None)

    def submit(self, cells: Sequence[Cell]) -> None:
        """Adds cells to the queue; those it knows are left alone."""
        self._ask("submit", [cell.model_dump_json() for cell in cells])

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """Cancels cells, by default all. Running ones stop at their next epoch."""
        self._ask("cancel", None if cell_ids is None else list(cell_ids))

    def drain(self) -> list[Event]:
        """What happened since the last call. Raises `FleetError` if no worker will ever work."""
        events: list[Event] = self._ask("drain_events")
        broken = next((event.failure for event in events if event.kind == "broken"), None)
        if broken is not None:
            raise FleetError(f"{broken.label}: {broken.message}")
        if not self._fit.is_alive():
            raise FleetError(f"the Ray Train worker group ended: {self._fit_error or 'without a reason'}")
        silence = float(self._ask("silence"))
        if silence > self._patience:
            raise FleetError(
                f"no worker was heard for {silence:.0f} s; {self.workers} x {self._resources} were asked of a cluster "
                f"that has {self._cluster_resources()}; Ray's logs tell more"
            )
        return events

    def close(self, *, hurried: bool = False) -> None:
        """Lets the workers leave and shuts down what this fleet started; `hurried` does not wait for them."""
        self._hurried = hurried
        self._closing.close()

    def _start_ray(self, opened: contextlib.ExitStack) -> None:
        if "ray" not in sys.modules:
            settings = RAY_SETTINGS if self._address else RAY_SETTINGS | OWN_CLUSTER_SETTINGS
            os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
        import ray

        for name in ("ray.train", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": NAMESPACE}
        if not ray.is_initialized():
            opened.callback(ray.shutdown)
            if self._address:
                ray.init(address=self._address, **quiet)
            else:
                self.workers = self._limited(self.workers or default_workers(self._resources))
                ray.init(address="local", include_dashboard=False, **self._own_cluster(), **quiet)
        self.workers = self._limited(self.workers or _fitting(self._cluster_resources(), self._resources))

    def _limited(self, workers: int) -> int:
        return min(workers, self._at_most or workers)

    def _own_cluster(self) -> dict[str, Any]:
        # One core beyond the workers' is only a number to Ray; the thin trials of a search live on it.
        return {"num_cpus": self.workers * self._threads + 1, "object_store_memory": OBJECT_STORE_BYTES}

    def _cluster_resources(self) -> dict[str, float]:
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return {key: value for key, value in resources.items() if key in ("CPU", "GPU")}

    def _start_queue(self) -> None:
        import ray

        # Not detached: the queue dies with the driver, and the workers leave when they notice.
        actor = ray.remote(QueueActor).options(name=self.queue_name, namespace=NAMESPACE, num_cpus=0)
        self._actor = actor.remote(self._lease_seconds, self._max_attempts)

    def _run_fit(self) -> None:
        try:
            self._trainer().fit()
        except BaseException as error:
            self._fit_error = error

    def _trainer(self) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        return TorchTrainer(
            train_worker,
            train_loop_config={
                "queue": self.queue_name,
                "workspace": str(self._workspace.root),
                "trial": self._trial,
                "plugins": self._plugins,
                "threads": self._threads,
                "use_gpu": self._use_gpu,
            },
            # The workers never speak to each other; gloo, unlike nccl, lets several share a GPU.
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=self.workers, use_gpu=self._use_gpu, resources_per_worker=self._resources
            ),
            run_config=RunConfig(
                name=self.queue_name,
                storage_path=str(self._storage.parent),
                # The queue decides when a cell that kills workers is given up.
                failure_config=FailureConfig(max_failures=-1),
            ),
        )

    def _dismiss(self) -> None:
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            self._actor.cancel.remote()
            ray.get(self._actor.close.remote(), timeout=5)
            self._fit.join(0 if self._hurried else 30)
        with contextlib.suppress(RayError):
            ray.kill(self._actor)
        shutil.rmtree(self._storage, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._storage.parent.rmdir()

    @property
    def _storage(self) -> Path:
        """Where Ray Train keeps its notes on the group; nothing that outlives the launch."""
        return self._workspace.root / "fleet" / self.queue_name

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import RayActorError

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except RayActorError as error:
            reason = str(error).splitlines()[0]
            raise FleetError(f"the cell queue died ({reason}); run the same command again to continue") from error


def run_cells(
    cells: Sequence[Cell],
    workspace: Workspace,
    tracker: Tracker | None = None,
    *,
    sweep: str = "cells",
    workers: int | None = None,
    address: str | None = None,
    use_gpu: bool = False,
    gpu_fraction: float = 1.0,
    threads_per_worker: int = 1,
    trial: str | Trial = TRIAL,
    plugins: Sequence[Path] = (),
    view: View | None = None,
) -> FleetSummary:
    """Runs cells to their ends. The caller leaves out finished ones, and launches and closes the tracker.

    `workers=0` runs them in this process, without Ray. One Ctrl-C (or SIGTERM) lets each running cell end its epoch,
    a second one stops at once; either way the same call continues later. Raises `FleetError` if the fleet breaks.
    """
    if not cells:
        return FleetSummary()
    fleet: Fleet | LocalFleet
    if workers == 0:
        fleet = LocalFleet(workspace, trial=trial, threads=threads_per_worker)
    else:
        fleet = Fleet(
            workspace,
            workers=workers,
            at_most=len(cells),
            address=address,
            use_gpu=use_gpu,
            gpu_fraction=gpu_fraction,
            threads_per_worker=threads_per_worker,
            trial=trial,
            plugins=plugins,
        )
    view = view or SilentView()
    began = time.monotonic()
    monitor = Monitor(sweep, workspace, tracker or NullTracker(), view, cells=cells)
    with interruptions() as interrupted, view.showing(monitor.progress):
        try:
            with fleet:
                monitor.progress.workers = fleet.workers
                _drive(fleet, cells, monitor, interrupted, view)
        finally:
            monitor.write_status()
    return _summary(monitor.progress, fleet.workers, began, interrupted=interrupted.is_set())


def default_workers(resources: Mapping[str, float]) -> int:
    """How many workers this machine carries: one a core, or one a share of a GPU, unless cores are fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    available = {"CPU": float(cores)}
    if "GPU" in resources:
        import torch

        available["GPU"] = float(torch.cuda.device_count())
    return _fitting(available, resources)


def _fitting(available: Mapping[str, float], resources: Mapping[str, float]) -> int:
    fitting = int(min(available.get(name, 0.0) / share for name, share in resources.items() if share > 0))
    if fitting < 1:
        raise UserError(
            f"a worker needs {dict(resources)}, and there is {dict(available)}",
            "ask for fewer threads, or run without GPU",
        )
    return fitting


def _drive(
    fleet: Fleet | LocalFleet,
    cells: Sequence[Cell],
    monitor: Monitor,
    interrupted: threading.Event,
    view: View,
) -> None:
    fleet.submit(cells)
    stopping = False
    while True:
        monitor.feed(fleet.drain())
        if not monitor.progress.left:
            return
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
        cell_seconds=dict(progress.seconds),
    )
