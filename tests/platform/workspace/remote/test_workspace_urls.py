"""A workspace at a URL: machines that share nothing but it hold the same cells, whatever breaks on the way.

A machine here is a cache folder. The URL is a bucket of a real S3 server on loopback (moto), or a `file://` URL where
the connection is not what is tested.
"""

import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crossfold.platform.core.errors import Cancelled, DataError, FleetError, RemoteUnavailable, UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.workspace.driver_lease import Lease, LeaseFile, driver_lock
from crossfold.platform.workspace.merge import merge
from crossfold.platform.workspace.remote import cell_sync, checkpoint_sync
from crossfold.platform.workspace.remote import mirror as workspace_mirror
from crossfold.platform.workspace.remote.filesystem import RemoteFiles
from crossfold.platform.workspace.repair import damaged_cells, move_damaged_aside
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import build_report

SAME = tuple(name for name in CELL_FILES if name != "env.json")


@pytest.fixture
def url(tmp_path):
    """A `file://` URL."""
    return f"file://{tmp_path}/place/lab"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(workspace_mirror, "SYNC_SECONDS", 0.05)
    monkeypatch.setattr(workspace_mirror, "_OPENED", [])
    for name in ("CROSSFOLD_STORES", "CROSSFOLD_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Opens a workspace as another machine would: with a cache of its own."""

    def open_on(name, where, *, contact=True):
        monkeypatch.setenv("CROSSFOLD_CACHE", str(tmp_path / name))
        return Workspace.locate(where) if contact else Workspace.at(where)

    return open_on


@pytest.fixture
def with_store(synthetic_store):
    """Puts the store where a workspace prepared it, and sends it."""

    def put(space):
        shutil.copytree(synthetic_store.path, space.paths.stores / synthetic_store.path.name)
        space.mirror.push()
        return space

    return put


def same_cell(one, other, cell_id):
    """Whether two workspaces hold the same cell, byte by byte."""
    a, b = one.read_exactly(cell_id), other.read_exactly(cell_id)
    return all(a.file(name).read_bytes() == b.file(name).read_bytes() for name in SAME)


def test_two_machines_share_a_sweep_and_report_what_one_alone_reports(
    remote, machine, with_store, workspace, tiny_cell
):
    cells = [tiny_cell("concat", seed=seed) for seed in range(3)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"

    first = with_store(machine("a", remote.url))
    with driver_lock(first):
        for cell in cells[:2]:
            assert attempt_cell(cell, first).status == "done"
        asked = {cell.cell_id for cell in cells}
        write_json(first.paths.sweeps / "small.json", {"name": "small", "cells": sorted(asked)})
    second = machine("b", remote.url)
    assert second.finished() == {cell.cell_id for cell in cells[:2]}
    assert json.loads((second.paths.sweeps / "small.json").read_text())["cells"] == sorted(asked)
    assert second.find_store("synthetic").parent == second.paths.stores
    assert attempt_cell(cells[2], second).status == "done"
    first.refresh()
    third = machine("c", remote.url)
    for space in (first, second, third):
        assert space.finished() == asked
        assert all(same_cell(space, workspace, cell_id) for cell_id in asked)
    names = remote.names()
    assert [name for name in names if name.startswith("cells/")] == sorted(
        f"cells/{cell_id}/{name}" for cell_id in asked for name in CELL_FILES
    )
    assert not [name for name in names if name.startswith("driver.") or "/." in name]

    shutil.rmtree(third.paths.sweeps)
    # Without the record of a launch, the store says by which rule its folds are made.
    assert third.find_store("synthetic").parent == third.paths.stores
    for record in third.records():
        # Times and memory of another run are the only difference.
        shutil.copyfile(workspace.paths.cell(record.cell_id) / "env.json", record.path / "env.json")
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    pages = [build_report(space, figures=False, now=now).paths for space in (workspace, third)]
    assert [path.name for path in pages[0]] == [path.name for path in pages[1]]
    differs = [(str(a), str(b)) for a, b in zip(*pages, strict=True) if a.read_bytes() != b.read_bytes()]
    assert differs == []


def test_large_files_come_when_they_are_asked_for(url, machine, with_store, tiny_cell, tmp_path):
    cell = tiny_cell("concat")
    first = with_store(machine("a", url))
    attempt_cell(cell, first)
    second = machine("b", url)
    record = second.read(cell.cell_id)
    assert sorted(path.name for path in record.path.iterdir()) == sorted({*CELL_FILES} - {*cell_sync.LARGE})
    assert damaged_cells(second, second.finished()) == []
    assert record.predictions.clips == first.read(cell.cell_id).predictions.clips
    (tmp_path / "place/lab/cells" / cell.cell_id / "best.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match=r"not at file://.* as it was committed"):
        record.file("best.safetensors")


def test_a_cell_that_was_sent_by_half_does_not_count_and_is_completed(
    remote, machine, with_store, tiny_cell, monkeypatch
):
    cell = tiny_cell("concat")
    first = with_store(machine("a", remote.url))
    send, sent = RemoteFiles.send, []

    def break_off(files, source, name):
        sent.append(name)
        if len(sent) == 3:
            raise RemoteUnavailable("the connection broke")
        send(files, source, name)

    monkeypatch.setattr(RemoteFiles, "send", break_off)
    monkeypatch.setattr(workspace_mirror, "SYNC_SECONDS", 60.0)
    assert attempt_cell(cell, first).status == "done"
    assert first.finished() == first.mirror.cells.waiting() == {cell.cell_id}
    assert len(remote.names(f"cells/{cell.cell_id}")) == 2

    other = machine("b", remote.url)
    assert other.finished() == set()
    # Any command of the first machine completes it, and so does another machine that computes it again.
    again = machine("a", remote.url) if remote.url.startswith("file") else other
    if again is other:
        assert attempt_cell(cell, other).status == "done"
    assert not again.mirror.cells.waiting()
    third = machine("c", remote.url)
    assert third.finished() == {cell.cell_id}
    assert same_cell(first, third, cell.cell_id)


def test_a_url_that_cannot_be_reached_for_a_while_stops_no_work_and_loses_nothing(
    url, machine, with_store, tiny_cell, tmp_path
):
    first = with_store(machine("a", url))
    place = tmp_path / "place"
    place.rename(tmp_path / "unplugged")
    place.write_text("in the way, so that nothing can be made here")
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    for cell in cells:
        assert attempt_cell(cell, first).status == "done"
    failure = Failure("0" * 16, "x", FailureClass.CODE, 1, "a bug", "", "2026-01-01T00:00:00")
    first.record_failure(failure)
    assert first.mirror.cells.waiting() == {cell.cell_id for cell in cells}
    assert not first.mirror.flush_uploads(0.1)
    with pytest.raises(UserError, match="cannot be read"):
        machine("b", url)
    place.unlink()
    (tmp_path / "unplugged").rename(place)
    assert first.mirror.flush_uploads(60.0)
    second = machine("b", url)
    assert second.finished() == {cell.cell_id for cell in cells}
    assert second.failures_of() == [failure]


def test_what_a_killed_process_could_not_send_is_sent_by_the_next_command(
    url, machine, with_store, tiny_cell, monkeypatch
):
    cell = tiny_cell("concat")
    first = with_store(machine("a", url))
    with monkeypatch.context() as killed:
        killed.setattr(workspace_mirror.Mirror, "send_soon", lambda mirror, cell_id: None)
        attempt_cell(cell, first)
    assert machine("b", url).finished() == set()
    machine("a", url)
    assert machine("c", url).finished() == {cell.cell_id}


def test_an_empty_place_does_not_empty_the_machine(url, machine, with_store, tiny_cell, tmp_path):
    cell = tiny_cell("concat")
    first = with_store(machine("a", url))
    attempt_cell(cell, first)
    shutil.rmtree(tmp_path / "place")
    with pytest.raises(UserError, match="has no cells, and this machine knows 1 of it"):
        machine("a", url)
    assert first.finished() == {cell.cell_id}


def test_a_cell_that_was_removed_there_counts_no_longer_and_is_kept(url, machine, with_store, tiny_cell, tmp_path):
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    first = with_store(machine("a", url))
    for cell in cells:
        attempt_cell(cell, first)
    shutil.rmtree(tmp_path / "place/lab/cells" / cells[0].cell_id)
    again = machine("a", url)
    assert again.finished() == {cells[1].cell_id}
    assert (again.root / "gone" / cells[0].cell_id / "best.safetensors").is_file()


def test_a_damaged_copy_is_fetched_again_and_a_damaged_cell_computed(url, machine, with_store, tiny_cell, tmp_path):
    cell = tiny_cell("concat")
    attempt_cell(cell, with_store(machine("a", url)))
    second = machine("b", url)
    whole = (second.paths.cell(cell.cell_id) / "result.json").read_bytes()
    (second.paths.cell(cell.cell_id) / "result.json").write_bytes(whole[:-9])
    assert damaged_cells(second, second.finished()) == []
    assert (second.paths.cell(cell.cell_id) / "result.json").read_bytes() == whole

    there = tmp_path / "place/lab/cells" / cell.cell_id / "result.json"
    for path in (there, second.paths.cell(cell.cell_id) / "result.json"):
        path.write_bytes(whole[:-9])
    assert machine("c", url).finished() == set()
    assert damaged_cells(second, second.finished()) == [cell.cell_id]
    assert set(move_damaged_aside(second, [cell.cell_id])) == {cell.cell_id}
    assert attempt_cell(cell, second).status == "done"
    assert there.read_bytes() == whole


def test_a_rerun_reaches_the_other_machines(url, machine, with_store, tiny_cell):
    cell = tiny_cell("concat")
    first = with_store(machine("a", url))
    attempt_cell(cell, first)
    second = machine("b", url)
    stale = second.paths.rescored / "look" / f"{cell.cell_id}.json"
    write_json(stale, {"cell_id": cell.cell_id})
    second.mirror.push()
    first.refresh()
    before = second.read(cell.cell_id).env["finished_at"]
    aside = first.move_aside(cell.cell_id)
    assert machine("c", url).finished() == set()
    attempt_cell(cell, first)
    first.restore(cell.cell_id, aside)
    first.mirror.push()
    second = machine("b", url)
    after = second.read(cell.cell_id).env["finished_at"]
    assert before < after == first.read(cell.cell_id).env["finished_at"]
    assert not stale.exists()

    # One that fails leaves the old result.
    first.restore(cell.cell_id, first.move_aside(cell.cell_id))
    assert machine("d", url).read(cell.cell_id).env["finished_at"] == after


def test_two_machines_do_not_drive_at_once(remote, machine):
    first, second = machine("a", remote.url), machine("b", remote.url)
    with driver_lock(first):
        with pytest.raises(UserError, match=f"lab is in use by process {os.getpid()} on .* lease runs until"):
            driver_lock(second).__enter__()
        with driver_lock(first):
            assert json.loads(remote.read("driver.json"))["pid"] == os.getpid()
    with driver_lock(second):
        pass
    assert not [name for name in remote.names() if name.startswith("driver.")]


def test_of_many_machines_one_gets_the_lease_of_a_url(remote):
    ready, won, refused = threading.Barrier(4), [], []

    def drive(number):
        lease = Lease(LeaseFile(RemoteFiles(remote.url)), f"machine-{number}", remote.url)
        ready.wait()
        try:
            lease.take()
            won.append(lease.token)
        except UserError:
            refused.append(number)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 3)
    assert LeaseFile(RemoteFiles(remote.url)).read()["token"] == won[0]


def test_a_lease_that_ran_out_is_taken_over_and_the_late_driver_stops(url, machine):
    second = machine("b", url)
    late = Lease(LeaseFile(RemoteFiles(url)), "another", url, seconds=0.2)
    late.take()
    time.sleep(0.3)
    with driver_lock(second) as lease:
        # It wakes up, and would renew.
        with late.kept():
            assert late.lost.wait(60)
        with pytest.raises(FleetError, match="another driver took over"):
            late.check()
        assert lease.file.read()["token"] == lease.token
    assert second.mirror.files.read(["driver.json"]) == {}


def test_another_machine_resumes_from_the_checkpoint(remote, machine, with_store, workspace, tiny_cell, monkeypatch):
    cell = tiny_cell("concat", epochs=4)
    assert attempt_cell(cell, workspace).status == "done"
    monkeypatch.setattr("crossfold.platform.training.train.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("crossfold.platform.training.train.CHECKPOINT_PAUSE", 0.0)
    monkeypatch.setattr(checkpoint_sync, "CHECKPOINT_SECONDS", 0.05)

    class Epochs:
        def __init__(self, last):
            self.last, self.seen = last, []

        def epoch(self, cell_id, report):
            self.seen.append(report.epoch)
            if report.epoch == self.last:
                raise Cancelled("enough")

    first = with_store(machine("a", remote.url))
    assert attempt_cell(cell, first, reporter=Epochs(2)).status == "cancelled"
    second, rest = machine("b", remote.url), Epochs(99)
    assert attempt_cell(cell, second, reporter=rest).status == "done"
    assert rest.seen == [3, 4]
    assert same_cell(second, workspace, cell.cell_id)
    assert second.mirror.files.listed("running") == {}


def test_merging_from_and_into_a_url(url, machine, with_store, workspace, tiny_cell, new_workspace):
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    far = with_store(machine("a", url))
    attempt_cell(cells[0], far)
    attempt_cell(cells[1], workspace)
    attempt_cell(cells[0], workspace)
    with driver_lock(far):
        far.download_cells(far.finished())
        merged = merge(far, [workspace])
    assert (merged.cells, merged.same, merged.conflicts) == (1, 1, [])
    assert machine("b", url).finished() == {cell.cell_id for cell in cells}

    source, target = machine("c", url, contact=False), new_workspace()
    source.download_all()
    assert merge(target, [source]).cells == 2
    assert all(same_cell(target, workspace, cell.cell_id) for cell in cells)


def test_thousands_of_cells_are_one_listing(url, machine, tmp_path, monkeypatch):
    names = [f"{number:016x}" for number in range(2_000)]
    space = machine("a", url)
    for name in names:
        (space.paths.cells / name).mkdir(parents=True)
        (tmp_path / "place/lab/cells" / name).mkdir(parents=True)
    asked = []
    call = RemoteFiles._errors
    monkeypatch.setattr(RemoteFiles, "_errors", lambda *given, **how: asked.append(1) or call(*given, **how))
    again = machine("a", url)
    assert again.finished() == set(names)
    assert len(asked) < 8


def test_a_server_that_is_down_for_a_while_stops_no_work_and_loses_nothing(
    s3, machine, with_store, tiny_cell, monkeypatch
):
    """What an S3 client does with a refused connection; the rest is as for a folder that is not mounted."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    cell = tiny_cell("concat")
    first = with_store(machine("a", s3.url))
    up = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    down = machine("a", s3.url, contact=False)
    assert attempt_cell(cell, down).status == "done"
    assert down.mirror.cells.waiting() == {cell.cell_id}
    with pytest.raises(UserError, match=f"the workspace {s3.url} cannot be read: EndpointConnectionError"):
        machine("b", s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", up)
    assert machine("a", s3.url).root == first.root
    assert machine("b", s3.url).finished() == {cell.cell_id}


def test_a_place_that_cannot_be_written_is_refused_before_work(s3, url, machine, tmp_path):
    space = machine("a", url)
    (tmp_path / "place").write_text("no folder")
    nowhere = machine("a", "s3://no-such-bucket/lab")
    for place in (space, nowhere):
        with pytest.raises(UserError, match="cannot be written: "), driver_lock(place):
            raise AssertionError("work began")


RUN = """
import sys
from crossfold.platform.core.cell import Cell
from crossfold.platform.workspace.workspace import Workspace
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.fleet_options import FleetOptions
import crossfold.platform.workspace.remote.mirror as mirror
mirror.SYNC_SECONDS = 0.2
space = Workspace.locate(sys.argv[1])
cells = [Cell.model_validate_json(line) for line in sys.stdin]
run_cells([cell for cell in cells if cell.cell_id not in space.finished()], space, FleetOptions(workers=0))
"""


def done_at(remote) -> set[str]:
    """Cells that are whole there."""
    return {name.split("/")[1] for name in remote.names("cells") if name.endswith("/env.json")}


def test_a_sweep_whose_driver_was_killed_goes_on_on_another_machine(
    s3, machine, with_store, workspace, tiny_cell, tmp_path
):
    cells = [tiny_cell("concat", seed=seed, epochs=60 if seed == 2 else 2) for seed in range(3)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    with_store(machine("a", s3.url))
    asked = "".join(cell.model_dump_json() + "\n" for cell in cells)
    command = [sys.executable, "-c", RUN, s3.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=dict(os.environ)) as driver:
        assert driver.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            driver.stdin.write(asked)
            driver.stdin.close()
        until = time.monotonic() + 60
        while not done_at(s3):
            assert time.monotonic() < until
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    done = done_at(s3)
    second = machine("b", s3.url)
    with pytest.raises(UserError, match="in use by process"):
        driver_lock(second).__enter__()
    holder = json.loads(s3.read("driver.json"))
    s3.write("driver.json", json.dumps(holder | {"expires": "2026-01-01T00:00:00+00:00"}).encode())
    assert second.finished() == done
    with driver_lock(second):
        for cell in cells:
            if cell.cell_id not in second.finished():
                assert attempt_cell(cell, second).status == "done"
    third = machine("c", s3.url)
    assert third.finished() == {cell.cell_id for cell in cells}
    assert all(same_cell(third, workspace, cell.cell_id) for cell in cells)
    assert Path(third.root).is_relative_to(tmp_path)


ON_RAY = """
name: tiny
corpus: synthetic
recipe: demo
set: {epochs: 2, window: 20, hop: 10, temporal.width: 8, temporal.levels: 1, head.hidden: 8}
systems: [concat, jca]
targets: [valence]
folds: [0]
seeds: [0]
"""


@pytest.mark.slow
def test_workers_of_ray_work_for_a_url_and_other_machines_find_it_done(s3, machine, with_store, tmp_path, monkeypatch):
    """The commands as people type them, each on a machine of its own."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "tiny.yaml").write_text(ON_RAY)
    with_store(machine("a", s3.url))
    said = []

    def on(name, *words):
        command = [sys.executable, "-m", "crossfold.platform.edge.cli", *words, "--workspace", s3.url]
        env = {**os.environ, "CROSSFOLD_CACHE": str(tmp_path / name)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        said.append(done.stdout + done.stderr)
        assert done.returncode == 0, said[-1]
        return done.stdout

    assert "2 done, 0 failed" in on("b", "run", "tiny.yaml", "--workers", "1")
    assert "all 2 cells are done" in on("c", "run", "tiny.yaml", "--workers", "1")
    first, second = sorted(done_at(s3))
    before = s3.read(f"cells/{first}/result.json")
    assert "(as before)" in on("c", "rerun", first)
    assert s3.read(f"cells/{first}/result.json") == before
    assert "status: done" in on("d", "why", second)
    assert "2 finished cells: 0 present, 0 completed, 2 created" in on("d", "mlflow", "sync")
    assert f"also at {s3.url}/reports" in on("d", "report", "--no-figures")
    assert "reports/report.html" in s3.names("reports")
