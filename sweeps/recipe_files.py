"""Recipes as files: those that ship, a user's YAML, overlays of a few fields, and where each value comes from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.core.yaml_files import read_yaml

RECIPES = Path(__file__).parent / "recipes"

EXAMPLE = "window: 100  # choice: frames\nhop: 60\nepochs: 30\nbatch: 16"
"""How a recipe file begins."""

SOURCES = ("printed", "release", "choice")
"""Where a value comes from: a paper prints it, only the authors' public code has it, or Crossfold chose it."""

CHOSEN_ON: Mapping[str, tuple[str, int]] = {"demo": ("puppets", 0)}
"""Recipes whose values Crossfold chose by looking at clips: the corpus, and the fold whose training clips were seen."""

GROUPS = frozenset(
    name
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
)
"""Fields that hold fields. An overlay or `set` changes the named ones and leaves the others as they were."""


@dataclass(frozen=True)
class Source:
    """Where one value of a recipe comes from, by the comment on its line."""

    kind: str
    """One of `SOURCES`, or empty where the file does not say."""
    note: str


@dataclass(frozen=True)
class Difference:
    """One field in which two recipes differ; `sources` are those of both."""

    field: str
    values: tuple[Any, Any]
    sources: tuple[Source, Source]


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Crossfold, overlaid ones included."""
    # A file such as `+features.yaml` is an overlay on any recipe with backbones.
    names = sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.startswith("+"))
    trained = [name for name in names if load_recipe(name).backbones]
    return sorted(names + [f"{name}+{path.stem[1:]}" for path in RECIPES.glob("+*.yaml") for name in trained])


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A shipped recipe or a YAML file, with `changes` by dotted field name.

    `dca2024+released` is `dca2024` under the overlay of that name; `+features` fits every recipe with backbones.
    """
    data: dict[str, Any] = {}
    for path in _files(name):
        content = read_yaml(path, "a recipe", EXAMPLE)
        if sweep := sorted(content.keys() & {"corpus", "system", "systems", "space"}):
            raise UserError(
                f"{path} is a sweep, not a recipe: it has {', '.join(sweep)}",
                "run it with `crossfold run`; `recipe:` takes a file of windows, optimiser and loss, or a name",
            )
        _overlay(data, content)
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        inside = data
        for parent in parents:
            # A group may be null, such as the forced rate of the optimiser.
            if inside.get(parent) is None:
                inside[parent] = {}
            inside = inside[parent]
            if not isinstance(inside, dict):
                raise UserError(f"recipe field {key!r}: {parent!r} has no fields", "see `crossfold list recipes`")
        _overlay(inside, {last: value}, top=not parents)
    label = Path(name).stem if name.endswith(".yaml") else name
    return Recipe.parse({**data, "name": label}, f"recipe {label}")


def sources_of(name: str) -> dict[str, Source]:
    """Where each value of a recipe comes from, by dotted field name, from the comments of its files."""
    found: dict[str, Source] = {}
    for path in _files(name):
        lines = path.read_text(encoding="utf-8").splitlines()
        node = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
        for field, line in _leaves(node, ""):
            # An overlay may replace a group by one value, or one value by a group.
            for old in [key for key in found if key.startswith(f"{field}.") or field.startswith(f"{key}.")]:
                del found[old]
            found[field] = _source(lines[line])
    return found


def differences(left: str, right: str) -> list[Difference]:
    """The fields in which two recipes differ, in the order of the recipe, with their sources."""
    values = [flat(load_recipe(name)) for name in (left, right)]
    said = [sources_of(name) for name in (left, right)]
    return [
        Difference(
            field,
            (values[0].get(field), values[1].get(field)),
            (source_of_field(said[0], field), source_of_field(said[1], field)),
        )
        for field in dict.fromkeys([*values[0], *values[1]])
        if values[0].get(field) != values[1].get(field)
    ]


def flat(recipe: Recipe) -> dict[str, Any]:
    """A recipe by dotted field name, the label left out; mappings that are values stay whole."""
    found: dict[str, Any] = {}
    for key, value in recipe.model_dump(mode="json", exclude={"name"}).items():
        if key in GROUPS and isinstance(value, dict):
            found |= {f"{key}.{inner}": what for inner, what in value.items()}
        else:
            found[key] = value
    return found


def source_of_field(said: Mapping[str, Source], field: str) -> Source:
    """The source of a field: its own, that of its group, or those of the entries in it."""
    for key in (field, field.rpartition(".")[0]):
        if key in said:
            return said[key]
    inner = [source for key, source in said.items() if key.startswith(f"{field}.")]
    if not inner:
        return Source("", "a default of Crossfold")
    return Source(inner[0].kind, "; ".join(source.note for source in inner))


def _files(name: str) -> list[Path]:
    """The file of a recipe, then its overlays; a later file wins."""
    if name.endswith(".yaml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no recipe file {name!r}", "give a YAML file, or a name of `crossfold list recipes`")
        return [path]
    base, *overlays = name.split("+")
    known = sorted(path.stem for path in RECIPES.glob("*.yaml") if "+" not in path.stem)
    if base not in known:
        raise UserError(f"unknown recipe {name!r}{did_you_mean(base, known)}", "`crossfold list recipes`")
    files = [RECIPES / f"{base}.yaml"]
    for overlay in overlays:
        found = [path for path in (RECIPES / f"{base}+{overlay}.yaml", RECIPES / f"+{overlay}.yaml") if path.is_file()]
        if not found:
            near = [*RECIPES.glob(f"{base}+*.yaml"), *RECIPES.glob("+*.yaml")]
            listed = did_you_mean(overlay, {path.stem.partition("+")[2] for path in near})
            raise UserError(f"recipe {base!r} has no variant {overlay!r}{listed}", "`crossfold list recipes`")
        files.append(found[0])
    return files


def _overlay(data: dict[str, Any], over: Mapping[str, Any], *, top: bool = True) -> None:
    """Lays values over others in place: groups field by field, everything else whole."""
    for key, value in over.items():
        if top and key in GROUPS and isinstance(value, dict) and isinstance(data.get(key), dict):
            data[key] = {**data[key], **value}
        else:
            data[key] = value


def _leaves(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Dotted name and line of every value of a block; a mapping on one line is one value."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        field = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _leaves(value, f"{field}.")
        else:
            yield field, key.start_mark.line


def _source(line: str) -> Source:
    """The comment of a line, as in `lr: 1.0e-5  # printed: 002`."""
    _, mark, comment = line.partition(" # ")
    kind, colon, note = comment.strip().partition(":")
    if mark and colon and kind in SOURCES:
        return Source(kind, note.strip())
    return Source("", comment.strip())
