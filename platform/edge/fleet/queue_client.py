"""The cell queue as a Ray actor, and its two clients: a worker's link, and the driver, which refills a lost queue.

The queue has a process of its own, which may be killed like any other. Ray starts it again, empty; workers
leave it at the end of their epoch, as it does not know them, and the driver submits again what has not ended.
"""

import contextlib
import functools
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from crossfold.platform.core.errors import FleetError
from crossfold.platform.core.outcome import EpochReport
from crossfold.platform.edge.fleet.ray_connection import NAMESPACE
from crossfold.platform.scheduling.cell_queue import CellQueue, QueueLimits, Verdict
from crossfold.platform.scheduling.events import Event, News
from crossfold.platform.scheduling.worker import QueueLost
from crossfold.platform.workspace.disk_space import DiskGate
from crossfold.platform.workspace.workspace import Workspace

MAX_RESTARTS = 20
"""How often Ray starts the queue again."""
SHORTAGE_SECONDS = 1.0
"""The least time between two calls to a queue that was ended for want of memory, so that others may free some."""


class RayLink:
    """A `CellQueue` in another process, as a worker sees it. Epochs are sent without waiting; other calls are answered.

    Raises `QueueLost` where the queue is gone.
    """

    IN_FLIGHT = 16
    """Epochs sent and not yet acknowledged, above which the sender waits."""

    def __init__(self, actor: Any) -> None:
        """`actor`: handle of the queue."""
        self._actor = actor
        self._sent: deque[Any] = deque()

    def __getattr__(self, method: str) -> Any:
        return functools.partial(self._call, method)

    def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict:
        """Sends the epoch; the verdict is that on epochs acknowledged by now."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        self._sent.append(self._actor.epoch.remote(cell_id, attempt, report))
        verdict: Verdict = "continue"
        while self._sent:
            full = len(self._sent) > self.IN_FLIGHT
            ready, _ = ray.wait([self._sent[0]], timeout=None if full else 0)
            if not ready:
                break
            try:
                if ray.get(self._sent.popleft()) != "continue":
                    verdict = "stop"
            except (RayActorError, OutOfMemoryError) as error:
                raise QueueLost(str(error)) from error
        return verdict

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        if method.startswith("finish"):
            # No verdict on its epochs can matter any more.
            self._sent.clear()
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments, **named))
        except (RayActorError, OutOfMemoryError) as error:
            raise QueueLost(str(error)) from error


class DriverQueue:
    """The queue of one fleet as its driver sees it, with what is needed to fill a new one."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is started."""
        self.name = f"cells-{uuid.uuid4().hex[:8]}"
        self._workspace = workspace
        self._actor: Any = None
        self._incarnation = ""
        self._unfinished: dict[str, str] = {}
        """Cells without an end, as JSON, in the order in which they were submitted."""
        self._epoch_seconds: dict[str, float] = {}
        self._all_cancelled = False
        """All was cancelled, and nothing submitted since."""

    def start(self, limits: QueueLimits) -> None:
        """Starts the actor."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Not detached: the queue dies with the driver, and the workers leave when they notice. Nor does it outlive
        # the driver's node, so it lives there: any other may be lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": self.name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
        # Calls that are lost with the queue, or on their way, are repeated by Ray; each may be made twice.
        queue = ray.remote(CellQueue).options(max_restarts=MAX_RESTARTS, max_task_retries=-1, **options)
        self._actor = queue.remote(limits, disk=DiskGate(self._workspace.root))

    def submit(self, cells: Mapping[str, str], epoch_seconds: Mapping[str, float]) -> None:
        """Adds cells, as JSON by identity; see `CellQueue.submit`."""
        self._all_cancelled = False
        self._unfinished |= cells
        self._epoch_seconds |= epoch_seconds
        self.call("submit", list(cells.values()), dict(epoch_seconds))

    def cancel(self, cell_ids: Sequence[str] | None) -> None:
        """Cancels cells, by default all."""
        self._all_cancelled = self._all_cancelled or cell_ids is None
        for cell_id in cell_ids or ():
            self._unfinished.pop(cell_id, None)
        self.call("cancel", None if cell_ids is None else list(cell_ids))

    def news(self) -> News:
        """What happened since the last call. A queue that was lost has been filled again."""
        news: News = self.call("news")
        lost = self._incarnation not in ("", news.incarnation)
        self._incarnation = news.incarnation
        for event in news.events:
            if event.kind == "queued" and event.cell:
                self._unfinished[event.cell_id] = event.cell
            elif event.ends:
                self._unfinished.pop(event.cell_id, None)
        return replace(news, events=news.events + self._refill(), refilled=True) if lost else news

    def silence(self) -> float:
        """Seconds since any worker was heard."""
        return float(self.call("silence"))

    def close(self) -> None:
        """No more cells will come, and none shall begin: workers leave. Does not wait for an answer for long."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            self._actor.cancel.remote()
            ray.get(self._actor.close.remote(), timeout=5)

    def kill(self) -> None:
        """Ends the actor."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            ray.kill(self._actor)

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls the actor. Raises `FleetError` where there is none any more."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        lost: Exception | None = None
        for _ in range(MAX_RESTARTS):
            try:
                return ray.get(getattr(self._actor, method).remote(*arguments))
            except OutOfMemoryError as error:
                # Ray ended the queue for want of memory and starts it again, but repeats no call that was lost so.
                lost = error
                time.sleep(SHORTAGE_SECONDS)
            except RayActorError as error:
                lost = error
                break
        reason = str(lost).splitlines()[0]
        raise FleetError(f"the cell queue died ({reason}); run the same command again to continue") from lost

    def _refill(self) -> list[Event]:
        """Submits what has not ended to the new queue; returns the ends that the old one did not report."""
        finished = self._workspace.finished()
        events = []
        for cell_id in list(self._unfinished):
            if cell_id in finished:
                seconds = float(self._workspace.read_exactly(cell_id).env["seconds"])
                events.append(Event("finished", cell_id, seconds=seconds))
            elif self._all_cancelled:
                events.append(Event("cancelled", cell_id))
            else:
                continue
            del self._unfinished[cell_id]
        # The new queue takes forecasts of cells that it does not have.
        self.call("submit", list(self._unfinished.values()), self._epoch_seconds)
        return events
