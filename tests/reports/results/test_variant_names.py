"""What variants are called: no two of a sweep, or of a workspace, share a name, in reports and in the terminal."""

import json

import pandas as pd
import pytest

from crossfold.platform.core.hashing import canonical_json
from crossfold.reports.results.load import variant_names
from crossfold.reports.results.systems import system_label
from crossfold.sweeps import launched, sweep_files
from crossfold.sweeps.plan import make_cell, recipes_of
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.system_facts import variant_facts

SWEEPS = [name for name in sweep_files.shipped_sweeps() if isinstance(sweep_files.load(name), sweep_files.Sweep)]


def rows_of(setting, variants):
    rows = [(setting, system, canonical_json(params)) for system, params in variants]
    cells = pd.DataFrame(rows, columns=["setting", "system", "params"])
    return cells.assign(variant=cells["system"] + " " + cells["params"])


def named(*settings):
    cells = pd.concat([rows_of(str(at), variants) for at, variants in enumerate(settings)], ignore_index=True)
    names = variant_names(cells, {})
    assert set(names) == set(cells["variant"])
    return names


def variants_of(name):
    facts = variant_facts([each for entry in sweep_files.load(name).systems for each in entry.expand()])
    return [(each.system, dict(each.params)) for each in facts]


@pytest.mark.parametrize("name", SWEEPS)
def test_no_two_variants_of_a_sweep_share_a_name(name, synthetic_store):
    names = named(variants_of(name))
    assert len(set(names.values())) == len(names)
    sweep = sweep_files.load(name)
    facts = variant_facts([each for entry in sweep.systems for each in entry.expand()])
    recipes = recipes_of(sweep, load_recipe(sweep.recipe, sweep.set))
    cells = [
        make_cell(variant, synthetic_store, recipe, 0, sweep.targets, 0)
        for variant in facts
        for recipe in recipes
        if recipe.selection == recipes[0].selection
    ]
    assert len(set(launched.variant_names(cells).values())) == len({cell.cell_id for cell in cells})


def test_no_two_variants_of_all_sweeps_share_a_name():
    """A workspace may hold them all, and the table of all settings has one row for each name."""
    names = named(*map(variants_of, SWEEPS))
    assert len(set(names.values())) == len(names) > 40


def test_variants_of_two_settings_are_distinguished_and_others_keep_short_names():
    one, two = {"residual": "sum", "width": 1}, {"residual": "tanh", "width": 1}
    names = named([("ca", one), ("ca", two), ("ca+dca", one), ("rjca", one)], [("ca", two), ("ca+dca", two)])
    assert sorted(names.values()) == [
        "CA (residual sum)",
        "CA (residual tanh)",
        "CA + DCA (residual sum)",
        "CA + DCA (residual tanh)",
        "RJCA",
    ]


def test_a_parameter_that_an_older_version_lacks_distinguishes():
    names = named([("ca", {})], [("ca", {"width": None})])
    assert sorted(names.values()) == ["CA", "CA (width None)"]


def test_a_title_of_a_plugin_that_another_system_has():
    cells = pd.concat([rows_of("0", [("ca", {}), ("mine", {})])])
    assert set(variant_names(cells, {"mine": system_label("ca")}).values()) == {"CA [ca]", "CA [mine]"}


def test_names_of_the_demo_and_of_its_sweep_of_a_dose():
    """Both have CA with DCA, with another residual each; one row of the table of all settings once had both."""
    names = named(variants_of("demo"), variants_of("dose-demo"))
    gated = {name: json.loads(variant.partition(" ")[2])["residual"] for variant, name in names.items()
             if variant.startswith("ca+dca ")}  # fmt: skip
    assert gated == {"CA + DCA (residual sum)": "sum", "CA + DCA (residual tanh)": "tanh"}
