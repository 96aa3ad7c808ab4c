"""How much of the variance of a paired difference is left where systems share their seeds.

Rival: weights and dropout seeded by the name and the parameters of the system, as under protocol 2.
Four systems with 8 seeds show it; `CROSSFOLD_BENCH_FULL=1` trains six with 12, in ten minutes, for docs/systems.md.
"""

import itertools
import os
from functools import partial

import numpy as np
import pytest

from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.core import seeds
from crossfold.platform.core.outcome import Silent
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.modeling import determinism, emotion_model
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.train import train
from crossfold.sweeps.recipe_files import load_recipe
from tests.support.factories import make_cell, make_store, synthetic_clips

FULL = bool(os.environ.get("CROSSFOLD_BENCH_FULL"))
SEEDS = 12 if FULL else 8
SYSTEMS: dict[str, dict[str, int]] = {
    "jca+dca": {},
    "grjca at 1": {"iterations": 1},
    "jca": {},
    "rjca": {"iterations": 2},
} | ({"rjca+dca": {"iterations": 2}, "hgrjca": {"iterations": 2}} if FULL else {})
RUNS = itertools.count()
"""A checkpoint of its own for each training."""
SMALL = {
    "window": 20,
    "hop": 10,
    "epochs": 16,
    "temporal.width": 8,
    "temporal.levels": 2,
    "head.hidden": 8,
    "batch": 8,
    "patience": 16,
    "optimizer.lr": 3e-3,
}


def best_ccc(cell, store, place):
    """CCC of the best epoch of one training."""
    with arithmetic(cell):
        data = open_data(cell, store.path, "cpu")
        model = data.new_model()
        trained = train(
            cell, model, data.training.source, partial(validate, data), Silent(), place / cell.cell_id / str(next(RUNS))
        )
    return trained.progress.best_ccc


def by_name(cell, *facts):
    return seeds.seed_for(
        "by name", system=cell.system, params=cell.params, seed=cell.seed, facts=[str(f) for f in facts]
    )


def variance(scores, left, right):
    """Of the paired difference of two systems, over the seeds."""
    return np.var(scores[left] - scores[right], ddof=1)


@pytest.mark.benchmark
def test_shared_seeds_make_paired_differences_narrower(tmp_path, monkeypatch, compared):
    store = make_store(tmp_path / "stores", synthetic_clips(clips=12, frames=120))
    recipe = load_recipe("demo", SMALL)

    def scores():
        found = {}
        for label, params in SYSTEMS.items():
            name = label.partition(" ")[0]
            resolved = find_system(name).params.parse(params, name).model_dump(mode="json")
            cells = (make_cell(name, store=store, recipe=recipe, seed=seed) for seed in range(SEEDS))
            found[label] = np.array(
                [best_ccc(cell.model_copy(update={"params": resolved}), store, tmp_path) for cell in cells]
            )
        return found

    shared = scores()
    monkeypatch.setattr(emotion_model, "weight_seed", by_name)
    monkeypatch.setattr(determinism, "dropout_seed", by_name)
    own = scores()
    ratios = {}
    print(f"\nvariance of paired differences of CCC, {SEEDS} seeds: shared seeds / own seeds")
    for left, right in itertools.combinations(SYSTEMS, 2):
        variances = [variance(found, left, right) for found in (shared, own)]
        ratios[left, right] = variances[0] / variances[1]
        print(f"| {left} - {right} | {variances[0]:.2e} | {variances[1]:.2e} | {ratios[left, right]:.2f} |")
    print(f"median ratio {np.median(list(ratios.values())):.2f}")
    names = [pair for pair in ratios if pair != ("jca+dca", "grjca at 1")]  # equal functions: their variance is zero
    compared(
        "variance of paired differences",
        "seeds by the name of the system",
        ours=[variance(shared, *pair) for pair in names],
        theirs=[variance(own, *pair) for pair in names],
        unit="CCC^2",
    )
    assert ratios["jca+dca", "grjca at 1"] < 1e-6
    assert np.median(list(ratios.values())) < 0.7
