"""Folds whose reported clips were seen when a recipe or parameters were chosen, as launched sweeps say them."""

import pytest

from crossfold.platform.workspace.documents import seen_cells
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.launched import remember_sweep
from crossfold.sweeps.prepared import prepare_cells
from crossfold.sweeps.sweep_files import Search, load
from crossfold.sweeps.trials import seen_folds
from tests.support.factories import make_store, synthetic_clips


@pytest.fixture
def puppets(tmp_path):
    """A workspace with a store that has the name of the puppets."""
    space = Workspace(tmp_path / "ws")
    make_store(space.paths.stores, synthetic_clips(10, 60), corpus="puppets")
    return space


@pytest.mark.parametrize(
    ("overrides", "folds"),
    [
        ((), (1,)),
        (("folds=[0]",), ()),
        (("folds=[0, 1, 2, 3]",), (1, 2, 3)),
        (("recipe=dca2024",), ()),
        (("seen=[]",), ()),
        (("seen=[0]",), (0,)),
    ],
    ids=str,
)
def test_the_demo_says_which_folds_the_choice_of_its_recipe_saw(puppets, overrides, folds):
    prepared = prepare_cells(load("demo", overrides), puppets)
    assert prepared.seen == folds
    remember_sweep(prepared, puppets)
    assert seen_cells(puppets.paths) == {cell.cell_id for cell in prepared.plan.cells if cell.fold in folds}


def test_other_corpora_were_not_seen_when_the_recipe_was_chosen(tmp_path):
    space = Workspace(tmp_path / "ws")
    make_store(space.paths.stores, synthetic_clips(10, 60))
    assert prepare_cells(load("demo", ("corpus=synthetic",)), space).seen == ()


def test_what_was_seen_stays_seen_and_a_file_that_is_none_hides_nothing(puppets):
    first = prepare_cells(load("demo"), puppets)
    remember_sweep(first, puppets)
    before = seen_cells(puppets.paths)
    assert before
    remember_sweep(prepare_cells(load("demo", ("seen=[]",)), puppets), puppets)
    (puppets.paths.sweeps / "other.json").write_text("[")
    assert seen_cells(puppets.paths) == before


def test_a_winner_has_what_the_search_saw_and_what_the_choice_of_its_recipe_saw(puppets):
    from crossfold.datasets.store.feature_store import FeatureStore

    store = FeatureStore(puppets.find_store("puppets"))
    shipped = load("search-demo")
    assert isinstance(shipped, Search)
    assert (shipped.winner_folds, seen_folds(shipped, store)) == ((0,), ())
    other = shipped.model_copy(update={"fold": 1})
    assert other.winner_folds == (0,)
    both = load("search-demo", ("fold=1", "winner={folds: [0, 1]}", "allow_seen=true"))
    assert seen_folds(both, store) == (0, 1)
    assert load("search-demo", ("fold=1", "winner={}")).winner_folds == (1,)
