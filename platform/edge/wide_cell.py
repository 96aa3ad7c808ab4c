"""A cell that needs several devices: a Ray Train worker group of its own, whose workers share each batch.

To the queue it is one trial in the driver's process. The first worker writes its epochs into a file of the workspace,
which every machine of a run reaches, and the driver passes them on; a stop travels the other way.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossfold.platform.contracts import Cell, EpochReport, Failure, FailureClass, Outcome, Reporter
from crossfold.platform.errors import Cancelled
from crossfold.platform.registry import load_plugin
from crossfold.platform.results import Workspace, utc_now

POLL_SECONDS = 0.2


class WideTrial:
    """Runs a cell on `devices` workers, and only then returns. What `attempt_cell` is to one process."""

    def __init__(
        self, *, address: str | None = None, use_gpu: bool = False, threads: int = 1, plugins: Sequence[Path] = ()
    ) -> None:
        """address: a running cluster; by default one of our own, for as long as the cell runs."""
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._use_gpu = use_gpu
        self._threads = threads
        self._plugins = [str(plugin.resolve()) for plugin in plugins]

    def __call__(
        self, cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu"
    ) -> Outcome:
        """`device` is not read: each worker has its own. Raises `Cancelled` where the reporter wants a stop."""
        began = time.monotonic()
        folder = workspace.root / "fleet" / f"wide-{cell.cell_id}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        errors: list[BaseException] = []
        with contextlib.ExitStack() as opened:
            opened.callback(shutil.rmtree, folder, ignore_errors=True)
            self._start_ray(cell.recipe.devices, opened)
            trainer = self._trainer(cell, workspace, folder, attempt)
            fit = threading.Thread(target=_fit, args=(trainer, errors), name="wide-fit", daemon=True)
            fit.start()
            wanted = _relay(fit, folder, cell, reporter)
            said = json.loads((folder / "outcome.json").read_text()) if (folder / "outcome.json").is_file() else None
        if said is None:
            lost = _lost(cell, attempt, errors)
            workspace.record_failure(lost)
            return Outcome("failed", time.monotonic() - began, lost)
        if not wanted and said["status"] == "cancelled":
            raise Cancelled(f"cell {cell.cell_id} was stopped")
        failure = (
            Failure(**said["failure"] | {"kind": FailureClass(said["failure"]["kind"])}) if said["failure"] else None
        )
        return Outcome(said["status"], time.monotonic() - began, failure)

    def _start_ray(self, devices: int, opened: contextlib.ExitStack) -> None:
        from crossfold.platform.edge.ray_start import OBJECT_STORE_BYTES, OWN_CLUSTER_SETTINGS, RAY_SETTINGS

        if "ray" not in sys.modules:
            settings = RAY_SETTINGS if self._address else RAY_SETTINGS | OWN_CLUSTER_SETTINGS
            os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
        import ray

        for name in ("ray.train", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if ray.is_initialized():
            return
        opened.callback(ray.shutdown)
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._address:
            ray.init(address=self._address, **quiet)
        else:
            cores = devices * self._threads + 1
            own: dict[str, Any] = {
                "num_cpus": cores,
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
            ray.init(address="local", **own, **quiet)

    def _trainer(self, cell: Cell, workspace: Workspace, folder: Path, attempt: int) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        share = {"CPU": float(self._threads)} | ({"GPU": 1.0} if self._use_gpu else {})
        return TorchTrainer(
            share_cell,
            train_loop_config={
                "cell": cell.model_dump_json(),
                "workspace": str(workspace.root),
                "folder": str(folder),
                "attempt": attempt,
                "plugins": self._plugins,
                "threads": self._threads,
                "use_gpu": self._use_gpu,
            },
            torch_config=TorchConfig(backend="nccl" if self._use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=cell.recipe.devices, use_gpu=self._use_gpu, resources_per_worker=share
            ),
            # The queue decides whether a try that lost a worker is worth another one.
            run_config=RunConfig(name="group", storage_path=str(folder), failure_config=FailureConfig(max_failures=0)),
        )


def share_cell(config: dict[str, Any]) -> None:
    """The loop of one worker. Never calls `ray.train.report`, which would hold up all ranks."""
    import ray.train
    import ray.train.torch
    import torch

    from crossfold.platform.replica import Replica
    from crossfold.platform.trial import attempt_cell

    for plugin in config["plugins"]:
        load_plugin(Path(plugin))
    torch.set_num_threads(config["threads"])
    context, folder = ray.train.get_context(), Path(config["folder"])
    replica = Replica(context.get_world_rank(), context.get_world_size())
    outcome = attempt_cell(
        Cell.model_validate_json(config["cell"]),
        Workspace(Path(config["workspace"])),
        reporter=EpochFile(folder),
        attempt=config["attempt"],
        device=str(ray.train.torch.get_device()) if config["use_gpu"] else "cpu",
        replica=replica,
    )
    if replica.first:
        beside = folder / "outcome.new"
        beside.write_text(json.dumps(asdict(outcome)))
        beside.replace(folder / "outcome.json")


class EpochFile:
    """Epochs as lines of a file; raises `Cancelled` once a file `stop` lies beside it."""

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
    """Passes epochs on until the group has ended; False once the reporter wanted it to stop."""
    passed, wanted = 0, True
    while True:
        over = not fit.is_alive()
        with contextlib.suppress(FileNotFoundError):
            lines = (folder / "epochs.jsonl").read_text().splitlines(keepends=True)
            for line in lines[passed:]:
                if not line.endswith("\n"):
                    break
                passed += 1
                try:
                    reporter.epoch(cell.cell_id, EpochReport.model_validate_json(line))
                except Cancelled:
                    wanted = False
                    (folder / "stop").touch()
        if over:
            return wanted
        fit.join(POLL_SECONDS)


def _lost(cell: Cell, attempt: int, errors: list[BaseException]) -> Failure:
    reason = str(errors[0]) if errors else "the worker group ended without a word"
    message = f"the {cell.recipe.devices} workers of the cell were lost: {reason.splitlines()[0] if reason else ''}"
    return Failure(cell.cell_id, cell.label, FailureClass.INFRA, attempt, message, reason[-4000:], utc_now())
