"""The driver's end of the cell queue: an actor that is started here, asked from here, and filled again if it was lost.

The queue lives in a process of its own, which anything may end that ends processes. Ray starts it again, empty; workers
leave it at the end of their epoch, as it does not know them, and the driver tells it what is owed.
"""

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossfold.platform.core.errors import FleetError
from crossfold.platform.edge.fleet.cluster import NAMESPACE
from crossfold.platform.edge.fleet.queue_actor import QueueActor, retry_call
from crossfold.platform.scheduling.cell_queue import Event
from crossfold.platform.workspace.workspace import Workspace

ENDS = ("finished", "failed", "cancelled")
"""Kinds of events after which a cell is owed no more."""
MAX_RESTARTS = 20
"""How often Ray starts the queue again."""


@dataclass(frozen=True)
class News:
    """What a look at the queue showed."""

    events: list[Event]
    silence: float
    """Seconds since any worker was heard."""
    workers: int
    """Of the present group."""
    filled_again: bool
    """The queue had been lost, and with it the group that worked it off."""


class DriverQueue:
    """The queue of one fleet, and what is needed to make it anew."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is started."""
        self.name = f"cells-{uuid.uuid4().hex[:8]}"
        self._workspace = workspace
        self._actor: Any = None
        self._life = ""
        self._owed: dict[str, str] = {}
        """Cells without an end, as JSON, in the order in which they were submitted."""
        self._epoch_seconds: dict[str, float] = {}
        self._stopped = False
        """All was cancelled, and nothing submitted since."""

    def start(self, lease_seconds: float, max_attempts: int, hang_seconds: float) -> None:
        """Starts the actor; see `CellQueue` for the limits."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Not detached: the queue dies with the driver, and the workers leave when they notice. Nor does it outlive
        # the driver's node, so it lives there: any other may be lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": self.name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
        actor = ray.remote(QueueActor).options(max_restarts=MAX_RESTARTS, **options)
        self._actor = actor.remote(lease_seconds, max_attempts, hang_seconds=hang_seconds, place=self._workspace.root)

    def submit(self, cells: Mapping[str, str], epoch_seconds: Mapping[str, float]) -> None:
        """Adds cells, as JSON by identity; see `CellQueue.submit`."""
        self._stopped = False
        self._owed |= cells
        self._epoch_seconds |= epoch_seconds
        self.ask("submit", list(cells.values()), dict(epoch_seconds))

    def cancel(self, cell_ids: Sequence[str] | None) -> None:
        """Cancels cells, by default all."""
        self._stopped = self._stopped or cell_ids is None
        for cell_id in cell_ids or ():
            self._owed.pop(cell_id, None)
        self.ask("cancel", None if cell_ids is None else list(cell_ids))

    def news(self) -> News:
        """What happened since the last look. A queue that was lost has been filled again."""
        life, events, silence, workers = self.ask("news")
        lost = self._life not in ("", life)
        self._life = life
        for event in events:
            if event.kind == "queued" and event.cell:
                self._owed[event.cell_id] = event.cell
            elif event.kind in ENDS:
                self._owed.pop(event.cell_id, None)
        return News(events + (self._fill_again() if lost else []), silence, workers, lost)

    def silence(self) -> float:
        """Seconds since any worker was heard."""
        return float(self.ask("presence")[0])

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

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls the actor. Raises `FleetError` where there is none any more."""
        from ray.exceptions import RayActorError

        try:
            return retry_call(lambda: getattr(self._actor, method).remote(*arguments))
        except RayActorError as error:
            reason = str(error).splitlines()[0]
            raise FleetError(f"the cell queue died ({reason}); run the same command again to continue") from error

    def _fill_again(self) -> list[Event]:
        """Submits what is owed. What ended unheard is told now."""
        finished = self._workspace.finished()
        ended = [cell_id for cell_id in self._owed if cell_id in finished or self._stopped]
        events = []
        for cell_id in ended:
            del self._owed[cell_id]
            if cell_id in finished:
                seconds = float(self._workspace.read_exactly(cell_id).env["seconds"])
                events.append(Event("finished", cell_id, seconds=seconds))
            else:
                events.append(Event("cancelled", cell_id))
        known = {cell_id: self._epoch_seconds[cell_id] for cell_id in self._owed if cell_id in self._epoch_seconds}
        self.ask("submit", list(self._owed.values()), known)
        return events
