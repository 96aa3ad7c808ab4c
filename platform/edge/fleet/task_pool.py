"""Clips of `prepare` as Ray tasks: one core each, or a share of a GPU, on every node of a cluster.

A task is idempotent, its result is a folder that appears whole or not at all, so Ray may run it again when a worker or
a node dies. Corpus, weights and workspace must lie on paths that every node sees; that is checked first.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.process_pool import Work
from crossfold.platform.edge.fleet.cluster import OBJECT_STORE_BYTES, OWN_CLUSTER_SETTINGS, RAY_SETTINGS

_AHEAD = 2
"""Tasks that wait for each one that runs."""


class RayWorkers:
    """Workers (`process_pool.py`) on a Ray cluster; `local` starts one of this machine. A context manager."""

    def __init__(self, address: str, paths: Sequence[Path], *, gpus: float = 0.0, processes: int | None = None) -> None:
        """`paths`: what every node must see. `gpus`: share of one that a task takes. `processes`: most at a time."""
        self._address = address
        self._paths = [str(path) for path in paths]
        self._gpus = gpus
        self._processes = processes
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> "RayWorkers":
        if "ray" not in sys.modules:
            own = {} if self._address != "local" else OWN_CLUSTER_SETTINGS
            settings = RAY_SETTINGS | own
            os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
        import ray

        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not ray.is_initialized():
            if self._address == "local":
                quiet |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
                quiet["num_cpus"] = self._processes or os.cpu_count()
            ray.init(address=self._address, **quiet)
            self._opened.callback(ray.shutdown)
        self._check_paths()
        return self

    def __exit__(self, *problem: object) -> None:
        self._opened.close()

    def __call__(self, work: Work, tasks: Sequence[Any]) -> Iterator[tuple[int, UserError | None]]:
        """As in `Workers`."""
        import ray

        asked: dict[str, Any] = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": 3}
        remote = ray.remote(work).options(**asked)
        slots = _AHEAD * self.slots() if self._processes is None else self._processes
        running: dict[Any, int] = {}
        waiting = iter(enumerate(tasks))
        try:
            while True:
                for index, task in waiting:
                    running[remote.remote(task)] = index
                    if len(running) >= slots:
                        break
                if not running:
                    return
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), ray.get(done)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def slots(self) -> int:
        """Tasks that the cluster runs at a time."""
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        slots = int(resources.get("CPU", 1))
        if self._gpus:
            slots = min(slots, int(resources.get("GPU", 0) / self._gpus))
        if slots < 1:
            raise UserError("the cluster has no GPU for these networks", "use --device cpu")
        return slots

    def _check_paths(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]  # type: ignore[no-untyped-call]
        look = ray.remote(_unseen)
        places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        asked = [look.options(num_cpus=0, scheduling_strategy=place).remote(self._paths) for place in places]
        for node, unseen in zip(nodes, ray.get(asked), strict=True):
            if unseen:
                raise UserError(
                    f"node {node['NodeManagerHostname']} does not see {', '.join(unseen)}",
                    "put the corpus, the weights and the workspace on a mount that all nodes share",
                )


def _unseen(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
