"""A small sweep whose worker and driver are killed; the large one, with nodes, is in tests/benchmarks/test_chaos.py.

Run with `--benchmarks`: whether the sweep is still running when a kill is due depends on the machine.
"""

import sys
from pathlib import Path

import pytest

from crossfold.platform.results import Workspace

sys.path.insert(0, str(Path(__file__).parent))
from chaos_tools import Chaos, runs_in_mlflow, tables, undisturbed, write_sweep


@pytest.mark.benchmark
def test_killed_workers_and_drivers_leave_every_cell_once_and_the_same_tables(tmp_path):
    sweep = write_sweep(tmp_path, cells=24)
    chaos = Chaos(sweep, tmp_path / "work", kinds=("worker", "driver"), kills=2, stride=6)
    chaos.run(seconds=300)
    assert chaos.killed == {"worker": 1, "driver": 1}
    assert chaos.launches >= 2
    cells = sorted(Workspace(tmp_path / "work").finished())
    assert len(cells) == 24
    assert runs_in_mlflow(tmp_path / "work") == dict.fromkeys(cells, 1)
    expected = undisturbed(sweep, tmp_path / "alone")
    assert expected
    assert tables(sweep, tmp_path / "work") == expected
