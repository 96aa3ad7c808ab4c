"""Ten times the clips take ten times the time and hardly more memory; ten times the cells cost as much a cell.

The rival of the large one is the small one as many times over, so 1 is the goal; above it the large one is cheaper.
"""

import contextlib
import threading
import time
from functools import partial
from itertools import count

import numpy as np
import pytest

from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.platform.core.outcome import Silent
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.features.prepare import prepare
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.train import train
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.recipe_files import load_recipe
from tests.benchmarks.test_big_store import RESIDENT, resident
from tests.support.factories import fake_cell, make_cell, make_store
from tests.support.trials import SLEEPY

pytestmark = pytest.mark.benchmark

TURNS, TIMES = 3, 10
MORE_MIB = 100
needs_memory = pytest.mark.skipif(not RESIDENT.exists(), reason="only Linux has this count of a process's own memory")


class Highest:
    """The most memory of this process's own while something ran, sampled by a thread."""

    def __init__(self):
        self.bytes = 0

    @contextlib.contextmanager
    def watched(self):
        ended = threading.Event()

        def watch():
            while not ended.wait(0.01):
                self.bytes = max(self.bytes, resident())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def measured(works, in_turns, compared, figure, name):
    """Times the small and the large work in turns, and keeps the difference of what memory they need."""
    highest = {size: Highest() for size in works}

    def watched(size):
        with highest[size].watched():
            works[size]()

    taken = in_turns({size: partial(watched, size) for size in works}, TURNS, time.process_time)
    small, large = sorted(works)
    compared(
        f"{name} of {TIMES} times the clips",
        f"the small one {TIMES} times",
        ours=taken[large],
        theirs=[TIMES * seconds for seconds in taken[small]],
        goal=1.0,
    )
    more = (highest[large].bytes - highest[small].bytes) / 2**20
    figure(
        f"memory that {TIMES} times the clips add to {name}",
        more,
        "MiB",
        why=f"The bound is absolute: {MORE_MIB} MiB, however large a corpus is.",
    )
    assert more < MORE_MIB


@needs_memory
def test_an_epoch_of_ten_times_the_clips(one_core, tmp_path, in_turns, compared, figure):
    generator = np.random.default_rng(0)

    def epoch_of(clips):
        store = make_store(
            tmp_path / str(clips),
            [
                {
                    "name": f"c{index}",
                    "partition": "train" if index % 5 else "validation",
                    "labels": generator.uniform(-1, 1, (3_000, 2)),
                    "features": {m: generator.standard_normal((3_000, 64)) for m in ("audio", "visual")},
                }
                for index in range(clips)
            ],
        )
        cell = make_cell("jca", store=store, recipe=load_recipe("demo", {"epochs": 1, "stress": "none"}))
        data = open_data(cell, store.path, "cpu")
        model, numbers = data.new_model(), count()

        def epoch():
            place = tmp_path / f"{clips}-{next(numbers)}"
            with arithmetic(cell):
                train(cell, model, data.training.source, partial(validate, data), Silent(), place)

        return epoch

    measured({clips: epoch_of(clips) for clips in (5, 50)}, in_turns, compared, figure, "an epoch")


@needs_memory
def test_preparing_ten_times_the_clips(one_core, tmp_path, in_turns, compared, figure):
    numbers = count()

    def prepare_of(clips):
        root = tmp_path / f"puppets{clips}"
        write_puppets(root, clips=clips, seconds=5.0)
        return lambda: prepare(Workspace(tmp_path / f"workspace{next(numbers)}"), "puppets", root, processes=1)

    measured({clips: prepare_of(clips) for clips in (4, 40)}, in_turns, compared, figure, "prepare")


def test_a_cell_among_1000_costs_as_much_as_one_among_100(tmp_path, importable, compared):
    """Beyond its own seconds, between the first start and the last end, on one of two workers."""
    from crossfold.platform.edge.launch.run_cells import run_cells

    seconds, workers = 0.2, 2
    beyond = {}
    for cells in (100, 1_000):
        asked = [fake_cell(seed, epochs=1, seconds=seconds) for seed in range(cells)]
        summary = run_cells(asked, Workspace(tmp_path / str(cells)), FleetOptions(workers=workers, runner=SLEEPY))
        assert summary.done == cells
        beyond[cells] = summary.steady_seconds * workers / cells - seconds
    small, large = beyond.values()
    compared(
        "overhead of a cell among 1,000", "that among 100", ours=[large], theirs=[small], goal=1.0, unit="s a cell"
    )
