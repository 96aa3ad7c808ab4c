"""One trial of a search under Ray Tune: passes the objective of its configuration on, from a process of its own.

The process needs neither torch nor a core; the training is done by the workers of the fleet.
"""

import contextlib
from typing import Any, cast

from crossfold.platform.edge.fleet.queue_client import RayLink
from crossfold.platform.edge.search.objective import follow
from crossfold.platform.edge.search.samplers import METRIC
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.workspace.workspace import Workspace


def judge(config: dict[str, Any], *, queue: str, namespace: str, workspace: str) -> None:
    """The trainable. `config["cells"]` holds the cells as JSON; see `follow`.

    Reports `ccc` for each `epoch`, with `finished` at the end. Tune ends a stopped trial by an exception out of
    `report`, which cancels the cells that are left.
    """
    import ray
    from ray import tune

    link = cast(CellQueue, RayLink(ray.get_actor(queue, namespace=namespace)))
    with contextlib.closing(follow(config["cells"], link, Workspace.at(workspace))) as course:
        for progress in course:
            tune.report(
                {
                    METRIC: progress.ccc,
                    "epoch": progress.epoch,
                    "finished": progress.finished,
                    "cell_epochs": progress.cell_epochs,
                    **{f"objective_{name}": value for name, value in progress.costs.items()},
                }
            )
