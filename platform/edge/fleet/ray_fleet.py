"""The fleet on Ray: one long-lived Ray Train worker group that works off a queue of cells.

A fit per cell would cost 8 to 20 seconds each; a group that pulls cells pays for its start once. Ray is imported when a
fleet starts, so that planning and listing stay fast.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.edge.fleet.cluster import (
    MOST_WORKERS,
    ask_gpu_bytes,
    clear_train_storage,
    cluster_resources,
    cores,
    fitting_workers,
    remove_placement_groups,
    train_storage,
)
from crossfold.platform.edge.fleet.queue_client import DriverQueue, RayLink
from crossfold.platform.edge.fleet.ray_connection import NAMESPACE, connect, summary, use_settings
from crossfold.platform.edge.fleet.worker_group import WorkerGroup
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.events import Event, raise_fatal
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.gpu_sharing import Sharing, fraction_of
from crossfold.platform.scheduling.worker import work
from crossfold.platform.workspace.driver_lease import Lease, driver_lock
from crossfold.platform.workspace.workspace import Workspace

CLUSTER_PATIENCE = 3
"""On a cluster of others, workers may be silent for so many times as long as on our own."""
LEAVE_SECONDS = 30
"""How long workers that were dismissed may take to end."""


class Fleet:
    """Ray Train workers that take cells until they are dismissed. Use as a context manager."""

    poll_seconds = 0.3

    def __init__(self, workspace: Workspace, options: FleetOptions, *, cells: Sequence[Cell] = ()) -> None:
        """`cells`: those that will be submitted, where they are known: there are never more workers than cells, and
        what earlier launches measured of their memory sets the share of a GPU from the start.
        """
        if options.workers is not None and options.workers < 1:
            raise UserError(f"a fleet of {options.workers} workers cannot work", "give at least 1")
        self.workers = options.workers or 0
        self.present = 0
        """Workers that had registered when the queue was drained last."""
        self.note = ""
        """For people: which cluster the workers are on, whether it is protected, and its dashboard."""
        self._workspace = workspace
        self._options = options
        self._cells = cells
        self._most_workers = min(len(cells) or MOST_WORKERS, MOST_WORKERS)
        self._elastic = options.cluster is not None
        self._patience = options.patience_seconds * (CLUSTER_PATIENCE if self._elastic else 1)
        self._sharing: Sharing | None = None
        self._lease: Lease | None = None
        self._closing = contextlib.ExitStack()
        self._hurried = False
        self._queue = DriverQueue(workspace)
        self.queue_name = self._queue.name
        self._group = WorkerGroup(self._trainer, silence=self._queue.silence, lost=self._group_lost)

    def __enter__(self) -> "Fleet":
        with contextlib.ExitStack() as opened:
            self._lease = opened.enter_context(driver_lock(self._workspace))
            self._start_ray(opened)
            self._queue.start(self._options.limits)
            opened.callback(self._dismiss)
            self._group.start()
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        # After an error nothing is waited for.
        self._hurried = error[0] is not None
        self._closing.close()

    def submit(self, cells: Sequence[Cell], epoch_seconds: Mapping[str, float] | None = None) -> None:
        """See `WorkerPool`."""
        if self._sharing is not None:
            self._sharing.expect(cells)
        self._queue.submit({cell.cell_id: cell.model_dump_json() for cell in cells}, epoch_seconds or {})

    def cancel(self, cell_ids: Sequence[str] | None = None) -> None:
        """See `WorkerPool`."""
        self._queue.cancel(cell_ids)

    def abandon(self) -> None:
        """Ends the queue, after an error: other processes that wait for its cells learn that none will end."""
        self._queue.kill()

    def drain(self) -> list[Event]:
        """See `WorkerPool`."""
        if self._lease is not None:
            self._lease.check()
        news = self._queue.news()
        raise_fatal(news.events)
        if self._sharing is not None and self._sharing.observe(news.events):
            self._regroup()
        if news.refilled:
            self._group.begin_anew()
        if not self._group.alive:
            error = self._group.error
            reason = "without a reason" if error is None else summary(error)
            raise FleetError(f"the Ray Train worker group ended: {reason}") from error
        self.present = news.workers
        # While a group starts anew there is none for a moment; what was there last is the better guess.
        if self._elastic and self.present:
            self.workers = self.present
        if news.silence > self._patience:
            raise FleetError(
                f"no worker was heard for {news.silence:.0f} s; {self.workers} x {self._resources} were asked of a "
                f"cluster that has {cluster_resources()}; Ray's logs say more"
            )
        return news.events

    def _start_ray(self, opened: contextlib.ExitStack) -> None:
        # One core beyond the workers' is only a number to Ray; the thin trials of a search live on it.
        gpus = 0 if self._options.use_gpu is False else None
        use_settings(own_cluster=not self._elastic)
        # While Ray starts its processes, this one has nothing else to do.
        threading.Thread(target=_import_trainer, name="fleet-imports", daemon=True).start()
        self.note = connect(self._options.cluster, opened, cpus=self._own_cores + 1, gpus=gpus)
        if self._options.use_gpu is None:
            self._options = replace(self._options, use_gpu=cluster_resources().get("GPU", 0.0) >= 1.0)
        if self._options.use_gpu:
            self._sharing = Sharing(self._options.gpu_bytes or ask_gpu_bytes(), self._workspace)
            opened.callback(self._sharing.save)
            self._sharing.expect(self._cells)
            self._sharing.observe(())
        self.workers = self._affordable()

    @property
    def _own_cores(self) -> int:
        """Of a cluster of our own: those of this machine, or as many as the workers that were asked for need."""
        return max(cores(), (self._options.workers or 0) * self._options.threads)

    @property
    def _resources(self) -> dict[str, float]:
        """Of each worker."""
        gpu = {"GPU": fraction_of(self._sharing.k)} if self._sharing is not None else {}
        return {"CPU": float(self._options.threads)} | gpu

    def _affordable(self) -> int:
        """How many workers to have now: as asked, else as many as fit; never more than there are cells."""
        there, asked = cluster_resources(), self._options.workers
        if not self._elastic:
            # Without the core that exists only for the trials of a search.
            there["CPU"] = min(there.get("CPU", 0.0), float(self._own_cores))
        fitting = fitting_workers(there, self._resources)
        wanted = min(asked, fitting) if asked and (self._elastic or self._sharing) else asked
        return min(wanted or fitting, self._most_workers)

    @property
    def _most(self) -> int:
        """How many workers the fleet may grow to as nodes join."""
        return max(self.workers, min(self._options.workers or MOST_WORKERS, self._most_workers))

    def _regroup(self) -> None:
        """Gives workers another share of a GPU: what runs ends its epoch, keeps it, and goes on in a new group."""
        self.workers = self._affordable()
        self._group.begin_anew()
        self._queue.call("regroup")

    def _group_lost(self, error: Exception) -> None:
        from crossfold.platform.edge.fleet.worker_failures import ended_for_memory

        # If memory ran out, any of the cells may have taken it; otherwise none is to blame.
        ranks = range(self._most) if ended_for_memory(error) else ()
        why = "its worker group was ended while it ran this cell: the machine ran out of memory"
        self._queue.call("workers_died", dict.fromkeys(ranks, (FailureClass.OOM, why)))
        remove_placement_groups(self._resources)

    def _trainer(self, number: int) -> Any:
        import ray.train
        from ray.train import FailureConfig

        from crossfold.platform.edge.fleet.group_trainer import GroupTrainer
        from crossfold.platform.edge.fleet.worker_failures import WorkerFailureCallback

        # Their types are those of an earlier Ray Train.
        library: Any = ray.train
        return GroupTrainer(
            train_worker,
            own_cluster=not self._elastic,
            train_loop_config={
                "queue": self.queue_name,
                "workspace": self._workspace.address,
                "options": self._options,
            },
            scaling_config=library.ScalingConfig(
                # On a cluster of others nodes come and go; on our own there is one.
                num_workers=(1, self._most) if self._elastic else self.workers,
                elastic_resize_monitor_interval_s=self._options.resize_seconds,
                use_gpu=bool(self._options.use_gpu),
                resources_per_worker=self._resources,
            ),
            run_config=library.RunConfig(
                # A name of its own: Ray Train would take up the group that ended.
                name=f"group-{number}",
                **train_storage(self._workspace, self.queue_name, cluster=self._elastic),
                callbacks=[WorkerFailureCallback(self.queue_name)],
                # The queue decides when a cell that kills workers is given up.
                failure_config=FailureConfig(max_failures=-1),
            ),
        )

    def _dismiss(self) -> None:
        self._group.leave()
        self._queue.close()
        self._group.join(0 if self._hurried else LEAVE_SECONDS)
        self._queue.kill()
        clear_train_storage(self._workspace, self.queue_name, cluster=self._elastic)


def _import_trainer() -> None:
    """What `Fleet._trainer` needs; an error shows itself there."""
    with contextlib.suppress(Exception):
        importlib.import_module("crossfold.platform.edge.fleet.group_trainer")


def train_worker(config: dict[str, Any]) -> None:
    """The loop of one Ray Train worker. Never calls `ray.train.report`, which would hold up all ranks."""
    import ray
    import ray.train

    options: FleetOptions = config["options"]
    context = ray.train.get_context()
    workspace = Workspace.at(config["workspace"])
    device = options.device or (_own_gpu() if options.use_gpu else "cpu")
    work(
        cast(CellQueue, RayLink(ray.get_actor(config["queue"], namespace=NAMESPACE))),
        workspace,
        options,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=device,
        end_process=_kill_this_worker,
    )
    workspace.flush_uploads()


def _own_gpu() -> str:
    """The GPU of this worker, which torch then takes for "cuda"."""
    import ray.train.torch
    import torch

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return str(device)


def _kill_this_worker(why: str) -> None:
    """Ray Train starts another worker in its place; nothing gentler ends a thread that hangs in native code."""
    sys.stderr.write(f"{why}: this worker ends itself\n")
    os.kill(os.getpid(), signal.SIGKILL)
