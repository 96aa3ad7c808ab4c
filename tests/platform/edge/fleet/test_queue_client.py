"""The driver's end of the queue: what it tells a queue that was lost, and what it hears from one that was not."""

from unittest.mock import MagicMock

import pytest

from crossfold.platform.core.errors import FleetError
from crossfold.platform.core.outcome import Outcome
from crossfold.platform.edge.fleet import queue_client
from crossfold.platform.edge.fleet.queue_client import DriverQueue, RayLink
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.worker import QueueLost


class Losable(DriverQueue):
    """Asks a queue in this process, which `lose` replaces by an empty one."""

    def __init__(self, workspace) -> None:
        super().__init__(workspace)
        self.lose()

    def lose(self) -> None:
        self.queue = CellQueue()
        self.queue.register(0, "g", 1)

    def call(self, method, *arguments):
        return getattr(self.queue, method)(*arguments)

    def give(self, cells):
        self.submit({cell.cell_id: cell.model_dump_json() for cell in cells}, {cells[0].cell_id: 3.0})

    def hear(self):
        news = self.news()
        return [(event.kind, event.cell_id) for event in news.events], news.refilled


@pytest.fixture
def queue(workspace):
    return Losable(workspace)


@pytest.fixture
def cells(tiny_cell):
    return [tiny_cell("concat", seed=seed, epochs=1) for seed in range(4)]


def test_a_queue_that_lives_is_not_told_twice(queue, cells):
    queue.give(cells[:2])
    assert queue.hear() == ([("queued", cell.cell_id) for cell in cells[:2]], False)
    assert queue.hear() == ([], False)


def test_a_lost_queue_gets_what_has_no_end_in_the_order_it_had(queue, cells):
    queue.give(cells)
    queue.hear()
    ticket = queue.queue.take(0, "g")
    queue.queue.finish(cells[0].cell_id, ticket.attempt, Outcome("done", 1.0))
    assert ("finished", cells[0].cell_id) in queue.hear()[0]
    queue.lose()
    assert queue.hear() == ([], True)
    assert queue.hear() == ([("queued", cell.cell_id) for cell in cells[1:]], False)


def test_cells_that_ended_unheard_are_told_with_their_own_seconds(queue, cells, workspace):
    queue.give(cells[:2])
    queue.hear()
    assert attempt_cell(cells[0], workspace).status == "done"
    queue.lose()
    (told,) = queue.news().events
    seconds = workspace.read_exactly(cells[0].cell_id).env["seconds"]
    assert (told.kind, told.cell_id, told.seconds) == ("finished", cells[0].cell_id, seconds)
    assert seconds > 0
    assert queue.hear() == ([("queued", cells[1].cell_id)], False)


def test_cells_that_others_submitted_are_owed_as_well(queue, cells):
    queue.news()
    queue.queue.submit([cells[0].model_dump_json()])
    queue.hear()
    queue.lose()
    queue.hear()
    assert queue.hear() == ([("queued", cells[0].cell_id)], False)


def test_what_was_cancelled_does_not_come_back(queue, cells):
    queue.give(cells)
    queue.hear()
    queue.cancel([cells[3].cell_id])
    queue.hear()
    queue.lose()
    queue.hear()
    assert queue.hear() == ([("queued", cell.cell_id) for cell in cells[:3]], False)
    queue.cancel(None)
    queue.lose()
    assert queue.hear() == ([("cancelled", cell.cell_id) for cell in cells[:3]], True)
    assert queue.hear() == ([], False)
    queue.give(cells[:1])
    queue.lose()
    queue.hear()
    assert queue.hear() == ([("queued", cells[0].cell_id)], False), "what is asked for after that is owed again"


def test_a_forecast_is_told_again(queue, cells):
    queue.give(cells[:1])
    queue.hear()
    queue.lose()
    queue.hear()
    assert queue.queue._cells.cells[cells[0].cell_id].epoch_seconds == 3.0


def test_a_queue_that_is_gone_for_good_says_what_to_do(workspace, monkeypatch):
    import ray
    from ray.exceptions import ActorDiedError

    def gone(reference):
        raise ActorDiedError

    monkeypatch.setattr(ray, "get", gone)
    queue = DriverQueue(workspace)
    queue._actor = MagicMock()
    with pytest.raises(FleetError, match="run the same command again to continue"):
        queue.call("news")
    link = RayLink(queue._actor)
    for call in (lambda: link.take(0, "g"), lambda: link.finish("cell", 1, Outcome("done", 1.0), recorded=True)):
        with pytest.raises(QueueLost):
            call()


def test_a_queue_that_ray_ended_for_want_of_memory_is_asked_again(workspace, monkeypatch):
    import ray
    from ray.exceptions import OutOfMemoryError

    answers = iter([OutOfMemoryError("low on memory"), "news"])

    def get(reference):
        answer = next(answers, None) or OutOfMemoryError("low on memory")
        if isinstance(answer, OutOfMemoryError):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(queue_client, "SHORTAGE_SECONDS", 0.0)
    queue = DriverQueue(workspace)
    queue._actor = MagicMock()
    assert queue.call("news") == "news"
    with pytest.raises(FleetError, match="low on memory"):
        queue.call("news")
    with pytest.raises(QueueLost):
        RayLink(queue._actor).take(0, "g")


def test_an_event_of_no_cell_changes_nothing(queue):
    queue.queue.report_fatal(0, "no plugin")
    assert queue.hear() == ([("fatal", "")], False)
