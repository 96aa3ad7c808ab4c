"""The queue as a Ray actor, and the link through which a worker reaches it."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossfold.platform.core.outcome import EpochReport, FailureClass, Outcome
from crossfold.platform.scheduling.cell_queue import HANG_SECONDS, CellQueue, Event, Verdict
from crossfold.platform.scheduling.links import Answer, QueueLost
from crossfold.platform.workspace.disk_space import DiskGate

RETRIES = 30
"""Pauses of a second while the queue cannot be reached: a node is slow, or the queue was lost and starts again."""


def retry_call(call: Callable[[], Any]) -> Any:
    """The answer to a call of the queue actor. Raises `RayActorError` where it is gone, or away for too long."""
    import ray
    from ray.exceptions import ActorUnavailableError

    for _ in range(RETRIES):
        with contextlib.suppress(ActorUnavailableError):
            return ray.get(call())
        time.sleep(1.0)
    return ray.get(call())


class RayLink:
    """The queue actor as a worker sees it. Epochs are sent without waiting; everything else is answered."""

    IN_FLIGHT = 16
    """Epochs sent and not yet acknowledged, above which the sender waits."""

    def __init__(self, actor: Any) -> None:
        """`actor`: handle of a `QueueActor`."""
        self._actor = actor
        self._sent: deque[Any] = deque()

    def register(self, rank: int, generation: str, world: int | None = None) -> None:
        """See `CellQueue.register`."""
        self._ask(lambda: self._actor.register.remote(rank, generation, world))

    def take(self, rank: int, generation: str) -> Answer:
        """See `QueueActor.take`."""
        answer: Answer = self._ask(lambda: self._actor.take.remote(rank, generation))
        return answer

    def beat(self, cell_id: str, attempt: int) -> Verdict:
        """See `CellQueue.beat`."""
        verdict: Verdict = self._ask(lambda: self._actor.beat.remote(cell_id, attempt))
        return verdict

    def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict:
        """Sends the epoch; the verdict is that of epochs acknowledged by now."""
        import ray

        self._sent.append(self._actor.epoch.remote(cell_id, attempt, report))
        verdict: Verdict = "go"
        while self._sent:
            full = len(self._sent) > self.IN_FLIGHT
            ready, _ = ray.wait([self._sent[0]], timeout=None if full else 0)
            if not ready:
                break
            if self._verdict(self._sent.popleft()) != "go":
                verdict = "cancel"
        return verdict

    def finish(self, cell_id: str, attempt: int, outcome: Outcome, *, recorded: bool = True) -> None:
        """See `CellQueue.finish`."""
        self._sent.clear()
        self._ask(lambda: self._actor.finish.remote(cell_id, attempt, outcome, recorded=recorded))

    def finish_and_take(self, rank: int, generation: str, cell_id: str, attempt: int, outcome: Outcome) -> Answer:
        """See `QueueActor.finish_and_take`."""
        self._sent.clear()
        answer: Answer = self._ask(
            lambda: self._actor.finish_and_take.remote(rank, generation, cell_id, attempt, outcome)
        )
        return answer

    def refuse(self, rank: int, message: str) -> None:
        """See `CellQueue.refuse`."""
        self._ask(lambda: self._actor.refuse.remote(rank, message))

    def _verdict(self, ref: Any) -> Verdict:
        import ray
        from ray.exceptions import ActorUnavailableError, RayActorError

        try:
            verdict: Verdict = ray.get(ref)
        except ActorUnavailableError:
            return "go"
        except RayActorError as error:
            raise QueueLost(str(error)) from error
        return verdict

    def _ask(self, call: Callable[[], Any]) -> Any:
        from ray.exceptions import RayActorError

        try:
            return retry_call(call)
        except RayActorError as error:
            raise QueueLost(str(error)) from error


class QueueActor:
    """`CellQueue` as an async Ray actor without a CPU. All methods run on one event loop, so nothing is locked."""

    def __init__(
        self,
        lease_seconds: float,
        max_attempts: int,
        poll_seconds: float = 1.0,
        hang_seconds: float = HANG_SECONDS,
        place: Path | None = None,
    ) -> None:
        """`poll_seconds`: how long a worker without work is kept waiting for an answer. `place`: of the workspace."""
        self._queue = CellQueue(
            lease_seconds=lease_seconds, max_attempts=max_attempts, hang_seconds=hang_seconds, room=DiskGate(place)
        )
        self._poll_seconds = poll_seconds
        self._life = uuid.uuid4().hex
        self._news = asyncio.Event()

    async def submit(self, cells_json: list[str], epoch_seconds: dict[str, float] | None = None) -> None:
        """See `CellQueue.submit`."""
        self._queue.submit(cells_json, epoch_seconds)
        self._tell()

    async def watch(self, cell_ids: list[str]) -> dict[str, dict[str, Any]]:
        """See `CellQueue.watch`."""
        return self._queue.watch(cell_ids)

    async def cancel(self, cell_ids: list[str] | None = None) -> None:
        """See `CellQueue.cancel`."""
        self._queue.cancel(cell_ids)
        self._tell()

    async def close(self) -> None:
        """See `CellQueue.close`."""
        self._queue.close()
        self._tell()

    async def register(self, rank: int, generation: str, world: int | None = None) -> None:
        """See `CellQueue.register`."""
        self._queue.register(rank, generation, world)
        self._tell()

    async def died(self, causes: dict[int, tuple[FailureClass, str]]) -> None:
        """See `CellQueue.died`."""
        self._queue.died(causes)
        self._tell()

    async def regroup(self) -> None:
        """See `CellQueue.regroup`."""
        self._queue.regroup()
        self._tell()

    async def take(self, rank: int, generation: str) -> Answer:
        """The next cell, waiting a moment for one, so that idle workers cost next to nothing."""
        ticket = self._queue.take(rank, generation)
        if ticket is None and not self._queue.dismissed(rank, generation):
            with_news = asyncio.create_task(self._news.wait())
            await asyncio.wait([with_news], timeout=self._poll_seconds)
            with_news.cancel()
            ticket = self._queue.take(rank, generation)
        if ticket is not None:
            return ticket
        return "leave" if self._queue.dismissed(rank, generation) else "wait"

    async def beat(self, cell_id: str, attempt: int) -> Verdict:
        """See `CellQueue.beat`."""
        return self._queue.beat(cell_id, attempt)

    async def epoch(self, cell_id: str, attempt: int, report: EpochReport) -> Verdict:
        """See `CellQueue.epoch`."""
        return self._queue.epoch(cell_id, attempt, report)

    async def finish(self, cell_id: str, attempt: int, outcome: Outcome, *, recorded: bool = True) -> None:
        """See `CellQueue.finish`."""
        self._queue.finish(cell_id, attempt, outcome, recorded=recorded)
        self._tell()

    async def finish_and_take(self, rank: int, generation: str, cell_id: str, attempt: int, outcome: Outcome) -> Answer:
        """`finish`, then `take`: one way to the queue and back for a cell, not two."""
        await self.finish(cell_id, attempt, outcome)
        return await self.take(rank, generation)

    async def refuse(self, rank: int, message: str) -> None:
        """See `CellQueue.refuse`."""
        self._queue.refuse(rank, message)

    async def news(self) -> tuple[str, list[Event], float, int]:
        """A name for this life of the actor, events since the last look, and what `presence` says."""
        return self._life, self._queue.drain_events(), *await self.presence()

    async def presence(self) -> tuple[float, int]:
        """Seconds since any worker was heard, and how many workers of the present group are here."""
        return self._queue.silence(), self._queue.workers

    def _tell(self) -> None:
        """Wakes everyone who waits now; whoever comes later waits for the next news."""
        self._news.set()
        self._news = asyncio.Event()
