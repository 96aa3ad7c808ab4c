"""The JSON schemas for editors accept and refuse what the readers of the files accept and refuse."""

import json

import jsonschema
import pytest
import yaml

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.app import main
from crossfold.sweeps.recipe_files import RECIPES, load_recipe
from crossfold.sweeps.schemas import KINDS, recipe_fields, schema, system_params
from crossfold.sweeps.sweep_files import Search, Sweep, find_sweep, load, shipped_sweeps


@pytest.fixture(scope="module")
def checkers():
    made = {kind: schema(kind) for kind in KINDS}
    for found in made.values():
        jsonschema.Draft202012Validator.check_schema(found)
    return {kind: jsonschema.Draft202012Validator(found) for kind, found in made.items()}


SWEEP = {"name": "mine", "corpus": "puppets", "recipe": "demo", "systems": ["concat"]}
SEARCH = {
    "name": "mine", "corpus": "puppets", "recipe": "demo", "system": "rjca", "trials": 3,
    "space": {"iterations": {"int": [1, 4]}, "recipe.optimizer.lr": {"log": [0.001, 0.01]}},
}  # fmt: skip


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_sweep_that_ships_passes(checkers, name):
    kind = "search" if not isinstance(load(name), Sweep) else "sweep"
    checkers[kind].validate(yaml.safe_load(find_sweep(name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_passes(checkers, path):
    checkers["recipe"].validate(yaml.safe_load(path.read_text(encoding="utf-8")))


FORMS = [
    {"systems": ["concat", {"rjca": {"iterations": [1, 2]}}, {"system": "hgrjca", "params": {"iterations": 2}}]},
    {"systems": [{"rjca": None}]},
    {"systems": ["system_of_a_plugin", {"system_of_a_plugin": {"width": 3}}]},
    {"selection": "held_out"},
    {"selection": ["reported", "held_out"]},
    {"set": {"epochs": 3, "optimizer.lr": 0.1, "temporal.widths.visual": 8, "optimizer": {"lr": 0.1}}},
    {"set": {"post": "ca2021", "stress": "quick", "optimizer.forced.lr": 0.01}},
    {"set": None, "store": None, "joint_targets": True},
    {"corpus": "corpus_of_a_plugin", "recipe": "mine.yaml"},
]


@pytest.mark.parametrize("change", FORMS, ids=str)
def test_a_form_that_the_reader_takes_passes(checkers, change):
    changed = SWEEP | change
    read = {**changed, "set": changed.get("set") or {}}  # `load` takes `set:` without a value for no change
    Sweep.parse(read, "mine.yaml")
    load_recipe("demo", {key: value for key, value in read["set"].items() if key != "optimizer"})
    checkers["sweep"].validate(changed)


FAULTS = [
    {"seed": [0]},
    {"seeds": 0},
    {"systems": "rjca"},
    {"systems": []},
    {"systems": [{"rjca": {}, "concat": {}}]},
    {"selection": ["reported", "other"]},
    {"folds": ["zero"]},
    {"recipe": 3},
]


@pytest.mark.parametrize("change", FAULTS, ids=str)
def test_a_fault_that_the_reader_refuses_is_marked(checkers, change):
    with pytest.raises(UserError):
        Sweep.parse(SWEEP | change, "mine.yaml")
    assert not checkers["sweep"].is_valid(SWEEP | change)


@pytest.mark.parametrize("key", ["name", "corpus", "recipe", "systems"])
def test_what_is_missing_is_marked(checkers, key):
    assert not checkers["sweep"].is_valid({name: value for name, value in SWEEP.items() if name != key})


@pytest.mark.parametrize(
    "systems", [[{"rjca": {"iteration": 2}}], [{"rjca": {"iterations": 0}}], [{"rjca": {"iterations": [1, "two"]}}]]
)
def test_a_wrong_parameter_of_a_known_system_is_no_form_of_it(checkers, systems):
    params = checkers["sweep"].schema["$defs"]["params of rjca"]
    ((given,),) = [entry.values() for entry in systems]
    assert not jsonschema.Draft202012Validator(params).is_valid(given)
    assert not checkers["sweep"].is_valid(SWEEP | {"systems": systems})


def test_a_search_passes_and_its_faults_are_marked(checkers):
    Search.parse(SEARCH, "mine.yaml")
    checkers["search"].validate(SEARCH)
    block = {name: SEARCH[name] for name in ("trials", "space")} | {"sampler": "gp", "objective": ["ccc", "flops"]}
    block["space"] = {**block["space"], "iterations": "default", "temperature": {"log": [1, 2], "when": {"relu": True}}}
    sweep = {name: SWEEP[name] for name in SWEEP} | {"systems": ["rjca", "grjca"], "search": block}
    checkers["search"].validate(sweep | {"winner": {"set": {"epochs": 9}}})
    for change in ({"sampler": "tep"}, {"budget": {"trails": 3}}, {"space": {"iterations": {"lgo": [1, 2]}}}):
        assert not checkers["search"].is_valid(sweep | {"search": block | change}), change
    assert not checkers["search"].is_valid(sweep | {"winner": {"sedes": [1]}})
    for change in ({"trials": 0}, {"space": {}}, {"space": {"iterations": {"float": [1, 2]}}}, {"systems": ["rjca"]}):
        assert not checkers["search"].is_valid(SEARCH | change), change


@pytest.mark.parametrize("change", [{"epoch": 3}, {"hop": 0}, {"post": "smooth"}, {"optimizer": {"kind": "lion"}}])
def test_a_wrong_recipe_is_marked(checkers, change):
    with pytest.raises(UserError):
        load_recipe("demo", change)
    assert not checkers["recipe"].is_valid(change)


def test_every_field_says_what_it_is():
    """An editor shows the text, and so does the page of all fields."""
    fields = [(name, model.model_fields[own].description) for name, model, own in recipe_fields()]
    fields += [(f"{kind}.{name}", field.description) for kind in ("sweep", "search")
               for name, field in KINDS[kind].model_fields.items()]  # fmt: skip
    fields += [(f"{system}.{name}", field.get("description")) for system, params in system_params().items()
               for name, field in params.get("properties", {}).items()]  # fmt: skip
    assert [name for name, text in fields if not text] == []
    assert len(fields) > 150


def test_the_command_prints_a_schema(capsys, checkers):
    with pytest.raises(SystemExit) as end:
        main(["schema", "search"])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out) == checkers["search"].schema


def test_an_unknown_kind_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        main(["schema", "sweeps"])
    assert end.value.code == 2
    assert "did you mean 'sweep'" in capsys.readouterr().err
