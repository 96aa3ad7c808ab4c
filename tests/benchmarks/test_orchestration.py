"""What it costs to run many short cells: one long-lived worker group against one TorchTrainer.fit per cell.

Both run in one session on the same cluster size. Cells sleep, so that the ideal is known: cells x seconds / workers.
"""

import os
import sys
import time
from pathlib import Path

import pytest

CELLS, SECONDS, EPOCHS, WORKERS = 24, 1.0, 5, 2
FITS = 3
"""Fits of the rival; each costs the same, so three tell what one costs."""


@pytest.fixture
def trials(monkeypatch):
    folder = Path(__file__).parents[1] / "platform"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(folder.parents[1] / ".pkg")]))
    import fake_trials

    return fake_trials


@pytest.mark.benchmark
def test_overhead_of_a_cell_against_one_fit_per_cell(trials, tmp_path, capsys):
    from crossfold.platform.edge.ray_fleet import run_cells
    from crossfold.platform.results import Workspace

    cells = [trials.make_cell(seed, epochs=EPOCHS, seconds=SECONDS / EPOCHS) for seed in range(CELLS)]
    summary = run_cells(cells, Workspace(tmp_path), workers=WORKERS, trial="fake_trials:sleepy")
    assert summary.done == CELLS
    ours = (summary.wall_seconds - CELLS * SECONDS / WORKERS) / CELLS
    rival = seconds_of_a_fit(tmp_path) - SECONDS
    with capsys.disabled():
        sys.stdout.write(
            f"\noverhead a cell, start-up included: fleet {ours:.2f} s, one fit per cell {rival:.2f} s: "
            f"{rival / ours:.1f} times less; start-up {summary.startup_seconds:.1f} s once\n"
        )
    assert rival / ours > 3, "start-up is paid once a worker, not once a cell"


def seconds_of_a_fit(folder):
    """Mean seconds of a TorchTrainer.fit whose loop sleeps as long as a cell."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    def loop(config):
        time.sleep(config["seconds"])

    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        began = time.monotonic()
        for index in range(FITS):
            TorchTrainer(
                loop,
                train_loop_config={"seconds": SECONDS},
                scaling_config=ScalingConfig(num_workers=1),
                torch_config=TorchConfig(backend="gloo"),
                run_config=RunConfig(name=f"fit{index}", storage_path=str(folder / "fits")),
            ).fit()
        return (time.monotonic() - began) / FITS
    finally:
        ray.shutdown()
