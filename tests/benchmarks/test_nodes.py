"""Workers that come and go with the nodes of a cluster, while a sweep runs.

It measures no speed, so it records nothing: that every cell ends once is the result.
"""

import sys
import time

import pytest

from crossfold.platform.scheduling.fleet_options import FleetOptions
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY


@pytest.fixture
def cluster(importable, monkeypatch):
    from crossfold.platform.edge.fleet.ray_connection import RAY_SETTINGS
    from tests.support.chaos import QUICK_TO_NOTICE, SETTINGS

    for name, value in (RAY_SETTINGS | SETTINGS).items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(head_node_args=head | {"_system_config": QUICK_TO_NOTICE}, initialize_head=True)
    yield cluster
    cluster.shutdown()


@pytest.mark.benchmark
def test_a_node_that_joins_gets_cells_and_one_that_leaves_takes_none_with_it(workspace, cluster, capsys):
    from crossfold.platform.edge.fleet.ray_fleet import Fleet

    cells = [fake_cell(seed, epochs=20, seconds=0.1) for seed in range(60)]
    sizes, done, failures, moments = [], [], [], {}
    node = None
    options = FleetOptions(address=cluster.address, resize_seconds=3, runner=SLEEPY)
    with Fleet(workspace, options, cells=cells) as fleet:
        fleet.submit(cells)
        while len(done) < len(cells):
            for event in fleet.drain():
                done += [event.cell_id] if event.kind == "finished" else []
                failures += [event.failure] if event.kind == "failed" else []
            if not sizes or sizes[-1] != fleet.workers:
                sizes.append(fleet.workers)
                moments[len(sizes)] = time.monotonic()
            if node is None and len(done) >= 2:
                node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, wait=False)
                moments["joined"] = time.monotonic()
            if node is not None and "left" not in moments and fleet.workers == 2 and len(done) >= 12:
                cluster.remove_node(node, allow_graceful=False)
                moments["left"] = time.monotonic()
            time.sleep(0.1)
    with capsys.disabled():
        sys.stdout.write(f"\nworkers as nodes came and went: {sizes}\n")
    assert sizes[:3] == [1, 2, 1]
    assert failures == []
    assert sorted(done) == sorted(cell.cell_id for cell in cells)
