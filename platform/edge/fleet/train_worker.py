"""What each Ray Train worker runs."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from crossfold.platform.edge.fleet.cluster import NAMESPACE
from crossfold.platform.edge.fleet.queue_actor import RayLink
from crossfold.platform.scheduling.worker import work
from crossfold.platform.workspace.workspace import Workspace


def train_worker(config: dict[str, Any]) -> None:
    """The loop of one Ray Train worker. Never calls `ray.train.report`, which would hold up all ranks."""
    import ray
    import ray.train
    import ray.train.torch

    device = config["device"] or (str(ray.train.torch.get_device()) if config["use_gpu"] else "cpu")
    link = RayLink(ray.get_actor(config["queue"], namespace=NAMESPACE))
    rank = ray.train.get_context().get_world_rank()
    workspace = Workspace.at(config["workspace"])
    work(
        link,
        config["trial"],
        workspace,
        rank=rank,
        device=device,
        threads=config["threads"],
        plugins=[Path(plugin) for plugin in config["plugins"]],
        end_process=_kill_this_worker,
        world=ray.train.get_context().get_world_size(),
        own_process=True,
    )
    workspace.settle()


def _kill_this_worker(why: str) -> None:
    """Ray Train starts another in its place; nothing gentler ends a thread that hangs in native code."""
    sys.stderr.write(f"{why}: this worker ends itself\n")
    os.kill(os.getpid(), signal.SIGKILL)
