"""The group of workers behind a fleet: it begins again for a reason, and not for ever."""

import pytest

from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.edge.fleet import ray_fleet
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.fleet.worker_group import MAX_FAILED_GROUPS, WorkerGroup
from crossfold.platform.scheduling.fleet_options import FleetOptions

pytest.importorskip("ray")


class Script:
    """A fleet and its trainers: each group ends as the script says, an error being raised."""

    def __init__(self, *endings, heard: bool = True) -> None:
        self.endings, self.heard = list(endings), heard
        self.numbers: list[int] = []
        self.lost: list[Exception] = []
        silence = lambda: 0.0 if self.heard else 1e9  # noqa: E731
        self.group = WorkerGroup(self.trainer, silence=silence, lost=self.lost.append)

    def trainer(self, number: int) -> "Script":
        self.numbers.append(number)
        return self

    def fit(self) -> None:
        ending = self.endings.pop(0)
        if callable(ending):
            ending = ending(self)
        if ending is not None:
            raise ending

    def play(self) -> "Script":
        self.group.start()
        self.group.join(20)
        assert not self.group.alive
        return self


class ControllerError(RuntimeError):
    """As Ray Train raises it: around what its controller met."""

    def __init__(self, inner: Exception) -> None:
        super().__init__("Training failed due to controller error")
        self.controller_failure = inner


def test_a_group_that_ends_in_order_is_the_last():
    played = Script(None).play()
    assert (played.numbers, played.lost, played.group.error) == ([1], [], None)


def test_a_regrouping_is_followed_by_another_group():
    played = Script(lambda script: script.group.begin_anew(), None).play()
    assert (played.numbers, played.lost, played.group.error) == ([1, 2], [], None)


def test_a_group_that_was_lost_is_followed_by_another():
    errors = [ControllerError(ConnectionError("the actor died")), RuntimeError("killed")]
    played = Script(*errors, None).play()
    assert (played.numbers, played.lost, played.group.error) == ([1, 2, 3], errors, None)


def test_all_cells_are_to_blame_when_memory_ran_out_and_none_otherwise(workspace, monkeypatch):
    from ray.exceptions import OutOfMemoryError

    calls = []
    fleet = Fleet(workspace, FleetOptions(workers=3))
    monkeypatch.setattr(fleet._queue, "call", lambda method, causes: calls.append((method, causes)))
    monkeypatch.setattr(ray_fleet, "remove_placement_groups", lambda resources: 0)
    fleet._group_lost(ControllerError(OutOfMemoryError("4 workers were killed")))
    fleet._group_lost(ControllerError(ConnectionError("the actor died")))
    (_, causes), (_, none) = calls
    assert {method for method, _ in calls} == {"workers_died"}
    assert set(causes) == {0, 1, 2}
    assert {kind for kind, _ in causes.values()} == {FailureClass.OOM}
    assert "the machine ran out of memory" in causes[0][1]
    assert none == {}


def test_groups_that_never_get_a_worker_are_given_up():
    troubles = [ValueError(f"trouble {number}") for number in range(1, 9)]
    played = Script(*troubles, heard=False).play()
    assert played.numbers == list(range(1, MAX_FAILED_GROUPS + 1))
    assert str(played.group.error) == f"trouble {MAX_FAILED_GROUPS}"


def test_a_worker_that_is_heard_makes_good_for_groups_in_vain():
    def heard_once(script):
        script.heard = len(script.numbers) == MAX_FAILED_GROUPS - 1
        return ConnectionError("lost")

    played = Script(*[heard_once] * 9, heard=False).play()
    assert len(played.numbers) == MAX_FAILED_GROUPS - 1 + MAX_FAILED_GROUPS


def test_after_leaving_nothing_begins_again():
    def leave(script):
        script.group.leave()
        return ConnectionError("Ray was shut down")

    played = Script(leave, None).play()
    assert (played.numbers, played.lost, played.group.error) == ([1], [], None)


def test_an_end_that_cannot_be_told_is_the_error_of_the_group():
    def unreachable(error):
        raise ConnectionError("the queue is gone")

    script = Script(RuntimeError("lost"), None)
    script.group._lost = unreachable
    assert str(script.play().group.error) == "the queue is gone"
