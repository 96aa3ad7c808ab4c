"""What each Ray Train worker runs."""

import os
import signal
import sys
from typing import Any

from crossfold.platform.edge.fleet.cluster import NAMESPACE
from crossfold.platform.edge.fleet.queue_client import RayLink
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.worker import work
from crossfold.platform.workspace.workspace import Workspace


def train_worker(config: dict[str, Any]) -> None:
    """The loop of one Ray Train worker. Never calls `ray.train.report`, which would hold up all ranks."""
    import ray
    import ray.train
    import ray.train.torch

    options: FleetOptions = config["options"]
    context = ray.train.get_context()
    workspace = Workspace.at(config["workspace"])
    work(
        RayLink(ray.get_actor(config["queue"], namespace=NAMESPACE)),
        workspace,
        options,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=options.device or (str(ray.train.torch.get_device()) if options.use_gpu else "cpu"),
        end_process=_kill_this_worker,
    )
    workspace.settle()


def _kill_this_worker(why: str) -> None:
    """Ray Train starts another worker in its place; nothing gentler ends a thread that hangs in native code."""
    sys.stderr.write(f"{why}: this worker ends itself\n")
    os.kill(os.getpid(), signal.SIGKILL)
