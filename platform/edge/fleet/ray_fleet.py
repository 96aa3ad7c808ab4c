"""The fleet: one long-lived Ray Train worker group that works off a queue of cells (architecture, section 3).

A fit per cell would cost 8 to 20 seconds each; a group that pulls cells costs its start once (engine.md, section 3).
Ray is imported when a fleet starts, so that planning and listing stay fast.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
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
    remove_placement_groups,
    train_storage,
)
from crossfold.platform.edge.fleet.queue_client import DriverQueue
from crossfold.platform.edge.fleet.train_worker import train_worker
from crossfold.platform.edge.fleet.worker_group import Causes, WorkerGroup
from crossfold.platform.scheduling.cell_queue import HANG_SECONDS, Event
from crossfold.platform.scheduling.gpu_sharing import Sharing
from crossfold.platform.scheduling.worker import CellRunner
from crossfold.platform.workspace.driver_lease import Lease, driver_lock, hold_lease
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
        trial: str | CellRunner = TRIAL,
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
        hold_lease(self._lease)
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
        remove_placement_groups(self._resources)

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
