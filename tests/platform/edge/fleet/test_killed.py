"""A sweep whose worker and driver are killed, by what happened and not by the clock.

The large one, with nodes, is in tests/benchmarks/test_chaos.py.
"""

import signal
import subprocess
import time

import psutil
import pytest

from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.workspace.workspace import Workspace
from tests.support.chaos import SETTINGS, command, prepare_chaos, runs_in_mlflow, tables, undisturbed
from tests.support.paths import environment
from tests.support.trials import GATE


@pytest.mark.benchmark
def test_killed_workers_and_drivers_leave_every_cell_once_and_the_same_tables(tmp_path):
    sweep, work, gate = prepare_chaos(tmp_path, cells=8, targets=["valence"]), Workspace(tmp_path / "work"), tmp_path
    (tmp_path / "gate.py").write_text(GATE)
    run = command("run", sweep, "-w", work.root, "--workers", "2", "--plugin", tmp_path / "gate.py")
    settings = environment(**SETTINGS, CROSSFOLD_TEST_GATE=gate)
    with (tmp_path / "first.log").open("w") as log:
        driver = subprocess.Popen(run, env=settings, stdout=log, stderr=log)
        until = time.monotonic() + 900
        while not ((gate / "held").exists() and len(work.finished()) == 7):
            assert driver.poll() is None, (tmp_path / "first.log").read_text()
            assert time.monotonic() < until, (tmp_path / "first.log").read_text()
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert (gate / "killed").exists()
    holder = int((gate / "held").read_text())
    while psutil.pid_exists(holder):
        assert time.monotonic() < until, "the worker outlives its driver"
        time.sleep(0.05)
    (gate / "open").touch()
    again = subprocess.run(run, env=settings, capture_output=True, text=True, timeout=900, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "chaos: 8 cells, 7 done, 1 to run" in again.stdout, "nothing finished runs again"

    cells = sorted(work.finished())
    assert len(cells) == 8
    assert runs_in_mlflow(work.root) == dict.fromkeys(cells, 1)
    (killed,) = [failure for failure in work.failures_of() if "concat valence fold 0 seed 1" in failure.label]
    assert (killed.kind, killed.attempt) == (FailureClass.INFRA, 1)
    alone = Workspace(tmp_path / "alone")
    expected = undisturbed(sweep, alone.root)
    assert expected
    assert tables(sweep, work.root) == expected
    for cell in cells:
        for name in set(CELL_FILES) - {"env.json"}:
            assert (work.paths.cell(cell) / name).read_bytes() == (alone.paths.cell(cell) / name).read_bytes()
