"""A cell that needs several devices: a Ray Train worker group of its own, whose workers share each batch.

To the queue it is one cell that runs in the driver's process. The first worker writes its epochs into a file of the
workspace, which every machine of a launch reaches, and the driver passes them on; a stop travels the other way.
"""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled, UserError
from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.edge.fleet.cluster import cores, count_slots, node_resources
from crossfold.platform.edge.fleet.ray_connection import connect
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.worker_log import TAIL
from crossfold.platform.workspace.workspace import Workspace

POLL_SECONDS = 0.2

GPU_BACKEND = "cpu:gloo,cuda:nccl"
"""Sums of gradients go from GPU to GPU; other messages between the workers stay on their hosts."""

_OUTCOME = TypeAdapter(Outcome)


@dataclass(frozen=True)
class ClusterSlots:
    """What a cluster offers to the cells of a launch that need several devices."""

    use_gpu: bool
    groups: int
    """How many worker groups of the cell with the most devices fit at once."""
    note: str
    """For people: which cluster it is."""


def share_of(threads: int, use_gpu: bool) -> dict[str, float]:
    """What each worker of a group asks Ray for. A GPU is never shared here: nccl refuses two workers on one."""
    return {"CPU": float(threads)} | ({"GPU": 1.0} if use_gpu else {})


@contextlib.contextmanager
def reserve_cluster(cells: Sequence[Cell], options: FleetOptions) -> Iterator[ClusterSlots]:
    """Joins or starts Ray for a launch with these cells of several devices, and stays for all of it.

    Raises `UserError` where the cell with the most devices does not fit even alone.
    """
    widest = max(cells, key=lambda cell: cell.recipe.devices)
    devices, workers = widest.recipe.devices, options.workers
    with contextlib.ExitStack() as opened:
        cpus = max(cores(), max(workers or 0, devices) * options.threads) + 1
        note = connect(options.cluster, opened, cpus=cpus, gpus=0 if options.use_gpu is False else None)
        nodes = node_resources()
        gpus = int(sum(node.get("GPU", 0.0) for node in nodes))
        on_gpu = gpus > 0 if options.use_gpu is None else options.use_gpu
        share = share_of(options.threads, on_gpu)
        fitting = count_slots(nodes, share)
        if fitting < devices:
            has = f"{gpus} GPUs" if on_gpu else f"{sum(node.get('CPU', 0.0) for node in nodes):g} CPUs"
            raise UserError(
                f"{widest.label} shares each batch over {devices} devices (`devices` of its recipe); with {share} for "
                f"each of them {fitting} fit into a cluster with {has} on {len(nodes)} nodes",
                f"`--set devices={fitting}`, which makes other cells of them, or give a larger cluster with --address"
                if fitting
                else "give a cluster that has them with --address",
            )
        # The cores of a cluster of our own are only a number to Ray: there, one group after the other.
        at_once = min(fitting, max(workers, devices)) // devices if workers else fitting // devices
        yield ClusterSlots(on_gpu, at_once if on_gpu or options.cluster else 1, note)


