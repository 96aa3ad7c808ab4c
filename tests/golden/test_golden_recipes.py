"""Twenty optimisation steps of every system under every recipe of a paper, frozen, in double precision.

What a recipe says is kept: optimiser, schedule, loss, head, encoders, labels of clips, the frames it drops. Its sizes
are not: windows, batches, widths and epochs are cut to `SMALL`, features stand in for backbones, and rates below 1e-3
are raised to it, so that twenty steps move more than rounding. Regenerate with `python tests/golden/regenerate.py`.
"""

import itertools
import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from crossfold.fusion_models.catalogue import system_names
from crossfold.platform.core.outcome import Silent
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.train import train
from crossfold.sweeps.recipe_files import load_recipe, shipped_recipes
from tests.support.factories import make_cell, make_store, synthetic_clips

pytestmark = pytest.mark.usefixtures("in_double_precision")

GOLDEN = Path(__file__).parent / "recipe_curves.json"
TOLERANCE = [1e-6, 2e-4, 2e-4]
"""Of the loss and the two CCC. A bias that stands before a batch norm has no gradient but rounding, which Adam scales
up; it cancels in training and not in validation, where running means lag behind. Processors differ by up to 6e-5.
"""
RECIPES = [name for name in shipped_recipes() if not name.endswith("+features") and name not in ("demo", "dose")]
SMALL = {
    "backbones": {},
    "window": 8,
    "batch": 4,
    "epochs": 2,
    "temporal.width": 4,
    "temporal.widths": {},
    "temporal.channels": {},
    "temporal.levels": 2,
    "temporal.kernel": 2,
    "head.hidden": 4,
    "optimizer.plateau_patience": 0,
}
STEPS = 20


def recipe_of(name):
    """The recipe at the size of a test."""
    whole = load_recipe(name)
    changes = {
        **SMALL,
        "optimizer.lr": max(whole.optimizer.lr, 1e-3),
        "optimizer.warmup_epochs": min(whole.optimizer.warmup_epochs, 1),
        "clip.frames": min(whole.clip.frames, 2),
        "hop": 2 if whole.clip.frames > 1 else 5,
    }
    if whole.clip.predicts == "frame":
        changes["epochs"] = 3  # sliding windows are fewer
    if whole.head.recurrent_width:
        changes["head.recurrent_width"] = 4
    return load_recipe(name, changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six clips of audio, visual and text, with gaps in the labels of one target and of both."""
    clips = synthetic_clips(clips=6, frames=62, text=4)
    for index, clip in enumerate(clips):
        clip["labels"][10 + index : 13 + index] = -5
        clip["labels"][30 + index : 32 + index, index % 2] = -5
        del clip["present"]
    return make_store(tmp_path_factory.mktemp("golden") / "stores", clips)


def systems_of(name):
    """All systems, or the one that a recipe for a separately trained net is for."""
    alone = {"ca2021_audio": ["unimodal_audio"], "ca2021_visual": ["unimodal_visual"]}
    return alone.get(name, system_names())


@pytest.fixture(scope="module")
def known():
    """Curves by recipe: some are the same one at this size, and are trained once."""
    return {}


def curves_of(name, store, tmp_path, known):
    """Training loss and CCC of each epoch, by system."""
    recipe = recipe_of(name)
    key = (recipe.identity_json, tuple(systems_of(name)))
    if key not in known:
        known[key] = trained_curves(recipe, systems_of(name), store, tmp_path)
    return known[key]


def trained_curves(recipe, systems, store, tmp_path):
    found = {}
    for system in systems:
        cell = make_cell(system, store=store, targets=("valence", "arousal"), recipe=recipe)
        cell = cell.model_copy(update={"store": "golden"})
        with arithmetic(cell):
            data = open_data(cell, store.path, "cpu")
            assert math.ceil(len(data.training.source) / recipe.batch) * recipe.epochs >= STEPS
            model = data.new_model()
            progress = train(
                cell, model, data.training.source, partial(validate, data), Silent(), tmp_path / system
            ).progress
        columns = ("train_loss", "ccc_valence", "ccc_arousal")
        found[system] = [[round(row[column], 9) for column in columns] for row in progress.curve]
    return found


def by_line(curves):
    """JSON with a line a system, for diffs that people read."""
    recipes = [
        f"{json.dumps(recipe)}: {{\n"
        + ",\n".join(f" {json.dumps(s)}: {json.dumps(c)}" for s, c in found.items())
        + "\n}"
        for recipe, found in sorted(curves.items())
    ]
    return "{\n" + ",\n".join(recipes) + "\n}\n"


@pytest.mark.skipif("CROSSFOLD_REGENERATE" not in os.environ, reason="run by tests/golden/regenerate.py only")
def test_regenerate_recipes(store, tmp_path, known):
    GOLDEN.write_text(by_line({name: curves_of(name, store, tmp_path, known) for name in RECIPES}))


@pytest.mark.skipif("CROSSFOLD_REGENERATE" in os.environ, reason="the numbers are being regenerated")
@pytest.mark.parametrize("name", RECIPES)
def test_the_curves_of_a_recipe_are_the_golden_ones(name, store, tmp_path, known):
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, "a new recipe: run `python tests/golden/regenerate.py`"
    found = curves_of(name, store, tmp_path, known)
    assert set(found) == set(golden[name])
    for system, curve in found.items():
        assert (np.abs(np.asarray(curve) - np.asarray(golden[name][system])) <= TOLERANCE).all(), system


@pytest.mark.skipif("CROSSFOLD_REGENERATE" in os.environ, reason="the numbers are being regenerated")
def test_curves_differ_where_recipes_do():
    """Equal curves of two recipes that differ at this size too would mean a field that nothing reads."""
    golden = json.loads(GOLDEN.read_text())
    names = [name for name in RECIPES if "rjca" in golden[name]]
    for left, right in itertools.combinations(names, 2):
        alike = recipe_of(left).identity() == recipe_of(right).identity()
        assert (golden[left]["rjca"] == golden[right]["rjca"]) == alike, (left, right)
