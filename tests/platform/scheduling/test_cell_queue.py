"""The queue without Ray: leases, retries, cancellation, expiry, and that every cell ends exactly once."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass, Outcome
from crossfold.platform.scheduling.cell_queue import Assignment, CellQueue, QueueLimits
from crossfold.platform.scheduling.cell_states import MAX_INTERRUPTIONS
from crossfold.platform.scheduling.events import ENDED, Event
from tests.support.factories import fake_cell


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CELLS = [fake_cell(seed) for seed in range(6)]
JSON = [each.model_dump_json() for each in CELLS]
IDS = [each.cell_id for each in CELLS]
DONE = Outcome("done", 1.0)


def report(epoch: int, best: float = 0.5) -> EpochReport:
    return EpochReport(
        epoch=epoch, epochs=9, learning_rate=0.1, train_loss=1.0, ccc={"valence": best}, best_ccc=best, seconds=1.0
    )


def failed(cell_id: str, kind: FailureClass) -> Outcome:
    return Outcome("failed", 1.0, Failure(cell_id, "label", kind, 1, "why", "", "now"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> CellQueue:
    queue = CellQueue(QueueLimits(lease_seconds=60, max_attempts=3), clock=clock)
    queue.register(0, "a")
    queue.register(1, "a")
    return queue


def kinds(events: list[Event], cell_id: str | None = None) -> list[str]:
    return [event.kind for event in events if cell_id in (None, event.cell_id)]


def taken(queue: CellQueue, rank: int, generation: str = "a") -> str | None:
    answer = queue.take(rank, generation)
    return Cell.model_validate_json(answer.cell).cell_id if isinstance(answer, Assignment) else None


def states(queue: CellQueue) -> list[str]:
    return [told["state"] for told in queue.watch(IDS).values()]


def test_cells_come_in_order_once_each(queue):
    queue.submit(JSON[:3])
    queue.submit(JSON[:3])
    assert [taken(queue, 0), taken(queue, 1)] == IDS[:2]
    queue.finish(IDS[0], 1, DONE)
    assert taken(queue, 0) == IDS[2]
    queue.finish(IDS[2], 1, DONE)
    assert taken(queue, 0) is None
    assert states(queue) == ["done", "running", "done"]


def test_a_worker_that_asks_twice_gets_the_same_try(queue):
    queue.submit(JSON[:2])
    assert queue.take(0, "a") == queue.take(0, "a")
    assert kinds(queue.news().events).count("started") == 1


def test_second_execution_is_ignored(queue):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.finish(IDS[0], 1, DONE)
    queue.finish(IDS[0], 1, failed(IDS[0], FailureClass.CODE))
    queue.finish(IDS[0], 2, DONE)
    assert kinds(queue.news().events) == ["queued", "started", "finished"]
    assert states(queue) == ["done"]


def test_a_restarted_worker_gives_its_cell_back_first_in_line(queue):
    queue.submit(JSON[:3])
    assert taken(queue, 0) == IDS[0]
    queue.register(0, "a")
    assert states(queue)[0] == "running"
    queue.register(0, "b")
    assert states(queue) == ["queued"] * 3
    assignment = queue.take(0, "b")
    assert isinstance(assignment, Assignment)
    assert (Cell.model_validate_json(assignment.cell).cell_id, assignment.attempt) == (IDS[0], 2)
    events = queue.news().events
    assert kinds(events, IDS[0]) == ["queued", "started", "requeued", "started"]
    lost = next(event for event in events if event.kind == "requeued")
    assert lost.failure is not None
    assert (lost.failure.kind, lost.failure.attempt, lost.recorded) == (FailureClass.INFRA, 1, False)


def test_the_worker_that_was_replaced_gets_nothing_and_may_leave(queue):
    queue.submit(JSON[:2])
    queue.register(0, "b")
    assert taken(queue, 0, "a") is None
    assert queue.take(0, "a") == "leave"
    assert queue.take(0, "b") != "leave"


def test_silence_ends_a_lease_and_a_beat_keeps_it(queue, clock):
    queue.submit(JSON[:2])
    taken(queue, 0)
    taken(queue, 1)
    clock.now = 50
    assert queue.heartbeat(IDS[0], 1) == "continue"
    clock.now = 70
    assert states(queue) == ["running", "queued"]
    assert queue.heartbeat(IDS[1], 1) == "stop"
    assert queue.silence() == 0
    clock.now = 75
    assert queue.silence() == 5


def test_late_result_of_a_lost_try_counts_if_it_is_done(queue, clock):
    queue.submit(JSON[:1])
    taken(queue, 0)
    clock.now = 61
    assert taken(queue, 1) == IDS[0]
    queue.finish(IDS[0], 1, failed(IDS[0], FailureClass.CODE))
    queue.finish(IDS[0], 1, Outcome("cancelled", 1.0))
    assert states(queue) == ["running"]
    queue.finish(IDS[0], 1, DONE)
    assert states(queue) == ["done"]
    assert queue.epoch(IDS[0], 2, report(1)) == "stop"
    queue.finish(IDS[0], 2, DONE)
    assert kinds(queue.news().events).count("finished") == 1


@pytest.mark.parametrize("kind", [FailureClass.DATA, FailureClass.CODE, FailureClass.DIVERGED])
def test_failures_that_would_repeat_themselves_are_final(queue, kind):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.finish(IDS[0], 1, failed(IDS[0], kind))
    assert kinds(queue.news().events) == ["queued", "started", "failed"]
    assert queue.watch(IDS)[IDS[0]]["message"] == "why"


@pytest.mark.parametrize("kind", [FailureClass.INFRA, FailureClass.OOM])
def test_failures_of_the_surroundings_are_tried_three_times(queue, kind):
    queue.submit(JSON[:1])
    for attempt in (1, 2, 3):
        assert taken(queue, 0) == IDS[0]
        queue.finish(IDS[0], attempt, failed(IDS[0], kind))
    assert taken(queue, 0) is None
    assert kinds(queue.news().events, IDS[0])[1:] == ["started", "requeued"] * 2 + ["started", "failed"]


def test_progress_earns_new_tries(queue):
    queue.submit(JSON[:1])
    for attempt in range(1, 7):
        taken(queue, 0, str(attempt - 1) if attempt > 1 else "a")
        queue.epoch(IDS[0], attempt, report(attempt))
        queue.register(0, str(attempt))
    assert states(queue) == ["queued"]


def test_the_last_try_runs_alone_so_that_neighbours_are_spared(queue):
    """Cell 0 kills the group each time; cell 1, lost twice with it, must not be given up."""
    queue.submit(JSON[:4])
    for generation in ("b", "c"):
        taken(queue, 0, chr(ord(generation) - 1))
        taken(queue, 1, chr(ord(generation) - 1))
        queue.register(0, generation)
        queue.register(1, generation)
    assert (taken(queue, 0, "c"), taken(queue, 1, "c")) == (IDS[2], IDS[3])
    queue.finish(IDS[2], 1, DONE)
    assert taken(queue, 0, "c") is None
    queue.finish(IDS[3], 1, DONE)
    first = taken(queue, 0, "c")
    assert first in IDS[:2]
    assert taken(queue, 1, "c") is None
    queue.finish(first, 3, DONE)
    assert taken(queue, 1, "c") in IDS[:2]


def test_cancel_waits_for_nothing_where_nothing_runs(queue):
    queue.submit(JSON[:2])
    taken(queue, 0)
    queue.cancel(IDS)
    assert states(queue) == ["running", "cancelled"]
    assert queue.epoch(IDS[0], 1, report(1)) == "stop"
    queue.finish(IDS[0], 1, Outcome("cancelled", 1.0))
    assert states(queue) == ["cancelled", "cancelled"]
    assert kinds(queue.news().events).count("cancelled") == 2


def test_cancelled_and_lost_is_cancelled(queue):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.cancel()
    queue.register(0, "b")
    assert states(queue) == ["cancelled"]
    assert kinds(queue.news().events) == ["queued", "started", "cancelled"]


def test_done_before_the_cancellation_was_heard_is_done(queue):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.cancel()
    queue.finish(IDS[0], 1, DONE)
    assert states(queue) == ["done"]


@pytest.mark.parametrize("running", [True, False])
def test_a_cancelled_cell_that_is_submitted_again_runs(queue, running):
    queue.submit(JSON[:1])
    if running:
        taken(queue, 0)
    queue.cancel(IDS[:1])
    queue.submit(JSON[:1])
    if running:
        assert queue.heartbeat(IDS[0], 1) == "stop"
        queue.finish(IDS[0], 1, Outcome("cancelled", 1.0))
    assert states(queue) == ["queued"]
    assert taken(queue, 0) == IDS[0]
    queue.finish(IDS[0], 2 if running else 1, DONE)
    assert states(queue) == ["done"]


def test_stopping_unasked_is_a_lost_try(queue):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.finish(IDS[0], 1, Outcome("cancelled", 1.0))
    assert states(queue) == ["queued"]
    assert kinds(queue.news().events)[-1] == "requeued"


def test_workers_leave_a_closed_queue_when_the_last_lease_has_ended(queue):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.close()
    assert queue.take(1, "a") != "leave"
    queue.finish(IDS[0], 1, DONE)
    assert queue.take(1, "a") == "leave"


def test_watch_returns_the_last_epoch_and_the_best_by_epoch_of_known_cells(queue):
    queue.submit(JSON[:1])
    taken(queue, 0)
    queue.epoch(IDS[0], 1, report(3, best=0.2))
    queue.epoch(IDS[0], 1, report(4, best=0.25))
    assert queue.watch([IDS[0], "unknown"]) == {
        IDS[0]: {
            "state": "running",
            "epoch": 4,
            "epochs": 9,
            "ccc": {"valence": 0.25},
            "best_by_epoch": {3: 0.2, 4: 0.25},
            "message": "",
        }
    }


def test_events_stay_bounded_and_in_order_while_nobody_drains(clock):
    queue = CellQueue(clock=clock, event_limit=10)
    queue.register(0, "a")
    queue.submit(JSON[:1])
    taken(queue, 0)
    for epoch in range(1, 100):
        queue.epoch(IDS[0], 1, report(epoch))
    queue.finish(IDS[0], 1, DONE)
    events = queue.news().events
    assert len(events) == 11
    assert kinds(events)[:2] == ["queued", "started"]
    assert kinds(events)[-1] == "finished"
    assert events[-2].report == report(99)
    assert queue.news().events == []


class Fleet(RuleBasedStateMachine):
    """Three workers that work, die, fall silent and answer late, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = CellQueue(QueueLimits(lease_seconds=60, max_attempts=3), clock=self.clock, event_limit=5)
        self.generations = [0, 0, 0]
        self.tries: list[tuple[str, int]] = []
        self.endings: Counter[str] = Counter()
        self.queued: Counter[str] = Counter()

    @rule(rank=st.integers(0, 2))
    def restart(self, rank):
        self.generations[rank] += 1
        self.queue.register(rank, str(self.generations[rank]))

    @rule(rank=st.integers(0, 2))
    def take(self, rank):
        assignment = self.queue.take(rank, str(self.generations[rank]))
        if isinstance(assignment, Assignment):
            self.tries.append((Cell.model_validate_json(assignment.cell).cell_id, assignment.attempt))

    @rule(seeds=st.lists(st.integers(0, 5), max_size=6))
    def submit(self, seeds):
        self.queue.submit([JSON[seed] for seed in seeds])

    @rule(seed=st.integers(0, 5))
    def cancel(self, seed):
        self.queue.cancel([IDS[seed]])

    @rule(data=st.data(), outcome=st.sampled_from(["done", "cancelled", "oom", "code"]))
    @precondition(lambda self: self.tries)
    def finish(self, data, outcome):
        cell_id, attempt = data.draw(st.sampled_from(self.tries))
        result = failed(cell_id, FailureClass(outcome)) if outcome in ("oom", "code") else Outcome(outcome, 1.0)
        self.queue.finish(cell_id, attempt, result)

    @rule(data=st.data(), number=st.integers(1, 9))
    @precondition(lambda self: self.tries)
    def epoch(self, data, number):
        cell_id, attempt = data.draw(st.sampled_from(self.tries))
        self.queue.epoch(cell_id, attempt, report(number))

    @rule(seconds=st.sampled_from([1, 59, 61]))
    def wait(self, seconds):
        self.clock.now += seconds

    @invariant()
    def each_cell_ends_once_each_time_it_is_queued(self):
        for event in self.queue.news().events:
            if event.kind == "queued":
                self.queued[event.cell_id] += 1
            elif event.kind in ("finished", "failed", "cancelled"):
                self.endings[event.cell_id] += 1
        for cell_id, told in self.queue.watch(IDS).items():
            assert self.queued[cell_id] - self.endings[cell_id] == (told["state"] not in ENDED)

    def teardown(self):
        """However it went so far, quiet workers bring every cell to its end."""
        for rank in range(3):
            self.queue.register(rank, "last")
        self.queue.close()
        for _ in range(100):
            for rank in range(3):
                assignment = self.queue.take(rank, "last")
                if isinstance(assignment, Assignment):
                    self.queue.finish(Cell.model_validate_json(assignment.cell).cell_id, assignment.attempt, DONE)
        assert all(told["state"] in ENDED for told in self.queue.watch(IDS).values())
        assert all(self.queue.take(rank, "last") == "leave" for rank in range(3))
        self.each_cell_ends_once_each_time_it_is_queued()


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_try_whose_heart_beats_but_that_ends_no_epoch_hangs(clock):
    queue = CellQueue(QueueLimits(lease_seconds=60, max_attempts=3, hang_seconds=600), clock=clock)
    queue.submit(JSON[:2], {IDS[0]: 100.0})
    for rank in (0, 1):
        queue.register(rank, "a")
        queue.take(rank, "a")
    for _ in range(1990):
        clock.now += 1
        assert [queue.heartbeat(cell_id, 1) for cell_id in IDS[:2]] == ["continue", "continue"]
    queue.epoch(IDS[1], 1, report(1))
    for _ in range(20):
        clock.now += 1
        queue.heartbeat(IDS[0], 1)
        queue.heartbeat(IDS[1], 1)
    (lost,) = [event for event in queue.news().events if event.kind == "requeued"]
    assert lost.cell_id == IDS[0]
    assert lost.failure.kind == FailureClass.INFRA
    assert "hangs: no epoch ended for 2010 s, the limit is 2000 s" in lost.failure.message
    assert queue.heartbeat(IDS[0], 1) == "kill"
    assert queue.heartbeat(IDS[1], 1) == "continue"
    queue.register(0, "b")
    assignment = queue.take(0, "b")
    assert (assignment.attempt, queue.heartbeat(IDS[0], 2)) == (2, "continue")


