"""Why workers died, as Ray Train's controller sees it. Imports Ray: only for processes that have it anyway."""

import contextlib
import importlib
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError
from ray.train import UserCallback

from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.edge.fleet.cluster import NAMESPACE

SHORT_OF_MEMORY = ("low on memory", "memory pressure")
"""What Ray says of a process that it ended to save the node; of any other dead one it says that it might have been."""
LOST_NODE = "its node has died"
ANSWER_SECONDS = 5.0
STALE_SECONDS = 45
"""Ray keeps what the workers of a killed driver had asked for reserved for 180 s, and gives the next driver none of it.
Requests are renewed every 20 s, so less does."""
_REQUESTS = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
_EXPIRY, _RENEWAL = "AUTOSCALING_REQUESTS_EXPIRE_TIME_S", "AUTOSCALING_REQUESTS_INTERVAL_S"


def release_sooner(module: str = _REQUESTS) -> bool:
    """Makes what this process asks of a cluster expire `STALE_SECONDS` after the last time it asked.

    Ray 2.60 has no public setting for it (its Data library has one, Train has not), so this reaches for a constant of
    Ray's own. Returns False, and changes nothing, where that is not as it was: then the driver after a killed one waits
    as long as Ray has it, and nothing else differs.
    """
    try:
        requests = importlib.import_module(module)
        expiry, renewal = getattr(requests, _EXPIRY), getattr(requests, _RENEWAL)
    except (ImportError, AttributeError):
        return False
    if not all(isinstance(value, int | float) for value in (expiry, renewal)) or not 2 * renewal < STALE_SECONDS:
        return False
    setattr(requests, _EXPIRY, min(expiry, STALE_SECONDS))
    return True


VMSTAT = Path("/proc/vmstat")


def kernel_kills(vmstat: Path = VMSTAT) -> int:
    """How many processes of this machine Linux has ended for want of memory since it was started; 0 elsewhere."""
    try:
        lines = vmstat.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def ended_for_memory(error: BaseException) -> bool:
    """Whether Ray ended a process to save its node, by an error of Ray's or of a controller that met one."""
    inner = getattr(error, "controller_failure", getattr(error, "health_check_failure", error))
    return isinstance(inner, OutOfMemoryError) or any(words in str(inner) for words in SHORT_OF_MEMORY)


def cause_of(rank: int, error: BaseException, *, short_of_memory: bool = False) -> tuple[FailureClass, str]:
    """The class of a worker's death, and one line about it.

    short_of_memory: whether Linux ended a process here for want of memory lately. To Ray that is a process that is
    suddenly gone, as after any SIGKILL.
    """
    said = str(getattr(error, "health_check_failure", error))
    if ended_for_memory(error):
        return FailureClass.OOM, f"worker {rank} was ended while it ran this cell: its machine ran out of memory"
    if LOST_NODE in said:
        return FailureClass.INFRA, f"worker {rank} was lost with its machine while it ran this cell"
    if short_of_memory:
        return (
            FailureClass.OOM,
            f"worker {rank} died while it ran this cell, when the system ended a process for memory",
        )
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
        self._kills = kernel_kills()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called in the controller, which is the one that asks, before it does for the first time."""
        self.__dict__.update(state)
        self._kills = kernel_kills()
        release_sooner()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by the controller before it ends the group. Without an answer, restarted workers tell the queue."""
        before, self._kills = self._kills, kernel_kills()
        short = self._kills > before
        causes = {rank: cause_of(rank, error, short_of_memory=short) for rank, error in worker_exceptions.items()}
        with contextlib.suppress(RayError, ValueError):
            actor = ray.get_actor(self._queue, namespace=NAMESPACE)
            ray.get(actor.died.remote(causes), timeout=ANSWER_SECONDS)
