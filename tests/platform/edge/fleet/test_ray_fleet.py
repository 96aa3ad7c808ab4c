"""Real Ray Train workers: one that hangs, one that is killed, and the loss of what holds them together."""

import contextlib
import os
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.edge.fleet.ray_fleet import Fleet
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.cell_queue import QueueLimits
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import SilentView
from crossfold.platform.scheduling.run_order import Forecast
from tests.support.factories import fake_cell
from tests.support.trials import FRAGILE, SLEEPY, RecordingTracker, trial_log
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("importable")


@pytest.mark.slow
def test_a_worker_whose_cell_hangs_is_replaced_and_the_cell_repeated(workspace):
    """The heart of the worker beats on while its trial sleeps for ten minutes."""
    cells = [fake_cell(0, trouble="hangs once"), fake_cell(1), fake_cell(2)]
    summary = run_cells(
        cells,
        workspace,
        FleetOptions(workers=1, runner=SLEEPY, limits=QueueLimits(hang_seconds=3)),
        forecast=Forecast({cell.cell_id: 0.01 * cell.recipe.epochs for cell in cells}),
        view=SilentView(),
    )
    assert (summary.done, summary.failed) == (3, 0)
    failures = workspace.failures_of(cells[0].cell_id)
    assert {failure.kind for failure in failures} == {FailureClass.INFRA}
    assert any("hangs: no epoch ended" in failure.message for failure in failures)
    tries = [
        int(attempt) for what, name, attempt, *_ in trial_log(workspace) if (what, name) == ("start", cells[0].cell_id)
    ]
    assert tries[0] == 1
    assert len(tries) >= 2


def test_a_fleet_needs_workers(workspace):
    with pytest.raises(UserError, match="0 workers"):
        Fleet(workspace, FleetOptions(workers=0))


@pytest.mark.slow
def test_a_killed_worker_costs_no_cell_and_changes_no_number(workspace, new_workspace, tiny_cell):
    """Real cells on real Ray Train workers, one killed on the way, against the same cells in this process."""
    cells = [tiny_cell(seed=seed, epochs=8) for seed in range(4)]
    tracker = RecordingTracker()
    summary = run_cells(cells, workspace, FleetOptions(workers=2, runner=FRAGILE), tracker_of=lambda _: tracker)
    assert (summary.done, summary.failed, summary.cancelled) == (4, 0, 0)
    assert Counter(name for call, name, _ in tracker.calls if call == "finished") == {c.cell_id: 1 for c in cells}
    killed = cells[1].cell_id
    assert tracker.calls_of(killed)[:6] == ["started", "epoch", "epoch", "epoch", "failed", "started"]
    epochs = [told.epoch for call, name, told in tracker.calls if (call, name) == ("epoch", killed)]
    assert epochs == [1, 2, 3, *range(3, 9)]
    assert {failure.kind for failure in workspace.failures_of()} == {FailureClass.INFRA}
    assert not (workspace.root / "fleet").exists()
    assert not any(pid_alive(int(pid)) for *_, pid in trial_log(workspace))

    here = new_workspace()
    assert run_cells(cells, here, FleetOptions(workers=0)).done == 4
    for cell in cells:
        for name in ("result.json", "best.safetensors", "predictions.npz"):
            path = Path("cells") / cell.cell_id / name
            assert (workspace.root / path).read_bytes() == (here.root / path).read_bytes(), path


def pid_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


@pytest.mark.slow
def test_what_holds_the_fleet_together_is_killed_and_takes_no_try_from_any_cell(workspace):
    """With the controller all workers die; without the queue they leave. Another group takes their places."""
    cells = [fake_cell(seed, epochs=40, seconds=0.1) for seed in range(2)]
    ended, killed = Counter(), []
    to_kill = {5: "TrainController", 15: "CellQueue"}
    with Fleet(workspace, FleetOptions(workers=2, runner=SLEEPY)) as fleet:
        fleet.submit(cells)
        while ended["finished"] + ended["failed"] < len(cells):
            events = fleet.drain()
            ended.update(event.kind for event in events)
            furthest = max((event.report.epoch for event in events if event.kind == "epoch"), default=0)
            if to_kill and furthest >= min(to_kill):
                name = f"ray::{to_kill.pop(min(to_kill))}"
                running = {child: child.cmdline() for child in psutil.Process().children(recursive=True)}
                (victim,) = [child for child, words in running.items() if words[:1] and name in words[0]]
                victim.kill()
                killed.append(name)
            time.sleep(0.05)
    assert killed == ["ray::TrainController", "ray::CellQueue"]
    assert ended["finished"] == 2
    assert (ended["requeued"], ended["queued"]) == (2, 4)
    assert workspace.failures_of() == []
    resumed = [int(first) for what, _, _, first, _ in trial_log(workspace) if what == "start" and first != "1"]
    assert len(resumed) == 4


@pytest.mark.slow
def test_a_cluster_that_ends_takes_along_what_hangs_while_it_leaves(tmp_path):
    """A controller of Ray Train once stayed after its launch: Ray ends no worker that is about to end by itself."""
    from crossfold.platform.edge.fleet.ray_connection import connect

    def hang(leaving):
        threading.main_thread().join()  # returns when the process begins to end, which then waits for this thread
        Path(leaving).touch()
        time.sleep(600)

    class Controller:
        def begin(self, leaving):
            threading.Thread(target=hang, args=(leaving,)).start()
            return os.getpid()

    leaving = tmp_path / "leaving"
    with contextlib.ExitStack() as opened:
        connect(None, opened, cpus=1)
        import ray

        controller = ray.remote(num_cpus=0)(Controller).remote()
        process = psutil.Process(ray.get(controller.begin.remote(str(leaving)), timeout=60))
        del controller
        wait_for(leaving.exists, 60)
        assert process.is_running()
    assert not process.is_running()
