"""Cells that run in this process: what is recorded and shown, interruptions, time limits, one driver per workspace."""

import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from rich.console import Console

from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.edge.terminal.progress import ConsoleView, choose_view
from crossfold.platform.scheduling.cell_queue import QueueLimits
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import FleetSummary, SilentView
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY, RecordingTracker, trial_log
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("importable")

DRIVER = """
import sys
from pathlib import Path
from crossfold.platform.edge.terminal.progress import ConsoleView
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import fake_cell
from tests.support.trials import sleepy

workspace = Workspace(Path(sys.argv[1]))
cells = [fake_cell(seed, epochs=60, seconds=0.02) for seed in range(3)]
missing = [cell for cell in cells if cell.cell_id not in workspace.finished()]
summary = run_cells(missing, workspace, FleetOptions(workers=0, runner=sleepy), sweep="s", view=ConsoleView())
print(summary.interrupted, summary.cancelled, summary.done)
"""


def test_nothing_to_do_starts_nothing(workspace):
    code = (
        "import sys; from pathlib import Path; from crossfold.platform.workspace.workspace import Workspace;"
        "from crossfold.platform.edge.launch.run_cells import run_cells;"
        "run_cells([], Workspace(Path('unused')));"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert run_cells([], workspace) == FleetSummary()
    assert not (workspace.root / "driver.lock").exists()


def test_local_run_tells_tracker_ledger_view_and_status_file(workspace):
    cells = [
        fake_cell(0),
        fake_cell(1, trouble="bug"),
        fake_cell(2, trouble="oom once"),
        fake_cell(3, trouble="oom"),
    ]
    good, bug, once, never = (cell.cell_id for cell in cells)
    tracker, out = RecordingTracker(), io.StringIO()
    summary = run_cells(
        cells,
        workspace,
        FleetOptions(workers=0, runner=SLEEPY),
        sweep="some/sweep",
        view=ConsoleView(Console(file=out)),
        tracker_of=lambda _: tracker,
    )
    assert (summary.done, summary.failed, summary.cancelled, summary.interrupted) == (2, 2, 0, False)
    assert set(summary.cell_seconds) == {good, once}
    assert 0 <= summary.startup_seconds <= summary.wall_seconds
    assert tracker.calls_of(good) == ["started", "epoch", "epoch", "finished"]
    assert tracker.calls_of(bug) == ["started", "failed"]
    assert tracker.calls_of(once) == ["started", "failed", "started", "epoch", "epoch", "finished"]
    assert tracker.calls_of(never) == ["started", "failed"] * 3
    # The fake trial keeps no ledger, so only what the fleet itself had to record is in it.
    (recorded,) = workspace.failures_of()
    assert (recorded.cell_id, recorded.kind) == (bug, FailureClass.CODE)
    assert "a bug in the trial" in recorded.message
    assert "ZeroDivisionError" in recorded.log_tail
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[1/4] done       fake valence fold 0 seed 0")
    assert lines[-1].startswith("some/sweep: 2/4 done, 2 failed")
    status = json.loads(workspace.paths.status_of("some/sweep").read_text())
    assert (status["done"], status["failed"], status["total"], status["running"]) == (2, 2, 4, [])


def test_a_trial_that_cannot_be_loaded_ends_the_fleet(workspace):
    with pytest.raises(FleetError, match="no_such_trial"):
        run_cells([fake_cell(0)], workspace, FleetOptions(workers=0, runner="tests.support.trials:no_such_trial"))


def test_one_driver_a_workspace(workspace):
    driver = start_driver(workspace)
    with pytest.raises(UserError, match=f"process {driver.pid} on .* since 20"):
        run_cells([fake_cell(0)], workspace, FleetOptions(workers=0, runner=SLEEPY))
    driver.kill()
    driver.communicate()
    with driver_lock(workspace):
        assert run_cells([fake_cell(0)], workspace, FleetOptions(workers=0, runner=SLEEPY)).done == 1
        assert (workspace.root / "driver.json").is_file()
    assert not (workspace.root / "driver.json").exists()


def start_driver(workspace: Workspace) -> subprocess.Popen:
    """A driver without Ray in a process of its own, in the middle of its first cell."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, workspace.root], stdout=subprocess.PIPE, text=True)
    wait_for(lambda: trial_log(workspace))
    time.sleep(0.2)
    return driver


def finish_all(workspace: Workspace) -> None:
    """The same command again brings every cell to its end, each once."""
    again = subprocess.run(
        [sys.executable, "-c", DRIVER, workspace.root], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert again.stdout.splitlines()[-1].startswith("False 0 ")
    assert len(workspace.finished()) == 3
    assert set(Counter(cell_id for what, cell_id, *_ in trial_log(workspace) if what == "done").values()) == {1}
    resumed = [int(first) for what, _, _, first, _ in trial_log(workspace) if what == "start" and first != "1"]
    assert len(resumed) == 1
    assert resumed[0] > 2


def test_interrupted_cells_continue_from_their_checkpoints(workspace):
    driver = start_driver(workspace)
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=20)
    assert driver.returncode == 0
    assert "The same command continues" in out
    assert out.splitlines()[-1].startswith("True ")
    finish_all(workspace)


def test_a_killed_driver_blocks_nobody(workspace):
    driver = start_driver(workspace)
    driver.kill()
    driver.communicate()
    finish_all(workspace)


def test_when_the_time_is_up_nothing_new_starts_and_the_same_call_continues(workspace):
    cells = [fake_cell(seed, epochs=40, seconds=0.02) for seed in range(4)]
    summary = run_cells(cells, workspace, FleetOptions(workers=0, runner=SLEEPY, stop_after=0.5))
    assert (summary.time_up, summary.interrupted, summary.failed) == (True, False, 0)
    assert summary.done + summary.cancelled == 4
    assert summary.cancelled >= 1
    left = [cell for cell in cells if cell.cell_id not in workspace.finished()]
    again = run_cells(left, workspace, FleetOptions(workers=0, runner=SLEEPY, stop_after=60))
    assert (again.time_up, again.done) == (False, len(left))
    resumed = [int(first) for what, _, _, first, _ in trial_log(workspace) if what == "start" and first != "1"]
    assert len(resumed) == 1


def test_a_cell_that_hangs_in_this_process_is_told(workspace):
    cell = fake_cell(0, trouble="hangs once")
    with pytest.raises(FleetError, match=f"cell {cell.cell_id} hangs"):
        run_cells(
            [cell],
            workspace,
            FleetOptions(workers=0, runner=SLEEPY, limits=QueueLimits(hang_seconds=0.5)),
            forecast=quick([cell]),
        )
    (failure,) = workspace.failures_of(cell.cell_id)
    assert failure.kind == FailureClass.INFRA
    assert "no epoch ended" in failure.message


def quick(cells) -> Forecast:
    """Epochs of a hundredth of a second."""
    return Forecast({cell.cell_id: 0.01 * cell.recipe.epochs for cell in cells})


def test_live_view_shows_counts_and_running_cells(workspace):
    out = io.StringIO()
    view = ConsoleView(Console(file=out, force_terminal=True, width=120))
    cells = [fake_cell(0, epochs=30, seconds=0.02), fake_cell(1, trouble="oom")]
    run_cells(cells, workspace, FleetOptions(workers=0, runner=SLEEPY), sweep="show", view=view)
    text = out.getvalue()
    assert "fake valence fold 0 seed 0" in text
    assert "/30" in text
    assert "show: 1/2 done, 1 failed" in text
    assert "too large: seed 1" in text


def test_output_that_must_be_json_has_no_progress():
    assert isinstance(choose_view(json=True), SilentView)
    assert isinstance(choose_view(), ConsoleView)
