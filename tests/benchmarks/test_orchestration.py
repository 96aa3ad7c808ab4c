"""What it costs to run many cells: one long-lived worker group against a TorchTrainer a cell, with and without Tune.

All run in one session on clusters of the same size, as many cells at a time. Cells sleep their epochs away, so that the
ideal is known, cells x seconds / workers, and what is beyond it is orchestration. A rival costs the same for every
cell, so a few tell it. The rivals get our settings of Ray, which make a fit three seconds shorter than its defaults.
"""

import os
import sys

import pytest

from crossfold.platform.scheduling.fleet_options import FleetOptions
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY

SHORT = bool(os.environ.get("CROSSFOLD_BENCH_SHORT"))
"""For whoever works on this file: the same in two minutes, and only the bounds that hold for short cells."""

CELLS, SECONDS, EPOCHS, WORKERS = (16, 4.0, 4, 2) if SHORT else (48, 30.0, 30, 2)
RIVALS = 4
"""Cells of each rival; each sleeps for a second, since only what is beyond it is counted."""
RIVAL_SECONDS = 1.0
WHOLE, STEADY, LESS = 0.05, 0.01, 10
"""Bounds: overhead with the start, overhead without it, and how many times less than a rival's."""


@pytest.fixture
def rivals(importable, monkeypatch):
    """Starts a cluster for the rivals, and gives their module."""
    from crossfold.platform.edge.fleet.ray_connection import RAY_SETTINGS

    for name, value in (RAY_SETTINGS | {"RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(name, value)
    import ray

    def start():
        quiet = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
        ray.init(address="local", num_cpus=WORKERS + 1, **quiet)
        from tests.benchmarks import rival_trainers

        return rival_trainers

    yield start
    ray.shutdown()


@pytest.mark.benchmark
def test_overhead_of_a_sweep_against_a_trainer_for_every_cell(rivals, tmp_path, capsys, compared):
    from crossfold.platform.edge.launch.run_cells import run_cells
    from crossfold.platform.workspace.workspace import Workspace

    cells = [fake_cell(seed, epochs=EPOCHS, seconds=SECONDS / EPOCHS) for seed in range(CELLS)]
    summary = run_cells(cells, Workspace(tmp_path / "ours"), FleetOptions(workers=WORKERS, runner=SLEEPY))
    assert summary.done == CELLS
    ideal = CELLS * SECONDS / WORKERS
    whole = summary.wall_seconds / ideal - 1
    steady = summary.steady_seconds / ideal - 1
    ours = (summary.wall_seconds - ideal) * WORKERS / CELLS
    with capsys.disabled():
        sys.stdout.write(
            f"\n{CELLS} cells of {SECONDS:.0f} s on {WORKERS} workers: overhead {whole:.2%} in all, {steady:.2%} "
            f"between the first start and the last end, start-up {summary.startup_seconds:.1f} s once\n"
        )
    rival, storage = rivals(), tmp_path / "rivals"
    fit, tuned = (
        run(storage, RIVALS, WORKERS, RIVAL_SECONDS) * WORKERS / RIVALS - RIVAL_SECONDS
        for run in (rival.run_fits, rival.run_tuned_fits)
    )
    beyond = "a cell beyond its own seconds"
    compared(beyond, "a TorchTrainer.fit a cell", ours=[ours], theirs=[fit])
    compared(beyond, "a Tune trial around a fit", ours=[ours], theirs=[tuned])
    assert tuned > ours
    assert fit > ours
    if not SHORT:
        assert whole < WHOLE
        assert steady < STEADY
        assert fit / ours >= LESS
        assert tuned / ours >= LESS