def test_short_epochs_make_a_hang_show_after_the_least_time(clock):
    queue = CellQueue(QueueLimits(lease_seconds=60, hang_seconds=600), clock=clock)
    queue.submit(JSON[:1])
    queue.register(0, "a")
    queue.take(0, "a")
    clock.now += 10
    queue.epoch(IDS[0], 1, report(1))
    for _ in range(600):
        clock.now += 1
        assert queue.heartbeat(IDS[0], 1) == "continue"
    assert "requeued" not in kinds(queue.news().events)
    clock.now += 1
    assert "requeued" in kinds(queue.news().events)


def test_an_unknown_cell_may_take_an_hour_for_its_first_epoch(clock):
    queue = CellQueue(QueueLimits(lease_seconds=60), clock=clock)
    queue.submit(JSON[:1])
    queue.register(0, "a")
    queue.take(0, "a")
    for _ in range(360):
        clock.now += 10
        queue.heartbeat(IDS[0], 1)
    assert kinds(queue.news().events) == ["queued", "started"]
    clock.now += 10
    assert kinds(queue.news().events) == ["requeued"]


def test_only_the_worker_that_died_answers_for_it(queue):
    """Its neighbours go down with it, and their cells come back without a strike, first in line."""
    queue.submit(JSON[:3])
    for rank in (0, 1):
        queue.register(rank, "a", 2)
    first, second = taken(queue, 0), taken(queue, 1)
    queue.news()
    queue.workers_died({1: (FailureClass.OOM, "its machine ran out of memory")})
    blamed = {event.cell_id: event.failure for event in queue.news().events if event.kind == "requeued"}
    assert blamed[first] is None
    assert (blamed[second].kind, blamed[second].message) == (FailureClass.OOM, "its machine ran out of memory")
    assert taken(queue, 0) is None
    assert queue.take(0, "a") == "leave", "what is left of the group may go"
    queue.register(0, "b", 2)
    assert taken(queue, 0, "b") in (first, second)