class MultiDeviceRunner:
    """Runs a cell on `devices` workers of the connected cluster, and only then returns. What `attempt_cell` is to one
    process."""

    def __init__(self, options: FleetOptions, *, use_gpu: bool = False) -> None:
        """use_gpu: each worker has a GPU of its own."""
        self._options = options
        self._use_gpu = use_gpu

    def __call__(
        self, cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu"
    ) -> Outcome:
        """`device` is not read: each worker has its own. Raises `Cancelled` where the reporter wants a stop."""
        began = time.monotonic()
        folder = workspace.paths.fleet / f"multi-{cell.cell_id}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        errors: list[BaseException] = []
        try:
            trainer = self._trainer(cell, workspace, folder, attempt)
            fit = threading.Thread(target=_fit, args=(trainer, errors), name="multi-device-fit", daemon=True)
            fit.start()
            stopped = _relay(fit, folder, cell, reporter)
            outcomes = {path.stem: _OUTCOME.validate_json(path.read_bytes()) for path in folder.glob("rank-*.json")}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        first = outcomes.get("rank-0")
        if first is None:
            # What stopped one of the others says more than that the group ended.
            failures = [outcomes[rank].failure for rank in sorted(outcomes)]
            lost = next((failure for failure in failures if failure), _lost(cell, attempt, errors))
            workspace.record_failure(lost)
            return Outcome("failed", time.monotonic() - began, lost)
        if stopped and first.status == "cancelled":
            raise Cancelled(f"cell {cell.cell_id} was stopped")
        return Outcome(first.status, time.monotonic() - began, first.failure)

    def _trainer(self, cell: Cell, workspace: Workspace, folder: Path, attempt: int) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from crossfold.platform.edge.fleet.process_groups import NodeTorchConfig

        on_gpu = self._use_gpu and self._options.device != "cpu"
        return TorchTrainer(
            replica_loop,
            train_loop_config={
                "cell": cell.model_dump_json(),
                "workspace": workspace.address,
                "folder": str(folder),
                "attempt": attempt,
                "plugins": self._options.plugins,
                "threads": self._options.threads,
                "device": self._options.device or ("" if self._use_gpu else "cpu"),
            },
            torch_config=NodeTorchConfig(backend=GPU_BACKEND if on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=cell.recipe.devices,
                use_gpu=self._use_gpu,
                resources_per_worker=share_of(self._options.threads, self._use_gpu),
            ),
            # The queue decides whether an attempt that lost a worker is repeated.
            run_config=RunConfig(name="group", storage_path=str(folder), failure_config=FailureConfig(max_failures=0)),
        )


def replica_loop(config: dict[str, Any]) -> None:
    """The loop of one worker. Never calls `ray.train.report`, which would hold up all ranks."""
    import ray.train
    import ray.train.torch
    import torch

    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.platform.training.data_parallel import ProcessGroup

    for plugin in config["plugins"]:
        load_plugin(plugin)
    torch.set_num_threads(config["threads"])
    context, folder = ray.train.get_context(), Path(config["folder"])
    group = ProcessGroup(context.get_world_rank(), context.get_world_size())
    outcome = attempt_cell(
        Cell.model_validate_json(config["cell"]),
        Workspace.at(config["workspace"]),
        reporter=EpochFile(folder),
        attempt=config["attempt"],
        device=config["device"] or str(ray.train.torch.get_device()),
        group=group,
    )
    if group.first or outcome.failure is not None:
        write_json(folder / f"rank-{group.rank}.json", asdict(outcome))
    if outcome.failure is not None:
        # The others may wait for this one's part of a sum for ever; an error ends the whole group.
        raise RuntimeError(outcome.failure.message)


class EpochFile:
    """Epochs as lines of a file; raises `Cancelled` once a file `stop` lies next to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        """Adds a line."""
        with (self._folder / "epochs.jsonl").open("a") as file:
            file.write(report.model_dump_json() + "\n")
        if (self._folder / "stop").exists():
            raise Cancelled(f"cell {cell_id} was stopped after epoch {report.epoch}")


def _fit(trainer: Any, errors: list[BaseException]) -> None:
    try:
        trainer.fit()
    except BaseException as error:
        errors.append(error)


def _relay(fit: threading.Thread, folder: Path, cell: Cell, reporter: Reporter) -> bool:
    """Passes epochs on until the group has ended; returns whether the reporter wanted it to stop."""
    passed, stopped = 0, False
    while True:
        # Asked before the file is read, so that the last lines are not missed.
        over = not fit.is_alive()
        with contextlib.suppress(FileNotFoundError):
            lines = (folder / "epochs.jsonl").read_text().splitlines(keepends=True)
            # The last line may be only half written.
            for line in [line for line in lines[passed:] if line.endswith("\n")]:
                passed += 1
                try:
                    reporter.epoch(cell.cell_id, EpochReport.model_validate_json(line))
                except Cancelled:
                    stopped = True
                    (folder / "stop").touch()
        if over:
            return stopped
        fit.join(POLL_SECONDS)


def _lost(cell: Cell, attempt: int, errors: list[BaseException]) -> Failure:
    reason = str(errors[0]) if errors else "the worker group ended without a reason"
    message = f"the {cell.recipe.devices} workers of the cell were lost: {reason.splitlines()[0] if reason else ''}"
    return Failure(cell.cell_id, cell.label, FailureClass.INFRA, attempt, message, reason[-TAIL:], utc_now())
