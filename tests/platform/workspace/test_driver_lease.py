"""One driver a workspace: on this machine by a lock, across machines by a lease that runs out."""

import datetime
import json
import threading
import time

import pytest

from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace import driver_lease
from crossfold.platform.workspace.driver_lease import Lease, LeaseFile, alive, driver_lock, machine_id
from crossfold.platform.workspace.remote.filesystem import RemoteFiles
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import fake_cell
from tests.support.trials import sleepy


def lease_file(workspace):
    return LeaseFile(RemoteFiles(f"file://{workspace.root}"))


def stranger(workspace, seconds_left):
    """What a driver on another machine wrote, with so long to run."""
    now = datetime.datetime.now(datetime.UTC)
    expires = now + datetime.timedelta(seconds=seconds_left)
    holder = {
        "pid": 4711,
        "host": "elsewhere",
        "machine": "another",
        "token": "theirs",
        "since": (now - datetime.timedelta(hours=1)).isoformat(),
        "heartbeat": now.isoformat(),
        "expires": expires.isoformat(),
    }
    write_json(workspace.root / "driver.json", holder)
    return holder


def test_a_living_driver_on_another_machine_is_respected(workspace):
    theirs = stranger(workspace, 60)
    with pytest.raises(UserError, match=f"process 4711 on elsewhere .* lease runs until {theirs['expires'][:19]}"):
        driver_lock(workspace).__enter__()
    assert lease_file(workspace).read() == theirs
    assert not (workspace.root / "driver.claim").exists()


@pytest.mark.parametrize("seconds_left", [-1, -3600])
def test_a_lease_that_ran_out_is_taken_over(workspace, seconds_left):
    stranger(workspace, seconds_left)
    with driver_lock(workspace) as lease:
        holder = lease_file(workspace).read()
        assert (holder["machine"], holder["token"]) == (machine_id(), lease.token)
        assert alive(holder)
    assert not (workspace.root / "driver.json").exists()


@pytest.mark.parametrize("left", ["", "{", "[]", '{"pid": 1}', '{"expires": 3, "machine": "x"}'])
def test_a_lease_that_nobody_can_read_stops_nobody(workspace, left):
    (workspace.root / "driver.json").write_text(left)
    with driver_lock(workspace):
        assert alive(lease_file(workspace).read())


def test_the_lease_is_renewed_and_held_several_times_over(workspace):
    path = workspace.root / "driver.json"
    with driver_lock(workspace, lease_seconds=0.8) as lease:
        with driver_lock(workspace) as again:
            assert again is lease
        first = lease_file(workspace).read()["expires"]
        time.sleep(1.0)
        assert lease_file(workspace).read()["expires"] > first
        assert alive(lease_file(workspace).read())
        assert not lease.lost.is_set()
    assert not path.exists()


def test_of_many_machines_one_gets_the_lease(workspace):
    """All at the same moment, each with a machine of its own, so that no lock of the system helps."""
    ready, won, refused = threading.Barrier(12), [], []

    def drive(number):
        lease = Lease(lease_file(workspace), f"machine-{number}", "ws")
        ready.wait()
        try:
            lease.take()
            won.append(lease.token)
        except UserError:
            refused.append(number)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 11)
    assert lease_file(workspace).read()["token"] == won[0]


def test_a_claim_left_by_a_killed_process_is_removed(workspace, monkeypatch):
    monkeypatch.setattr(driver_lease, "_CLAIM_SECONDS", 0.2)
    claim = workspace.root / "driver.claim"
    claim.touch()
    with driver_lock(workspace):
        assert not claim.exists()


def test_a_driver_that_slept_too_long_notices_and_leaves_the_other_in_peace(workspace):
    cells = [fake_cell(seed, epochs=200, seconds=0.02) for seed in range(3)]
    with driver_lock(workspace, lease_seconds=0.4) as lease:
        theirs = stranger(workspace, 60)
        with pytest.raises(FleetError, match="another driver took over"):
            run_cells(cells, workspace, FleetOptions(workers=0, runner=sleepy))
        assert lease.lost.is_set()
    assert json.loads((workspace.root / "driver.json").read_text()) == theirs


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "ws").mkdir()
    return Workspace(tmp_path / "ws")
