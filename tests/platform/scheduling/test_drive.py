"""The loop of a launch without workers: what it passes on, when it stops, and that it stops once."""

import os
import signal
import threading
from pathlib import Path

import pytest

from crossfold.platform.core.errors import FleetError
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.scheduling.drive import drive
from crossfold.platform.scheduling.events import Event, raise_fatal
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import Monitor, SilentView
from crossfold.platform.scheduling.stop_signals import stop_request
from tests.support.trials import RecordingTracker


class Script:
    """Workers that follow a script: each look at the queue shows the next list of events."""

    poll_seconds = 0.001

    def __init__(self, *news) -> None:
        self.news, self.cancelled, self.workers = list(news), 0, 3

    def cancel(self, cell_ids=None):
        self.cancelled += 1

    def drain(self):
        news = self.news.pop(0) if self.news else []
        if isinstance(news, Exception):
            raise news
        return news() if callable(news) else news


@pytest.fixture
def launch(workspace, tiny_cell):
    """A monitor of two cells, the notes that it shows, and what its tracker hears."""
    notes, tracker = [], RecordingTracker()
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    monitor = Monitor("s", workspace, SilentView(notes.append), lambda _: tracker, cells=cells)
    return monitor, notes, tracker, [cell.cell_id for cell in cells]


def test_it_ends_when_every_cell_has_ended(launch):
    monitor, notes, tracker, (first, second) = launch
    pool = Script(
        [Event("queued", first), Event("queued", second)], [],
        [Event("started", first, 1, 0), Event("finished", first, 1, 0, seconds=2.0)], [Event("cancelled", second)],
    )  # fmt: skip
    with stop_request(None) as stop:
        drive(pool, monitor, stop, lambda: not monitor.progress.left)
    assert (pool.news, pool.cancelled, notes) == ([], 0, [])
    assert [call for call, *_ in tracker.calls] == ["started", "finished"]
    summary = monitor.progress.summary(3, interrupted=False, time_up=False)
    assert (summary.done, summary.cancelled, summary.cell_seconds, monitor.progress.workers) == (1, 1, {first: 2.0}, 3)


def test_when_the_time_is_up_it_cancels_once_and_goes_on_listening(launch):
    monitor, notes, _, (first, _) = launch
    pool = Script([Event("queued", first)], [], [], [Event("cancelled", first)])
    with stop_request(0.0) as stop:
        drive(pool, monitor, stop, lambda: not monitor.progress.left)
    assert (pool.cancelled, stop.time_up, stop.interrupted.is_set()) == (1, True, False)
    (note,) = notes
    assert note.startswith("the time is up")
    assert monitor.progress.summary(3, interrupted=False, time_up=True).time_up


def test_a_time_that_is_up_after_the_last_cell_is_not_reported(launch):
    monitor, _, _, (first, second) = launch
    monitor.feed(Event(kind, cell) for cell in (first, second) for kind in ("queued", "started", "finished"))
    summary = monitor.progress.summary(3, interrupted=False, time_up=True)
    assert (summary.done, summary.time_up) == (2, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_order_and_a_second_one_at_once(launch, number):
    monitor, notes, _, (first, _) = launch

    def interrupt():
        os.kill(os.getpid(), number)
        return []

    before = signal.getsignal(number)
    pool = Script([Event("queued", first)], interrupt, [], interrupt)
    with pytest.raises(KeyboardInterrupt), stop_request(None) as stop:
        drive(pool, monitor, stop, lambda: not monitor.progress.left)
    assert (pool.cancelled, stop.time_up, stop.active.is_set()) == (1, False, True)
    (note,) = notes
    assert note.startswith("stopping: ")
    assert signal.getsignal(number) == before


def test_in_another_thread_signals_stay_with_the_main_one():
    seen = []

    def run():
        with stop_request(None) as stop:
            seen.append((stop.new_reason(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [("", signal.getsignal(signal.SIGINT))]


def test_workers_that_cannot_go_on_end_it(launch):
    monitor, notes, _, (first, _) = launch
    pool = Script([Event("queued", first)], FleetError("the group ended"))
    with stop_request(None) as stop, pytest.raises(FleetError, match="the group ended"):
        drive(pool, monitor, stop, lambda: False)
    assert notes == []


def test_a_fatal_report_names_the_worker():
    raise_fatal([Event("queued", "a")])
    failure = Failure("", "worker 2", FailureClass.CODE, 0, "cannot load it", "", "2026")
    with pytest.raises(FleetError, match="worker 2: cannot load it"):
        raise_fatal([Event("queued", "a"), Event("fatal", "", failure=failure)])


def test_options_are_the_same_in_every_folder_and_join_the_cluster_of_their_job(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = FleetOptions(plugins=[Path("mine.py")])
    assert options.plugins == (tmp_path / "mine.py",)
    assert options.cluster is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert options.cluster == "head:6379"
    assert FleetOptions(address="other:6379").cluster == "other:6379"
