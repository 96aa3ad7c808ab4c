"""What a search costs beyond its trials, and what it keeps of them: 200 trials of a second on workers that sleep.

`CROSSFOLD_BENCH_FULL=1` runs 1,000, for ten minutes on an idle machine.

The processor time of a trial, of the driver and of all that it started, hardly depends on what else the machine does.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.support.factories import make_store

pytestmark = pytest.mark.benchmark

FULL = bool(os.environ.get("CROSSFOLD_BENCH_FULL"))
TRIALS, WORKERS, FIRST = 1_000 if FULL else 200, 4, 20
"""`FIRST`: the trial at which the fleet is warm and every library has been loaded."""
EPOCHS, EPOCH_SECONDS = 4, 0.25

DRIVER = """
import gc, json, sys, time
from pathlib import Path
import psutil
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.edge.search.run_search import run_search
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.sweep_files import Search
from tests.support.trials import JUDGED

search, store, root, first = Search.parse(json.loads(sys.argv[1]), "argv"), *sys.argv[2:4], int(sys.argv[4])
measured, ended, process = [], 0, psutil.Process()

def processor_seconds():
    seconds = 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.Error:
            continue
        # What ended processes have used counts with those that started them.
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds

def show(line):
    global ended
    if not line.startswith("trial"):
        return
    ended += 1
    if ended == first or ended % 50 == 0:
        gc.collect()
        measured.append([ended, time.monotonic(), process.memory_info().rss, processor_seconds()])
        print(json.dumps(measured[-1]), flush=True)

options = FleetOptions(workers=int(sys.argv[5]), runner=JUDGED)
run_search(search, FeatureStore(Path(store)), Workspace(Path(root)), options, show=show)
"""


def test_a_trial_costs_less_than_a_second_and_leaves_no_memory_behind(tmp_path, figure):
    nothing = np.zeros((4, 2))
    clips = [
        {"name": f"c{i}", "partition": part, "labels": nothing, "features": {"audio": nothing, "visual": nothing}}
        for i, part in enumerate(["train"] * 4 + ["validation"] * 2)
    ]
    store = make_store(tmp_path / "stores", clips, corpus="none")
    search = {
        "name": "s", "corpus": "none", "recipe": "demo", "set": {"epochs": EPOCHS}, "system": "rjca+dca",
        "inner_folds": 2, "seeds": [0], "targets": ["valence"], "trials": TRIALS, "scheduler": "none",
        "space": {"iterations": {"int": [1, 4]}, "temperature": {"log": [0.03, 3.0]}},
    }  # fmt: skip
    arguments = [json.dumps(search), store.path, tmp_path / "work", FIRST, WORKERS]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | {"CROSSFOLD_TEST_EPOCH_SECONDS": str(EPOCH_SECONDS)},
    )  # fmt: skip
    measured = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    (first, began, before, used), (last, ended, _, used_at_end) = measured[0], measured[-1]
    # Each trial has two cells, which run side by side, so half as many trials run at once as there are workers.
    overhead = (ended - began) / (last - first) * WORKERS / 2 - EPOCHS * EPOCH_SECONDS
    growth = (max(each[2] for each in measured) - before) / 2**20
    processor = (used_at_end - used) / (last - first)
    why = "Its trials sleep, so that all of it is overhead; how much it may be is asserted."
    figure("a trial of a search beyond its own seconds", overhead, "s", why=why)
    figure("processor time of such a trial", processor, "s", why=why)
    figure(f"memory that {last - first} trials leave in the driver", growth, "MiB", why=why)
    assert last == TRIALS
    assert overhead < 1
    assert growth < 20
