"""Thousands of cells on a cluster of many nodes: the real fleet, queue and workers, on GPUs that nobody has.

All nodes are processes of this machine, each with a raylet of its own, and claim GPUs; cells sleep for durations drawn
from a log-normal distribution. What is left of a cell when it sleeps is what the engine does: leases, reports, events,
the driver's books. Every worker, the queue and the driver share the few cores that are here, which a cluster's do not,
so a cell costs milliseconds of them, and cells that last milliseconds would measure these cores. The mean of half a
second is chosen so that the engine needs well under half of two cores with 16 workers; real cells last minutes, and
the same engine then serves a hundred times as many workers.

Three turns of 1,000 cells show the noise; `CROSSFOLD_BENCH_FULL=1` runs 10,000 at once, for seven minutes.
"""

import os
import random
import sys
import time
from collections import Counter

import pytest

from crossfold.platform.scheduling.fleet_options import FleetOptions
from tests.support.factories import fake_cell
from tests.support.trials import LASTING

FULL = bool(os.environ.get("CROSSFOLD_BENCH_FULL"))
CELLS, TURNS = (10_000, 1) if FULL else (1_000, 3)
NODES, GPUS = 4, 4
MEDIAN, SIGMA, LONGEST = 0.35, 0.8, 8.0
"""Of the drawn seconds: log-normal, cut off at the longest."""
ERROR = 0.25
"""By which a forecast is wrong, at most."""
ABOVE_BOUND = 0.05
"""By which 10,000 cells take longer than the bound, at most; with 1,000, the last cells are a larger share."""


@pytest.fixture
def cluster(importable, monkeypatch):
    from crossfold.platform.edge.fleet.ray_connection import RAY_SETTINGS

    for name, value in (RAY_SETTINGS | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 150 * 2**20, "include_dashboard": False}
    cluster = Cluster(head_node_args=head, initialize_head=True)
    for _ in range(NODES):
        cluster.add_node(num_cpus=GPUS, num_gpus=GPUS, object_store_memory=100 * 2**20, wait=False)
    yield cluster
    cluster.shutdown()


@pytest.mark.benchmark
def test_cells_of_drawn_durations_take_hardly_longer_than_they_must(cluster, workspace, capsys, compared):
    from crossfold.platform.edge.fleet.ray_fleet import Fleet
    from crossfold.platform.scheduling.run_order import Forecast

    slots = NODES * GPUS
    rng = random.Random(6)
    began = time.monotonic()
    options = FleetOptions(
        workers=slots, address=cluster.address, use_gpu=True, gpu_bytes=16 * 2**30, device="cpu",
        runner=LASTING, resize_seconds=3,
    )  # fmt: skip
    taken, bounds = [], []
    with Fleet(workspace, options) as fleet:
        while fleet.present < slots:
            fleet.drain()
            time.sleep(0.2)
        startup = time.monotonic() - began
        for turn in range(TURNS):
            seconds = [min(rng.lognormvariate(0, SIGMA) * MEDIAN, LONGEST) for _ in range(CELLS)]
            cells = [fake_cell(turn * CELLS + at, seconds=value) for at, value in enumerate(seconds)]
            known = Forecast({
                cell.cell_id: value * rng.uniform(1 - ERROR, 1 + ERROR)
                for cell, value in zip(cells, seconds, strict=True)
            })  # fmt: skip
            done: Counter[str] = Counter()
            started = time.monotonic()
            fleet.submit(known.in_turn(cells, slots), known.epoch_seconds(cells))
            while done.total() < CELLS:
                for event in fleet.drain():
                    assert event.kind != "failed", event.failure
                    done[event.cell_id] += event.kind == "finished"
                time.sleep(fleet.poll_seconds)
            taken.append(time.monotonic() - started)
            bounds.append(max(sum(seconds) / slots, max(seconds)))
            assert +done == dict.fromkeys((cell.cell_id for cell in cells), 1)
            with capsys.disabled():
                sys.stdout.write(
                    f"\n{CELLS:,} cells of {sum(seconds) / CELLS:.2f} s in the mean on {NODES} nodes of {GPUS} GPUs: "
                    f"{taken[-1]:.1f} s, {taken[-1] / bounds[-1] - 1:.2%} above the bound of {bounds[-1]:.1f} s; "
                    f"start-up {startup:.1f} s\n"
                )
    name, share = f"{CELLS:,} cells on {NODES} nodes", bounds[-1] / taken[-1]
    compared(name, "the lower bound of any order", ours=taken, theirs=bounds, share=share)
    if FULL:
        assert taken[-1] <= (1 + ABOVE_BOUND) * bounds[-1]
