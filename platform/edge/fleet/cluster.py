"""What a Ray cluster offers: cores, GPUs, how many workers fit, where Ray Train may write."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.workspace import Workspace

MOST_WORKERS = 1024
"""Of one fleet; one queue actor serves them all."""


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