def test_a_group_that_grows_or_shrinks_blames_nobody(queue):
    queue.submit(JSON[:3])
    for rank in (0, 1):
        queue.register(rank, "a", 2)
    first, second = taken(queue, 0), taken(queue, 1)
    queue.news()
    queue.register(0, "b", 1)
    news = queue.news()
    assert {(event.kind, event.cell_id, event.failure) for event in news.events} == {
        ("requeued", first, None),
        ("requeued", second, None),
    }
    assert news.workers == 1
    assert {taken(queue, 0, "b")} <= {first, second}


def test_a_cell_whose_workers_always_end_is_suspected_after_all(queue):
    queue.submit(JSON[:1])
    failures = []
    for generation in range(MAX_INTERRUPTIONS + 5):
        queue.register(0, str(generation), 1)
        taken(queue, 0, str(generation))
        failures += [event for event in queue.news().events if event.failure is not None]
    assert [event.kind for event in failures] == ["requeued", "requeued", "failed"]
    assert {event.cell_id for event in failures} == {IDS[0]}


def test_regrouped_workers_end_their_epoch_and_their_cells_go_on_with_the_next(queue):
    queue.submit(JSON[:1])
    first = taken(queue, 0)
    queue.regroup()
    assert queue.heartbeat(first, 1) == "stop"
    queue.finish(first, 1, Outcome("cancelled", 1.0))
    assert queue.take(0, "a") == "leave"
    queue.register(0, "b", 1)
    assert taken(queue, 0, "b") == first
    queue.finish(first, 2, DONE)
    assert "failed" not in kinds(queue.news().events, first)
