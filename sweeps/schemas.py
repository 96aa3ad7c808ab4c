"""JSON schemas of sweep, search and recipe files, with which editors complete and check YAML.

They are made from the classes that read the files, so that they cannot differ. Names are those that this installation
knows; as a plug-in may add some, other names pass, and `crossfold plan` has the last word.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from crossfold.datasets.corpora.embedded.dose import DOSES
from crossfold.datasets.corpora.registry import CORPORA
from crossfold.fusion_models.catalogue import find_system, system_names
from crossfold.platform.core.evaluation_config import CHAINS, SUITES, Doses
from crossfold.platform.core.recipe import Recipe
from crossfold.sweeps.recipe_files import shipped_recipes
from crossfold.sweeps.sweep_files import Search, SearchSweep, Sweep, Winner

Kind = Literal["sweep", "search", "recipe"]
KINDS: dict[Kind, type[BaseModel]] = {"sweep": Sweep, "search": Search, "recipe": Recipe}
Schema = dict[str, Any]


def schema(kind: Kind) -> Schema:
    """The schema, in JSON Schema draft 2020-12, of one kind of file; descriptions are those of the fields."""
    more: list[type[BaseModel]] = [SearchSweep, Winner] if kind == "search" else []
    models: list[type[BaseModel]] = [KINDS[kind], *more]
    every: list[type[BaseModel]] = [*models, Recipe]
    asked: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in every]
    _, found = models_json_schema(asked, ref_template="#/$defs/{model}")
    defs: dict[str, Schema] = found["$defs"]
    recipe = defs["Recipe"]["properties"]
    for field, known in (("post", CHAINS), ("stress", SUITES)):
        doses = [Doses.model_json_schema()] if field == "stress" else []
        recipe[field] = _described(recipe[field], {"anyOf": [{"enum": [*known, None]}, *doses, _bare(recipe[field])]})
    forms = [model for model in models if model is not Winner]
    if kind != "recipe":
        params = system_params()
        for model in forms:
            _complete(defs, defs[model.__name__]["properties"], params)
    if kind == "search":
        _complete_search(defs)
    refs = [{"$ref": f"#/$defs/{model.__name__}"} for model in forms]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Crossfold {kind}",
        **({"$ref": refs[0]["$ref"]} if len(refs) == 1 else {"anyOf": refs}),
        "$defs": defs,
    }


def system_params() -> dict[str, Schema]:
    """The schema of the parameters of each system, by name."""
    return {name: find_system(name).params.model_json_schema() for name in system_names()}


def recipe_fields(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Dotted name, class and name there of every field that holds a value, in the order of the classes."""
    for name, field in model.model_fields.items():
        group = next(filter(None, get_args(field.annotation)), None) if field.default is None else field.annotation
        # A chain of post-processing has a name, or is given whole.
        if isinstance(group, type) and issubclass(group, BaseModel) and name != "post":
            yield from recipe_fields(group, f"{prefix}{name}.")
        else:
            yield prefix + name, model, name


def _complete(defs: dict[str, Schema], fields: dict[str, Schema], systems: dict[str, Schema]) -> None:
    """Adds the forms that the readers accept besides the plain one, and the names that are known."""
    defs["AnyValues"] = {"type": "object", "additionalProperties": True}
    changes = {name: {"$ref": f"#/$defs/{model.__name__}/properties/{own}"} for name, model, own in recipe_fields()}
    defs["RecipeChanges"] = {
        "type": "object",
        "properties": {**{name: {} for name in Recipe.model_fields}, **changes},
        # Entries of mappings, such as `temporal.widths.visual`, and of groups that may be null.
        "patternProperties": {r"^(backbones|temporal\.(widths|channels)|optimizer\.forced)\.": {}},
        "additionalProperties": False,
    }
    known = {"corpus": list(CORPORA), "recipe": shipped_recipes(), "system": list(systems)}
    dosed = "anyOf" in fields["corpus"]
    for name in known.keys() & fields.keys():
        fields[name] = _described(fields[name], {"anyOf": [{"enum": known[name]}, {"type": "string"}]})
    if dosed:
        doses = []
        for name, kind in DOSES.items():
            dose = _listable(kind.model_json_schema()) | {"type": "object", "required": ["name"]}
            doses.append(dose | {"properties": {"name": {"const": name}, **dose["properties"]}})
        several = {"type": "array", "items": {"anyOf": doses}, "minItems": 1}
        fields["corpus"]["anyOf"] += [*doses, several]
    for owner in (fields, defs["Winner"]["properties"] if "Winner" in defs else {}):
        if "set" in owner:
            owner["set"] = _described(owner["set"], {"anyOf": [{"$ref": "#/$defs/RecipeChanges"}, {"type": "null"}]})
    if "systems" in fields:
        defs |= {f"params of {name}": _listable(params) for name, params in systems.items()}
        params = {name: {"$ref": f"#/$defs/params of {name}"} for name in systems}
        one = {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": params}
        named = {"type": "object", "required": ["system"], "properties": {"system": {}, "params": {}}}
        variant = {"anyOf": [{"enum": list(systems)}, {"type": "string"}, one, named | {"additionalProperties": False}]}
        fields["systems"] = _described(fields["systems"], {"type": "array", "minItems": 1, "items": variant})
    if "selection" in fields:
        split = {"enum": ["reported", "held_out"]}
        several = {"type": "array", "items": split, "minItems": 1, "uniqueItems": True}
        fields["selection"] = _described(fields["selection"], {"anyOf": [split, several, {"type": "null"}]})
    if "space" in fields:
        searched = sorted({name for params in systems.values() for name in params.get("properties", {})})
        names = [*searched, *(f"recipe.{name}" for name in changes)]
        space = {"properties": {name: {"$ref": "#/$defs/Range"} for name in names}, "minProperties": 1}
        ranges = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Range"}}
        fields["space"] = _described(fields["space"], ranges | space)


def _complete_search(defs: dict[str, Schema]) -> None:
    """What the reader of a search takes in shorter forms."""
    known = defs["Search"]["properties"]["space"]["properties"]
    each = {"anyOf": [{"$ref": "#/$defs/Range"}, {"enum": ["default", None]}]}
    block = defs["SearchBlock"]["properties"]
    space = {"type": ["object", "null"], "properties": dict.fromkeys(known, each), "additionalProperties": each}
    block["space"] = _described(block["space"], space)
    for owner in (block, defs["Search"]["properties"]):
        names = {"enum": ["ccc", "parameters", "flops", "seconds"]}
        several = {"type": "array", "items": names, "minItems": 1, "uniqueItems": True}
        owner["objective"] = _described(owner["objective"], {"anyOf": [names, several]})
    conditions = defs["Range"]["properties"]
    conditions["when"] = _described(conditions["when"], {"type": ["object", "null"]})
    sweep = defs["SearchSweep"]["properties"]
    sweep["winner"] = _described(sweep["winner"], {"$ref": "#/$defs/Winner"})


def _listable(params: Schema) -> Schema:
    """Parameters of a system in a sweep: each a value, or a list of values, each of them a variant."""
    properties = {
        name: _described(field, {"anyOf": [_bare(field), {"type": "array", "items": _bare(field), "minItems": 1}]})
        for name, field in params.get("properties", {}).items()
    }
    closed = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    return closed | ({"$defs": params["$defs"]} if "$defs" in params else {})


def _bare(field: Schema) -> Schema:
    return {key: value for key, value in field.items() if key not in ("description", "default", "title")}


def _described(field: Schema, form: Schema) -> Schema:
    """`form` with what was said of the field."""
    return {key: field[key] for key in ("description", "default") if key in field} | form
