"""Clips of `prepare` as Ray tasks: one core each, or a share of a GPU, on every node of a cluster.

A task is idempotent, and its result is a folder that appears whole or not at all, so Ray may run it again when a worker
or a node dies. Corpus, weights and workspace must lie on paths that every node sees; that is checked first.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.process_pool import Work
from crossfold.platform.edge.fleet.cluster import cluster_resources, count_slots
from crossfold.platform.edge.fleet.ray_connection import connect

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
        with contextlib.ExitStack() as opened:
            address = None if self._address == "local" else self._address
            connect(address, opened, cpus=self._processes or os.cpu_count() or 1)
            self._check_paths()
            self._opened = opened.pop_all()
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
            # Whoever reads the results may stop before the last one.
            for reference in running:
                ray.cancel(reference, force=True)

    def slots(self) -> int:
        """Tasks that the cluster runs at a time."""
        slots = count_slots([{"CPU": 1.0} | cluster_resources()], {"CPU": 1.0, "GPU": self._gpus})
        if slots < 1:
            raise UserError("the cluster has no GPU for these networks", "use --device cpu")
        return slots

    def _check_paths(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]  # type: ignore[no-untyped-call]
        missing = ray.remote(_missing)
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        asked = [missing.options(num_cpus=0, scheduling_strategy=node).remote(self._paths) for node in there]
        for node, unseen in zip(nodes, ray.get(asked), strict=True):
            if unseen:
                raise UserError(
                    f"node {node['NodeManagerHostname']} does not see {', '.join(unseen)}",
                    "put the corpus, the weights and the workspace on a mount that all nodes share",
                )


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
