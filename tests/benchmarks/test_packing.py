"""Whether cells that differ by target and seed alone train quicker as one stacked model than one after the other.

Sizes are those of the demo: 16 windows of 60 frames, 64 features a modality, encoders 32 wide. Two models are the
targets of one seed, which read the same windows; three are seeds; six are both. Steps are timed in turns, in one thread
on one core, by their processor time. `pytest -s --benchmarks tests/benchmarks/test_packing.py -k rjca` prints a row;
`CROSSFOLD_TURNS=15` is what docs/scheduling.md was measured with.
`lstm` is missing: `vmap` has no rule for torch's LSTM, whose dropout takes no generator of ours.
"""

import gc
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossfold.platform.core.seeds import dropout_seed
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.losses import loss_of
from crossfold.platform.training.train import make_optimizer
from crossfold.sweeps.recipe_files import load_recipe
from tests.benchmarks.rivals.stacked_cells import StackedCells
from tests.support.factories import make_cell, make_store

SYSTEMS = {
    "concat": {},
    "tca": {},
    "rjca": {},
    "rjca+dca": {},
    "rjcma": {"modalities": "audio+visual"},
    "transformer": {},
}
GROUPS = {2: (("valence", "arousal"), (0,)), 3: (("valence",), (0, 1, 2)), 6: (("valence", "arousal"), (0, 1, 2))}
"""K: the targets and the seeds of its models."""
TURNS = int(os.environ.get("CROSSFOLD_TURNS", "5"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    generator = np.random.default_rng(0)
    clips = [
        {
            "name": f"{partition}{index}",
            "partition": partition,
            "labels": generator.uniform(-1, 1, (600, 2)),
            "features": {m: generator.standard_normal((600, 64)) for m in ("audio", "visual")},
        }
        for partition in ("train", "validation")
        for index in range(2)
    ]
    return make_store(tmp_path_factory.mktemp("stores"), clips)


class Group:
    """The same cells twice: one after the other, and stacked."""

    def __init__(self, system, store, count, dtype):
        recipe = load_recipe("demo")
        targets, seeds = GROUPS[count]
        self.cells = [
            make_cell(system, store=store, params=SYSTEMS[system], recipe=recipe, targets=(target,), seed=seed)
            for seed in seeds
            for target in targets
        ]
        opened = [open_data(cell, store.path, "cpu") for cell in self.cells]
        self.models = [data.new_model().to(dtype).train() for data in opened]
        chosen = [np.random.default_rng(cell.seed).permutation(16) for cell in self.cells]
        batches = [data.training.source.batch(windows) for data, windows in zip(opened, chosen, strict=True)]
        assert all(batch.real.all() for batch in batches)
        self.batches = [replace(b, x={m: x.to(dtype) for m, x in b.x.items()}) for b in batches]
        self.recipe = recipe
        # Before a step is taken: it copies the weights.
        self.stack = StackedCells(self.models, recipe, [dropout_seed(cell) for cell in self.cells])
        self.optimizers = [make_optimizer(list(model.parameters()), recipe.optimizer) for model in self.models]
        if len(seeds) == 1:
            self.x = self.batches[0].x
        else:
            self.x = {m: torch.stack([batch.x[m] for batch in self.batches]) for m in self.batches[0].x}

    def step(self, k):
        model, batch, optimizer = self.models[k], self.batches[k], self.optimizers[k]
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(batch.x, batch.real), batch, self.recipe.loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.recipe.optimizer.clip_norm)
        optimizer.step()

    def serial(self):
        for k in range(len(self.cells)):
            self.step(k)

    def stacked(self):
        self.stack.step(self.x, self.batches)


def difference(group):
    """The largest of any weight after three steps of each model, with its own dropout, one by one and stacked."""
    for k, cell in enumerate(group.cells):
        torch.manual_seed(dropout_seed(cell))
        for _ in range(3):
            group.step(k)
    for _ in range(3):
        group.stacked()
    return max(
        (group.stack.params[name][k] - alone).abs().max().item()
        for k, model in enumerate(group.models)
        for name, alone in model.named_parameters()
    )


def seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.benchmark
@pytest.mark.parametrize("system", SYSTEMS)
def test_stacked_cells_equal_single_ones_and_their_time_is_printed(one_core, store, system, compared):
    for count in GROUPS:
        group = Group(system, store, count, torch.float64)
        with arithmetic(group.cells[0]):
            assert difference(group) < 1e-12
        group = Group(system, store, count, torch.float32)
        with arithmetic(group.cells[0]):
            ways = {"serial": group.serial, "stacked": group.stacked}
            took = {way: [] for way in ways}
            gc.collect()
            for _ in range(TURNS + 2):
                for way, work in ways.items():
                    took[way].append(seconds(work))
        serial, stacked = (np.array(took[way][2:]) for way in ways)
        low, ratio, high = np.quantile(serial / stacked, [0.25, 0.5, 0.75])
        print(f"\n| {system} | {count} | {np.median(serial) / count * 1e3:.1f} | {ratio:.2f} | {low:.2f}-{high:.2f} |")
        compared(f"{count} steps of {system}, one by one", "one stacked model", ours=serial, theirs=stacked)
