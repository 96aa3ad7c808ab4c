"""Identity of cells, seeds, failures and the errors that cross processes."""

import dataclasses
import pickle

import pytest
from pydantic import ValidationError

from crossfold.platform.core.cell import Cell, Inner
from crossfold.platform.core.errors import Cancelled, DataError, Diverged, UserError
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.outcome import Failure, FailureClass, Outcome, Silent
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.core.seeds import batch_seed, seed_for, weight_seed


def cell(**changes):
    facts = {
        "system": "rjca",
        "params": {"iterations": 3, "tied": False},
        "corpus": "puppets",
        "store": "0123456789abcdef",
        "fold": 0,
        "targets": ("valence",),
        "seed": 0,
        "recipe": Recipe(),
    }
    return Cell(**(facts | changes))


def test_the_identity_of_a_cell_is_frozen():
    """A golden id: if this changes, every workspace in the world computes everything again. Raise PROTOCOL instead."""
    assert cell().cell_id == "7585ec9dfdcb1865"


@pytest.mark.parametrize(
    "change",
    [
        {"system": "jca"},
        {"params": {"iterations": 2, "tied": False}},
        {"corpus": "affwild2"},
        {"store": "f" * 16},
        {"fold": 1},
        {"inner": Inner(index=0, of=2)},
        {"inner": Inner(index=1, of=2)},
        {"inner": Inner(index=0, of=3)},
        {"targets": ("arousal",)},
        {"targets": ("valence", "arousal")},
        {"seed": 1},
        {"recipe": Recipe(batch=13)},
        {"protocol": 2},
        {"revision": 2},
    ],
    ids=str,
)
def test_every_fact_is_part_of_the_identity(change):
    assert cell(**change).cell_id != cell().cell_id


def test_labels_are_no_part_of_the_identity():
    assert cell(recipe=Recipe(name="another")).cell_id == cell().cell_id
    shuffled = cell(params={"tied": False, "iterations": 3})
    assert shuffled.cell_id == cell().cell_id


def test_spelling_of_a_default_does_not_matter():
    assert cell(recipe=Recipe.parse({"batch": 12, "epochs": 100}, "test")).cell_id == cell().cell_id
    assert cell(recipe=Recipe.parse({"optimizer": {"lr": 0.001}}, "test")).cell_id == cell().cell_id


def test_a_cell_comes_back_from_json_with_its_identity():
    for made in (cell(), cell(inner=Inner(index=1, of=3), targets=("valence", "arousal"))):
        back = Cell.model_validate_json(made.model_dump_json())
        assert back == made
        assert back.cell_id == made.cell_id
        assert pickle.loads(pickle.dumps(made)).cell_id == made.cell_id


def test_cells_are_frozen_and_strict():
    with pytest.raises(ValidationError):
        cell().seed = 3
    with pytest.raises(ValidationError):
        cell(colour="red")


def test_a_cell_of_another_seed_is_the_cell_made_anew():
    made = cell(inner=Inner(index=1, of=3)).with_seed(7)
    assert made == cell(inner=Inner(index=1, of=3), seed=7)
    assert made.cell_id == cell(inner=Inner(index=1, of=3), seed=7).cell_id
    assert made.model_copy(update={"fold": 2}).cell_id == cell(inner=Inner(index=1, of=3), seed=7, fold=2).cell_id


def test_names_for_people():
    assert cell().label == f"rjca valence fold 0 seed 0 [{cell().cell_id[:6]}]"
    made = cell(inner=Inner(index=1, of=3), targets=("valence", "arousal"))
    assert made.label == f"rjca valence+arousal fold 0 inner 2/3 seed 0 [{made.cell_id[:6]}]"
    other = cell().model_copy(update={"recipe": cell().recipe.model_copy(update={"selection": "held_out"})})
    assert other.label == f"rjca valence fold 0 seed 0 held out [{other.cell_id[:6]}]"
    assert made.target == "valence+arousal"


@pytest.mark.parametrize(("index", "of"), [(-1, 2), (0, 1), (2, 2), (5, 3)])
def test_an_inner_fold_is_one_of_those_there_are(index, of):
    with pytest.raises(ValidationError):
        Inner(index=index, of=of)


def test_canonical_json_has_one_spelling():
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_seeds_depend_on_what_they_say():
    assert batch_seed(cell(), 3) == batch_seed(cell(system="ca", params={}), 3)
    assert batch_seed(cell(), 3) == batch_seed(cell(targets=("arousal",)), 3)
    assert batch_seed(cell(), 3) == batch_seed(cell(recipe=Recipe(batch=3)), 3)
    varied = [batch_seed(cell(**c), e) for c, e in [({}, 0), ({}, 1), ({"fold": 1}, 0), ({"seed": 1}, 0)]]
    assert len(set(varied)) == 4
    part = ("fusion.attend.blocks.0.fc", {"weight": (4, 4)})
    assert weight_seed(cell(), *part) == weight_seed(cell(system="jca", params={}), *part)
    assert weight_seed(cell(), *part) != weight_seed(cell(), part[0], {"weight": (4, 5)})
    facts = [{}, {"fold": 1}, {"targets": ("arousal",)}, {"seed": 1}]
    assert len({weight_seed(cell(**c), *part) for c in facts}) == len(facts)
    assert weight_seed(cell(), "fusion.attend.blocks.1.fc", part[1]) != weight_seed(cell(), *part)
    assert 0 <= seed_for("anything", x=1) < 2**63
    assert seed_for("a", x=1) != seed_for("b", x=1)


def test_seeds_are_frozen():
    """Golden: the order of batches of every finished cell depends on it."""
    assert seed_for("batches", store="s", fold=0, seed=0, epoch=0) == 1155710109911580295


def test_a_silent_reporter_listens():
    assert Silent().epoch("id", None) is None


@pytest.mark.parametrize("kind", [UserError, DataError])
def test_errors_cross_processes_as_what_they_are(kind):
    error = pickle.loads(pickle.dumps(kind("the problem", "the remedy")))
    assert type(error) is kind
    assert (error.problem, error.remedy) == ("the problem", "the remedy")
    assert str(error) == "the problem\n  -> the remedy"


@pytest.mark.parametrize("kind", [Diverged, Cancelled])
def test_plain_errors_cross_processes(kind):
    assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"


def test_failures_are_plain_data():
    failure = Failure("id", "label", FailureClass.OOM, 2, "message", "tail", "2026-01-01T00:00:00+00:00")
    assert dataclasses.asdict(failure)["kind"] == "oom"
    assert Outcome("failed", 1.0, failure).failure.attempt == 2
    assert {kind.value for kind in FailureClass} == {"data", "code", "diverged", "oom", "infra"}
