"""How fast an epoch trains, against the way the field trains RJCMA today (`rivals/published_loop.py`).

Both read the same features, and train and validate on the same windows, in turns, in one thread on one core. Their own
processor time is counted. `released` is the network of the public code, which the rival has; `printed` is that of 002,
whose attention compares frames, and three times, so no ratio is asked of it.
`pytest -s --benchmarks tests/benchmarks/test_training_epoch.py -k "loop[T]"` prints the ratios of the smallest size.
"""

import gc
import os
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from crossfold.platform.core.outcome import Silent
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.train import train
from crossfold.sweeps.recipe_files import load_recipe
from tests.benchmarks.rivals.published_loop import BATCH, HOP, WINDOW, PublishedModel, PublishedTrainer, WindowFiles
from tests.support.factories import make_cell, make_store

INPUTS = {"audio": 128, "visual": 512, "text": 768}
SIZES = {
    "T": SimpleNamespace(widths=(32, 32, 32), training=8, validation=2, parameters=990_665),
    "S": SimpleNamespace(widths=(128, 256, 128), training=2, validation=1, parameters=6_830_569),
    "L": SimpleNamespace(widths=(128, 512, 512), training=1, validation=1, parameters=29_931_113),
}
"""Widths of the encoders, videos of a batch of windows each, and the weights of the rival, as the public code has."""
WAYS = {"released": ("rjcma2024+released+features", {"variant": "released"}), "printed": ("rjcma2024+features", {})}
TURNS = int(os.environ.get("CROSSFOLD_TURNS", "5"))


def store_of(size, folder):
    generator = np.random.default_rng(0)
    frames = WINDOW + (BATCH - 1) * HOP
    clips = [
        {
            "name": f"{partition}{index}",
            "partition": partition,
            "labels": generator.uniform(-1, 1, (frames, 2)),
            "features": {m: generator.standard_normal((frames, width)) for m, width in INPUTS.items()},
        }
        for partition in ("train", "validation")
        for index in range(getattr(size, "training" if partition == "train" else "validation"))
    ]
    return make_store(folder, clips)


def written(split, store, folder):
    """The windows of a split as the files that the rival reads, with the statistics that it normalises by."""
    windows = split.source.windows
    for index, rows in enumerate(windows.rows):
        clip = next(name for name in split.clips if rows[0] in range(store.rows(name).start, store.rows(name).stop))
        place = folder / f"{clip}-{index:05d}"
        place.mkdir(parents=True)
        np.save(place / "frames.npy", rows - store.rows(clip).start)
        np.save(place / "label.npy", store.labels[rows][:, :1])
        for m in INPUTS:
            np.save(place / f"{m}.npy", store.features(m, 0)[rows])
    return WindowFiles(folder, tuple(INPUTS), split.source.arrays.statistics)


def our_epoch(size, way, store, place):
    """A function that trains an epoch of a cell of ours and validates it."""
    name, params = WAYS[way]
    changes = {"temporal.widths": dict(zip(INPUTS, size.widths, strict=True)), "epochs": 1}
    cell = make_cell("rjcma", store=store, params=params, recipe=load_recipe(name, changes))
    data = open_data(cell, store.path, "cpu")
    model = data.new_model()

    def epoch():
        checkpoint = place / f"{way}.checkpoint"
        with arithmetic(cell):
            train(cell, model, data.training.source, partial(validate, data), Silent(), checkpoint)
        checkpoint.unlink(missing_ok=True)  # an epoch of some seconds leaves one

    return data, epoch


def seconds(work):
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.benchmark
@pytest.mark.parametrize("name", SIZES)
def test_an_epoch_takes_less_than_that_of_the_published_loop(one_core, tmp_path, compared, name):
    size = SIZES[name]
    store = store_of(size, tmp_path / "stores")
    ways = {}
    for way in WAYS:
        data, ways[way] = our_epoch(size, way, store, tmp_path)
    splits = [written(getattr(data, split), store, tmp_path / split) for split in ("training", "selection")]
    assert [len(split) for split in splits] == [BATCH * size.training, BATCH * size.validation]
    rival = PublishedModel(INPUTS, dict(zip(INPUTS, size.widths, strict=True)))
    assert sum(parameter.numel() for parameter in rival.parameters()) == size.parameters
    turns = {"published": PublishedTrainer(rival, *splits, tmp_path).epoch, **ways}
    for work in turns.values():
        work()
    took = {way: [] for way in turns}
    for _ in range(TURNS):
        for way, work in turns.items():
            took[way].append(seconds(work))
    print(f"\n{name}: the published loop takes {np.median(took['published']) / size.training * 1e3:.0f} ms a step")
    for way in WAYS:
        ratio = compared(f"epoch {name} {way}", "the published loop", ours=took[way], theirs=took["published"])
        assert ratio > 1 or way == "printed"
