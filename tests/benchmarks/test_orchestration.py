"""What it costs to run many cells: one long-lived worker group against a TorchTrainer a cell, with and without Tune.

All run in one session on clusters of the same size, as many cells at a time. Cells sleep their epochs away, so that the
ideal is known, cells x seconds / workers, and what is beyond it is orchestration. A rival costs the same for every
cell, so a few tell it. What we need for a cell does not depend on how long it lasts, so cells of a second tell it, in
three turns. `CROSSFOLD_BENCH_FULL=1` runs cells of 30 s, once, for 13 minutes, and bounds the share of their time, too.
The rivals get our settings of Ray, which make a fit three seconds shorter than its defaults.
"""

import os
import sys

import pytest

from crossfold.platform.scheduling.fleet_options import FleetOptions
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY

FULL = bool(os.environ.get("CROSSFOLD_BENCH_FULL"))
SECONDS, EPOCHS, TURNS = (30.0, 30, 1) if FULL else (1.0, 4, 3)
CELLS, WORKERS = 48, 2
RIVALS = 4
"""Cells of each rival; each sleeps for a second, since only what is beyond it is counted."""
RIVAL_SECONDS = 1.0
WHOLE, STEADY, LESS = 0.05, 0.01, 10
"""Bounds with `FULL`: overhead with the start, overhead without it, and how many times less than a rival's."""


@pytest.fixture
def rivals(importable, monkeypatch):
    """A function that starts a cluster of their own, and measures both rivals there: seconds beyond those of a cell."""
    from crossfold.platform.edge.fleet.ray_connection import RAY_SETTINGS

    for name, value in (RAY_SETTINGS | {"RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(name, value)
    import ray

    def measure(storage):
        quiet = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
        ray.init(address="local", num_cpus=WORKERS + 1, **quiet)
        try:
            from tests.benchmarks import rival_trainers

            runs = (rival_trainers.run_fits, rival_trainers.run_tuned_fits)
            return [run(storage, RIVALS, WORKERS, RIVAL_SECONDS) * WORKERS / RIVALS - RIVAL_SECONDS for run in runs]
        finally:
            ray.shutdown()

    return measure


@pytest.mark.benchmark
def test_overhead_of_a_sweep_against_a_trainer_for_every_cell(rivals, tmp_path, capsys, compared):
    from crossfold.platform.edge.launch.run_cells import run_cells
    from crossfold.platform.workspace.workspace import Workspace

    cells = [fake_cell(seed, epochs=EPOCHS, seconds=SECONDS / EPOCHS) for seed in range(CELLS)]
    ideal = CELLS * SECONDS / WORKERS
    ours, fits, tuned = [], [], []
    for turn in range(TURNS):
        options = FleetOptions(workers=WORKERS, runner=SLEEPY)
        summary = run_cells(cells, Workspace(tmp_path / f"ours{turn}"), options)
        assert summary.done == CELLS
        whole = summary.wall_seconds / ideal - 1
        steady = summary.steady_seconds / ideal - 1
        ours.append((summary.wall_seconds - ideal) * WORKERS / CELLS)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{CELLS} cells of {SECONDS:.0f} s on {WORKERS} workers: overhead {whole:.2%} in all, {steady:.2%} "
                f"between the first start and the last end, start-up {summary.startup_seconds:.1f} s once\n"
            )
        for taken, seconds in zip((fits, tuned), rivals(tmp_path / f"rivals{turn}"), strict=True):
            taken.append(seconds)
    beyond = "a cell beyond its own seconds"
    less = [
        compared(beyond, rival, ours=ours, theirs=theirs, goal=LESS)
        for rival, theirs in (("a TorchTrainer.fit a cell", fits), ("a Tune trial around a fit", tuned))
    ]
    assert min(less) > 1
    if FULL:
        assert whole < WHOLE
        assert steady < STEADY
        assert min(less) >= LESS
