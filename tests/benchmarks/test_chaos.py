"""Short cells on two local Ray nodes while whatever runs them is killed, against an undisturbed run.

80 cells go through one kill of each kind; `CROSSFOLD_BENCH_FULL=1` runs 200 through ten.
"""

import os
import sys
import time

import pytest

from crossfold.platform.workspace.workspace import Workspace
from tests.support.chaos import Chaos, prepare_chaos, runs_in_mlflow, tables, undisturbed

KINDS = ("worker", "node", "driver", "controller", "queue")
CELLS, KILLS = (200, 10) if os.environ.get("CROSSFOLD_BENCH_FULL") else (80, 5)
SECONDS = 1500


@pytest.mark.benchmark
def test_nothing_is_lost_twice_there_or_different_whatever_is_killed(tmp_path, capsys, compared):
    sweep = prepare_chaos(tmp_path, cells=CELLS)
    chaos = Chaos(sweep, tmp_path / "work", kinds=KINDS, kills=KILLS, stride=CELLS // (2 * KILLS))
    began = time.monotonic()
    chaos.run(SECONDS)
    disturbed = time.monotonic() - began
    assert sum(chaos.killed.values()) == KILLS
    assert min(chaos.killed[kind] for kind in chaos.kinds) >= KILLS // len(chaos.kinds)
    cells = sorted(Workspace(tmp_path / "work").finished())
    assert len(cells) == CELLS
    assert runs_in_mlflow(tmp_path / "work") == dict.fromkeys(cells, 1)
    began = time.monotonic()
    expected = undisturbed(sweep, tmp_path / "alone")
    compared(
        f"{CELLS} cells through {KILLS} kills", "nothing is killed", ours=[disturbed], theirs=[time.monotonic() - began]
    )
    assert expected
    assert tables(sweep, tmp_path / "work") == expected
    with capsys.disabled():
        sys.stdout.write(
            f"\n{CELLS} cells through {dict(chaos.killed)} kills and {chaos.launches} drivers in {disturbed:.0f} s: "
            f"each once, {len(expected)} tables as undisturbed\n"
        )
