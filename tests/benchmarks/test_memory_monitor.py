"""A worker that Ray ends because the machine runs out of memory. Not for a busy machine: others' memory counts too.

It measures no speed, so it records nothing: that the worker is ended and its cell runs again is the result.
"""

import subprocess
import sys

import psutil
import pytest

from crossfold.platform.core.outcome import FailureClass

GIB = 3

DRIVER = """
import sys
from pathlib import Path
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY

hungry = fake_cell(0, trouble="eats once", gib=int(sys.argv[2]))
others = [fake_cell(seed, epochs=10, seconds=0.05) for seed in (1, 2)]
options = FleetOptions(workers=1, runner=SLEEPY)
summary = run_cells([hungry, *others], Workspace(Path(sys.argv[1])), options)
print(summary.done, summary.failed)
"""


@pytest.mark.benchmark
def test_what_rays_memory_monitor_ends_is_oom_and_tried_again(workspace, importable, monkeypatch):
    memory = psutil.virtual_memory()
    # The fleet itself takes about 1.5 GiB.
    limit = (memory.total - memory.available + 2.5 * 2**30) / memory.total
    if limit > 0.9:
        pytest.skip(f"{memory.available / 2**30:.1f} GiB are free, too few to eat {GIB} of them")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(workspace.root), str(GIB)],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-2:] == ["3", "0"]
    (failure,) = workspace.failures_of()
    assert (failure.kind, failure.attempt) == (FailureClass.OOM, 1)
    assert "machine ran out of memory" in failure.message
