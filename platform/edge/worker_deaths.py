"""Why workers died, as Ray Train's controller sees it. Imports Ray: only for processes that have it anyway."""

import contextlib
from typing import Any

import ray
import ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client as requests
from ray.exceptions import OutOfMemoryError, RayError
from ray.train import UserCallback

from crossfold.platform.contracts import FailureClass
from crossfold.platform.edge.fleet_link import NAMESPACE

SHORT_OF_MEMORY = ("low on memory", "memory pressure")
"""What Ray says of a process that it ended to save the node; of any other dead one it says that it might have been."""
LOST_NODE = "its node has died"
ANSWER_SECONDS = 5.0
STALE_SECONDS = 45
"""Ray keeps what the workers of a killed driver had asked for reserved for 180 s, and gives the next driver none of it.
Requests are renewed every 20 s, so less does. The controller reads it when it asks, and loads this module before."""
requests.AUTOSCALING_REQUESTS_EXPIRE_TIME_S = STALE_SECONDS


def cause_of(rank: int, error: BaseException) -> tuple[FailureClass, str]:
    """The class of a worker's death, and one line about it."""
    inner = getattr(error, "health_check_failure", error)
    said = str(inner)
    if isinstance(inner, OutOfMemoryError) or any(words in said for words in SHORT_OF_MEMORY):
        return FailureClass.OOM, f"worker {rank} was ended while it ran this cell: its machine ran out of memory"
    if LOST_NODE in said:
        return FailureClass.INFRA, f"worker {rank} was lost with its machine while it ran this cell"
    return FailureClass.INFRA, f"worker {rank} died while it ran this cell: {_in_short(said)}"


def _in_short(said: str) -> str:
    """The line of Ray's report that tells how the process ended; else its first one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "exit" in line.lower()]
    # What follows are guesses.
    return (telling or lines or ["without a word"])[0].partition("Some common causes")[0].strip()[:300]


class DeathNotes(UserCallback):
    """Tells the queue which workers died, so that only their cells answer for it and their neighbours' do not."""

    def __init__(self, queue: str) -> None:
        """`queue`: name of the queue actor."""
        self._queue = queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by the controller before it ends the group. Without an answer, restarted workers tell the queue."""
        causes = {rank: cause_of(rank, error) for rank, error in worker_exceptions.items()}
        with contextlib.suppress(RayError, ValueError):
            actor = ray.get_actor(self._queue, namespace=NAMESPACE)
            ray.get(actor.died.remote(causes), timeout=ANSWER_SECONDS)
