"""Disks that are full before a launch, and that fill up while one runs."""

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.scheduling import monitor
from crossfold.platform.scheduling.cell_queue import Assignment, CellQueue
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import SilentView
from crossfold.platform.workspace import driver_lease
from crossfold.platform.workspace.disk_space import (
    LEAST,
    LEAST_FILES,
    MIB,
    PATIENCE_SECONDS,
    DiskGate,
    disk_full_error,
    require_space,
)
from crossfold.platform.workspace.workspace import Workspace
from tests.support.disks import fill, mounted, use_up_files
from tests.support.factories import fake_cell, synthetic_workspace, write_sweep


def failure(message: str) -> Failure:
    return Failure("a", "a", FailureClass.INFRA, 1, message, "", "2026")


def test_room_is_looked_for_once_a_second_and_after_a_failure_for_want_of_it_more_is_asked():
    now, free, looks = [0.0], [2 * LEAST], []

    def ask(place):
        looks.append(place)
        return free[0]

    room = DiskGate(Path("/x"), clock=lambda: now[0], free=ask)
    assert room()
    free[0] = LEAST - 1
    assert room(), "the last look was a moment ago"
    now[0] = 1.0
    assert not room()
    assert len(looks) == 2

    free[0], now[0] = 5 * LEAST, 2.0
    assert room()
    room.note_failure(failure("ValueError: not about room"))
    assert room()
    room.note_failure(failure("OSError: [Errno 28] No space left on device: 'x'"))
    assert not room(), "that much was there when it failed"
    free[0], now[0] = 6 * LEAST, 3.0
    assert room()
    free[0], now[0] = 5 * LEAST, 2.0 + PATIENCE_SECONDS
    assert room(), "a quota shows in no such number, so it is tried again"


def test_a_disk_that_does_not_say_is_never_full(tmp_path):
    room = DiskGate(tmp_path, free=lambda place: None)
    room.note_failure(failure(f"OSError: [Errno {errno.EDQUOT}] Disk quota exceeded"))
    assert room()
    assert DiskGate(None)()


def test_nothing_is_handed_out_without_room_and_workers_stay():
    now, free = [0.0], [0]
    queue = CellQueue(clock=lambda: now[0], disk=DiskGate(Path("/x"), clock=lambda: now[0], free=lambda place: free[0]))
    text = fake_cell(0).model_dump_json()
    queue.submit([text])
    queue.register(0, "a")
    for now[0] in (1.0, 1000.0):
        assert queue.take(0, "a") == "wait"
        assert queue.silence() == 0
    free[0], now[0] = LEAST, 1001.0
    assert queue.take(0, "a") == Assignment(text, 1)


def test_a_start_on_a_full_disk_says_which_how_much_and_what_to_do(small_disk, tmp_path, capsys, monkeypatch):
    from crossfold.platform.edge.cli import app as cli
    from crossfold.platform.edge.launch import preflight

    synthetic_workspace(small_disk, frames=60)
    sweep = tmp_path / "s.yaml"
    sweep.write_text("{name: s, corpus: synthetic, recipe: demo, systems: [concat], targets: [valence], folds: [0]}")
    fill(small_disk)
    before = sorted(path for path in small_disk.rglob("*"))
    capsys.readouterr()

    def start() -> str:
        with pytest.raises(SystemExit) as end:
            cli.main(["run", str(sweep), "-w", str(small_disk / "work"), "--workers", "0"])
        assert end.value.code == 1
        return " ".join(capsys.readouterr().err.split())

    said = start()
    assert f"{small_disk / 'work'}: No space left on device, 0.0 MiB are free there" in said
    assert "free some space" in said
    assert sorted(path for path in small_disk.rglob("*")) == before

    # A quota, of which the system tells no number: then the first write says so.
    monkeypatch.setattr(preflight, "require_space", lambda place: None)
    assert f"{small_disk / 'work' / 'driver.json'}: No space left on device" in start()
    left = {path.name for path in small_disk.rglob("*")} - {path.name for path in before}
    assert left <= {"driver.lock"}, "nothing half-written"


