"""Starting or joining a Ray cluster, and what it offers: settings, cores, how many workers fit."""

import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.workspace.workspace import Workspace

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
    # Until Ray knows that a node is lost, it waits for workers on it in vain.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
"""Read by Ray when it is imported; what a user has set stays."""

OWN_CLUSTER_SETTINGS = {
    # Reached from this machine only; a token would be written into the user's home.
    "RAY_AUTH_MODE": "disabled",
    # Under `uv run`, Ray would otherwise start every worker through uv, which resolves the project anew.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
"""For processes of a cluster of our own, which has no dashboard: an address at which nothing answers. Without one, Ray
Train's cleaner of placement groups looks for 40 seconds, and the end of a short launch waits for 12 of them. The
cleaner is not needed: such a cluster ends with its driver."""

STARTS = 3
"""How often a cluster of our own is started before a launch is given up."""
SLOW_NODE = "timed out during startup"
"""Part of Ray's error for a node that took too long."""
NAMESPACE = "crossfold"
"""Ray namespace of the queue actors."""


def connect(address: str | None, opened: contextlib.ExitStack, *, cpus: int, gpus: int | None = None) -> str:
    """Joins the cluster at `address`, or starts one of our own, until `opened` closes; returns its dashboard or "".

    Within a connection it does nothing. cpus, gpus: of a cluster of our own; None: the GPUs that Ray finds.
    """
    if "ray" not in sys.modules:
        use_settings(own_cluster=not address)
    import ray

    for name in ("ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        return ""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": NAMESPACE}
    opened.callback(ray.shutdown)
    if address:
        return ray.init(address=address, **quiet, **_weights_environment()).dashboard_url or ""
    own = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": OBJECT_STORE_BYTES}
    start(ray.init, ray.shutdown, own | quiet)
    return ""


def use_settings(*, own_cluster: bool, more: dict[str, str] | None = None) -> None:
    """Puts our settings into the environment, before Ray is imported. What the user has set stays."""
    settings = RAY_SETTINGS | (more or {}) | (OWN_CLUSTER_SETTINGS if own_cluster else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def start(init: Callable[..., Any], shutdown: Callable[[], Any], options: Mapping[str, Any]) -> None:
    """Starts a cluster of our own, again if Ray's limit of 30 s for its node was too short on a very busy machine.

    Raises `FleetError` when the last of `STARTS` fails as well.
    """
    for remaining in reversed(range(STARTS)):
        try:
            with environment(NO_DASHBOARD):
                init(address="local", include_dashboard=False, **options)
            return
        except Exception as error:
            # Ray raises no class of its own here.
            if SLOW_NODE not in str(error):
                raise
            shutdown()
            if not remaining:
                busy = f"Ray did not start in {STARTS} attempts: the machine is too busy, or short of memory"
                raise FleetError(f"{busy}; `--workers 0` runs without Ray") from error


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of the environment while the block runs, for this process and all that it starts."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _weights_environment() -> dict[str, Any]:
    """Passes `CROSSFOLD_WEIGHTS` to the workers of a cluster; Ray refuses a variable that its job has set already."""
    folder = os.environ.get("CROSSFOLD_WEIGHTS")
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    if folder is None or "CROSSFOLD_WEIGHTS" in (job.get("env_vars") or {}):
        return {}
    return {"runtime_env": {"env_vars": {"CROSSFOLD_WEIGHTS": folder}}}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_slots(nodes: Iterable[Mapping[str, float]], resources: Mapping[str, float]) -> int:
    """How many workers that need `resources` each fit on the nodes, each whole on one of them."""
    # A hair more: two halves must fit into one.
    return sum(
        int(1e-6 + min(node.get(name, 0.0) / share for name, share in resources.items() if share > 0)) for node in nodes
    )


def fitting_workers(available: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """How many workers that need `resources` each fit; raises `UserError` where not even one does."""
    fitting = count_slots([available], resources)
    if fitting < 1:
        raise UserError(
            f"a worker needs {dict(resources)}, and the cluster has {dict(available)}",
            "ask for fewer threads, or run without GPU",
        )
    return fitting


def ask_gpu_bytes() -> int:
    """Memory of one GPU of the cluster, asked by a Ray task; 0 where none answers."""
    import ray

    def total() -> int:
        import torch

        return min(
            (torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())), default=0
        )

    try:
        found: int = ray.get(ray.remote(total).options(num_gpus=0.01, num_cpus=0).remote(), timeout=60)
    except ray.exceptions.RayError:
        return 0
    return found


def remove_placement_groups(resources: Mapping[str, float]) -> int:
    """Frees what groups of this driver reserved for workers that need `resources` each; returns how many groups.

    A controller that dies leaves its reservation behind: Ray frees it when the driver ends, or by a process that needs
    a dashboard, and until then the next group would wait for slots that stay unused.
    """
    import ray
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    # The identity of a group ends with that of the job it belongs to.
    mine = ray.get_runtime_context().get_job_id()
    reserved = [
        name
        for name, group in placement_group_table().items()
        if name.endswith(mine)
        and group["state"] != "REMOVED"
        and [dict(bundle) for bundle in group["bundles"].values()] == [dict(resources)] * len(group["bundles"])
    ]
    for name in reserved:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
    return len(reserved)


def node_resources() -> list[dict[str, float]]:
    """CPUs and GPUs of each living node of the cluster that this process is connected to."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [_processors(node["Resources"]) for node in nodes if node["Alive"]]


def cluster_resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster that this process is connected to."""
    import ray

    return _processors(ray.cluster_resources())  # type: ignore[no-untyped-call]


def _processors(resources: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in resources.items() if key in ("CPU", "GPU")}


def train_storage(workspace: Workspace, name: str, *, cluster: bool) -> dict[str, Any]:
    """Options of `RunConfig`. A workspace at a URL has a folder on this machine only, so a cluster uses the URL."""
    if workspace.mirror is None or not cluster:
        return {"storage_path": str(workspace.paths.fleet / name)}
    import pyarrow.fs
    from fsspec.core import url_to_fs

    files, root = url_to_fs(workspace.mirror.files.url)
    arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files))
    return {"storage_filesystem": arrow, "storage_path": f"{root}/fleet/{name}"}


def clear_train_storage(workspace: Workspace, name: str, *, cluster: bool) -> None:
    """Removes it when the launch is over."""
    shutil.rmtree(workspace.paths.fleet / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        workspace.paths.fleet.rmdir()
    if workspace.mirror is not None and cluster:
        with contextlib.suppress(OSError):
            workspace.mirror.files.remove(f"fleet/{name}")
