"""The identity of one cell of every system and of every recipe, frozen as commit ed74c6d computed it.

If one changes, workspaces compute its cells again. That is right only where the numbers changed too: raise the
`revision` of the system, or `PROTOCOL`, and regenerate with `python tests/golden/regenerate.py`.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from crossfold.fusion_models.catalogue import system_names
from crossfold.sweeps.recipe_files import load_recipe, shipped_recipes
from tests.support.factories import make_cell

GOLDEN = Path(__file__).parent / "cell_ids.json"


def id_of(system, recipe):
    store = SimpleNamespace(corpus="puppets", content_hash="0123456789abcdef")
    return make_cell(system, store=store, recipe=load_recipe(recipe)).cell_id


def today():
    return {
        "systems": {name: id_of(name, "demo") for name in system_names()},
        "recipes": {name: id_of("rjca", name) for name in shipped_recipes()},
    }


@pytest.mark.skipif("CROSSFOLD_REGENERATE" not in os.environ, reason="run by tests/golden/regenerate.py only")
def test_regenerate_cell_ids():
    GOLDEN.write_text(json.dumps(today(), indent=1, sort_keys=True) + "\n")


@pytest.mark.skipif("CROSSFOLD_REGENERATE" in os.environ, reason="the identities are being regenerated")
@pytest.mark.parametrize("axis", ["systems", "recipes"])
def test_identities_are_the_golden_ones(axis):
    """Equal in both directions: a system or a recipe that is new is added by regenerating."""
    assert today()[axis] == json.loads(GOLDEN.read_text())[axis]
