"""The list of what the recipes `+released` do not repeat, against their fields and the page that shows it."""

import re

import pytest

from crossfold.sweeps.not_repeated import NOT_REPEATED, left_out_of
from crossfold.sweeps.recipe_files import RECIPES, flat, load_recipe, shipped_recipes
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "released.md").read_text("utf-8")


@pytest.mark.parametrize("entry", NOT_REPEATED, ids=lambda entry: entry.fact)
def test_an_entry_names_recipes_that_ship_and_a_field_that_differs(entry):
    """A fact whose value a recipe has is repeated, and leaves the list."""
    for name in entry.recipes:
        assert name in shipped_recipes()
        assert name.endswith("+released")
        fields = flat(load_recipe(name))
        if entry.field:
            assert entry.field in fields
            assert entry.released is None or fields[entry.field] != entry.released
        else:
            assert entry.released is None


def test_the_page_shows_the_list():
    rows = re.findall(r"^\| ([A-G]\d+[a-z]?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    shown = [(fact, recipes, code, why) for fact, recipes, code, why in rows]
    assert shown == [(e.fact, ", ".join(f"`{name}`" for name in e.recipes), e.code, e.why) for e in NOT_REPEATED]


def test_no_recipe_has_a_list_of_its_own():
    for path in RECIPES.glob("*.yaml"):
        assert "not repeated:" not in path.read_text("utf-8").lower()
        if path.stem.endswith("+released"):
            assert "docs/released.md" in path.read_text("utf-8")


def test_every_paper_with_public_code_has_what_is_left_out_of_it():
    names = [name for name in shipped_recipes() if name.endswith("+released")]
    assert all(left_out_of(name) for name in names)
    assert left_out_of("rjcma2024+released+features") == left_out_of("rjcma2024+released")
    assert left_out_of("rjcma2024") == []