def test_a_disk_that_fills_fails_one_try_as_infra_and_all_goes_on_when_there_is_room(
    small_disk, synthetic_store, tiny_cell
):
    """The system itself refuses the commit of the second cell; the watcher frees space once it is asked to."""
    space = Workspace(small_disk / "work")
    space.paths.stores.mkdir(parents=True)
    (space.paths.stores / synthetic_store.path.name).symlink_to(synthetic_store.path)
    cells = [tiny_cell("concat", seed=seed) for seed in range(4)]
    filler, begun, seen, notes = [], [], [], []

    def trial(cell, workspace, *, attempt, **keywords):
        begun.append((cell.seed, attempt))
        if (cell.seed, attempt) == (1, 1):
            filler.append(fill(small_disk))
        return attempt_cell(cell, workspace, attempt=attempt, **keywords)

    def make_room() -> None:
        seen.append(list(begun))
        filler[0].unlink()

    class Caretaker:
        """A person who looks in a while after a try failed."""

        def __init__(self) -> None:
            silent = SilentView()
            self.showing, self.name_of, self.note = silent.showing, silent.name_of, notes.append

        def event(self, event, label, progress) -> None:
            if event.kind == "requeued":
                threading.Timer(1.5, make_room).start()

    summary = run_cells(cells, space, FleetOptions(workers=0, runner=trial), view=Caretaker())
    assert (summary.done, summary.failed) == (4, 0)
    assert seen == [[(0, 1), (1, 1)]], "nothing began while there was no room"
    assert begun == [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1)]
    (note,) = notes
    assert note.startswith(f"the disk of {space.root} is full: no cell starts until there is space; ")
    (told,) = space.failures_of()
    assert (told.cell_id, told.kind, told.attempt) == (cells[1].cell_id, FailureClass.INFRA, 1)
    assert "No space left on device" in told.message
    assert "OSError" in told.log_tail
    assert not list(space.paths.cells.glob(".*")), "nothing half-written"


def test_a_file_system_without_free_inodes_is_full_and_the_message_counts_files(tmp_path, capsys):
    from crossfold.platform.edge.cli import app as cli

    with mounted(tmp_path / "disk", size=4 * MIB, files=300) as disk:
        synthetic_workspace(disk, frames=60)
        sweep = write_sweep(tmp_path / "s.yaml", systems=["concat"], targets=["valence"])
        empty = use_up_files(disk, left=LEAST_FILES - 1)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["run", str(sweep), "-w", str(disk / "work"), "--workers", "0"])
        said = " ".join(capsys.readouterr().err.split())
        assert end.value.code == 1
        assert f"{LEAST_FILES - 1} more files can be made there and a start needs {LEAST_FILES}" in said
        assert "MiB" not in said
        gate = DiskGate(disk)
        assert not gate()
        assert gate.need() == f"{LEAST_FILES - 1} more files can be made there and a start needs {LEAST_FILES}"
        next(empty.iterdir()).unlink()
        assert DiskGate(disk)()


def test_a_launch_says_once_a_minute_what_it_waits_for_and_stops_saying_so_when_there_is_space(tmp_path, monkeypatch):
    now, free, notes = [0.0], [0], []
    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: now[0]))
    gate = DiskGate(tmp_path, clock=lambda: now[0], free=lambda place: free[0])
    view = SilentView(lambda text: notes.append((now[0], text)))
    space = Workspace(tmp_path / "work")
    watched = monitor.Monitor("s", space, view, lambda cell_id: None, cells=[fake_cell(0)], disk=gate)
    lost = failure("the disk was full")
    for second in range(600):
        now[0], free[0] = float(second), 0 if second < 150 or second >= 400 else LEAST
        # Its failure could not be recorded at once; it is recorded once when there is space, and not again.
        events = [Event("failed", "a", failure=lost, recorded=False)] if second == 3 else []
        watched.feed(events)
    assert [when for when, _ in notes] == [0.0, 60.0, 120.0, 400.0, 460.0, 520.0, 580.0]
    assert {text for _, text in notes} == {
        f"the disk of {space.root} is full: no cell starts until there is space; "
        "0.0 MiB are free there and a cell needs 1.0 MiB"
    }
    assert len(space.failures_of()) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_refused_write_is_named_wherever_it_happens(tmp_path, monkeypatch, number, capsys):
    """As above, on machines that mount nothing: the write of the lease is refused by hand."""
    from crossfold.platform.edge.cli import app as cli
    from crossfold.platform.workspace.driver_lease import driver_lock

    def refuse(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(cli, "app", lambda *a, **k: driver_lock(Workspace(tmp_path / "work")).__enter__())
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"driver.json: {os.strerror(number)}" in said
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"driver.lock"}
    assert driver_lease._HELD == {}


def test_words_for_a_full_disk_without_a_name(tmp_path):
    require_space(tmp_path)
    said = disk_full_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert isinstance(said, UserError)
    assert said.problem == "No space left on device"
