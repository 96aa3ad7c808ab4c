"""Why workers died, as Ray Train's controller sees it. Imports Ray, so only processes that use Ray import it."""

import contextlib
import importlib
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError
from ray.train import UserCallback

from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.edge.fleet.ray_connection import NAMESPACE

SHORT_OF_MEMORY = ("low on memory", "memory pressure")
"""Parts of Ray's message about a process that it ended to save the node. That about other deaths only guesses at it."""
LOST_NODE = "its node has died"
ANSWER_SECONDS = 5.0
STALE_SECONDS = 45
"""Ray reserves what the workers of a killed driver had asked for during 180 s, and gives the next driver none of it.
Requests are renewed every 20 s, so a shorter time is enough."""
_REQUESTS = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
_EXPIRY, _RENEWAL = "AUTOSCALING_REQUESTS_EXPIRE_TIME_S", "AUTOSCALING_REQUESTS_INTERVAL_S"


def release_sooner(module: str = _REQUESTS) -> bool:
    """Makes what this process asks of a cluster expire `STALE_SECONDS` after the last time it asked.

    Ray 2.60 has no public setting for it (its Data library has one, Train has none), so this sets a constant of Ray's
    own. Returns False, and changes nothing, where Ray has another constant: then the driver after a killed one waits as
    long as Ray says, and nothing else differs.
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


def oom_kills(vmstat: Path = VMSTAT) -> int:
    """How many processes Linux has killed for want of memory since this machine started; 0 on other systems."""
    try:
        lines = vmstat.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def ended_for_memory(error: BaseException) -> bool:
    """Whether an error, of Ray's or around one of Ray's, says that Ray ended a process to save its node."""
    inner = getattr(error, "controller_failure", getattr(error, "health_check_failure", error))
    return isinstance(inner, OutOfMemoryError) or any(words in str(inner) for words in SHORT_OF_MEMORY)


def cause_of(rank: int, error: BaseException, *, short_of_memory: bool = False) -> tuple[FailureClass, str]:
    """The class of a worker's death, and one line about it.

    short_of_memory: whether Linux killed a process of this machine for want of memory lately. Ray cannot tell such a
    process from one that met any other SIGKILL.
    """
    message = str(getattr(error, "health_check_failure", error))
    if ended_for_memory(error):
        return FailureClass.OOM, f"worker {rank} was ended while it ran this cell: its machine ran out of memory"
    if LOST_NODE in message:
        return FailureClass.INFRA, f"worker {rank} was lost with its machine while it ran this cell"
    if short_of_memory:
        why = f"worker {rank} died while it ran this cell, when Linux killed a process for want of memory"
        return FailureClass.OOM, why
    return FailureClass.INFRA, f"worker {rank} died while it ran this cell: {_shortened(message)}"


def _shortened(message: str) -> str:
    """The line of Ray's message that says how the process ended; else its first one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    exits = [line for line in lines if "exit" in line.lower()]
    # Ray's guesses follow in the same line.
    return (exits or lines or ["without a reason"])[0].partition("Some common causes")[0].strip()[:300]


class WorkerFailureCallback(UserCallback):
    """Reports to the queue which workers died, so that their cells are to blame, and those of the others are not."""

    def __init__(self, queue: str) -> None:
        """`queue`: name of the queue actor."""
        self._queue = queue
        self._oom_kills = oom_kills()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Runs in the controller, before the controller asks the cluster for the first resources."""
        self.__dict__.update(state)
        self._oom_kills = oom_kills()
        release_sooner()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """The controller calls this before it ends the group. If the queue does not answer, workers that register again
        show it what was lost."""
        before, self._oom_kills = self._oom_kills, oom_kills()
        short = self._oom_kills > before
        causes = {rank: cause_of(rank, error, short_of_memory=short) for rank, error in worker_exceptions.items()}
        with contextlib.suppress(RayError, ValueError):
            actor = ray.get_actor(self._queue, namespace=NAMESPACE)
            ray.get(actor.workers_died.remote(causes), timeout=ANSWER_SECONDS)
