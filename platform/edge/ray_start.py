"""What Ray is told when it starts, and what it offers: settings, cores, how many workers fit."""

import os
from collections.abc import Mapping

from crossfold.platform.errors import UserError

OBJECT_STORE_BYTES = 150 * 2**20
"""For our own cluster. Features are mapped from files, so Ray's store only carries messages."""

MOST_WORKERS = 1024
"""Of one fleet; one queue actor serves them all."""

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray reports dead workers on the driver's standard output, which belongs to our own view or to JSON.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Until Ray knows that a node is lost, places on it are waited for in vain.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
"""Read by Ray when it is imported; what a user has set stays."""

OWN_CLUSTER_SETTINGS = {
    # Reached from this machine only; a token would be written into the user's home.
    "RAY_AUTH_MODE": "disabled",
    # Under `uv run`, Ray would otherwise start every worker through uv, which resolves the project anew.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cluster_resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster that this process is connected to."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {key: value for key, value in resources.items() if key in ("CPU", "GPU")}


def fitting_workers(available: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """How many workers that need `resources` each fit; raises `UserError` where not even one does."""
    # A hair more: two halves must fit into one.
    fitting = int(1e-6 + min(available.get(name, 0.0) / share for name, share in resources.items() if share > 0))
    if fitting < 1:
        raise UserError(
            f"a worker needs {dict(resources)}, and there is {dict(available)}",
            "ask for fewer threads, or run without GPU",
        )
    return fitting
