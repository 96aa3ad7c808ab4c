"""From a sweep file to cells. Pure: reads files and a store's manifest, runs nothing."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from crossfold.datasets.partitions import inner_fold
from crossfold.datasets.store import FeatureStore
from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.config import Recipe, Strict
from crossfold.platform.contracts import Cell, Inner
from crossfold.platform.errors import UserError, nearest
from crossfold.sweeps.recipe_files import load_recipe, read_yaml

HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Variant(Strict):
    """One system with its parameters; a list as a value expands to one variant an entry."""

    system: str
    params: dict[str, Any] = Field(default_factory=dict)

    def expand(self) -> Iterator["Variant"]:
        """All combinations of the listed values."""
        lists = {key: value for key, value in self.params.items() if isinstance(value, list)}
        if empty := [key for key, value in lists.items() if not value]:
            raise UserError(f"{self.system}: {empty[0]} = [] names no value", "give at least one, or leave it out")
        for values in itertools.product(*lists.values()):
            yield Variant(system=self.system, params={**self.params, **dict(zip(lists, values, strict=True))})


def _some_and_distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value or len(set(value)) != len(value):
        raise ValueError("give at least one, and each once")
    return value


class _Common(Strict):
    name: str
    corpus: str
    store: str | None = None
    """Content hash, where a workspace has several stores of the corpus."""
    recipe: str
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe fields that differ from the named recipe, by dotted name."""
    targets: tuple[str, ...] = ("valence", "arousal")
    joint_targets: bool | None = None
    """E1: one model with a head a target, instead of one model a target; else as the recipe says."""
    seeds: tuple[int, ...] = (0, 1, 2)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("use letters of a to z, digits, . _ - and no spaces")
        return value

    @field_validator("targets", "seeds")
    @classmethod
    def _some_distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _some_and_distinct(value)

    @field_validator("set")
    @classmethod
    def _selection_is_one(cls, value: dict[str, Any]) -> dict[str, Any]:
        if isinstance(value.get("selection"), list):
            raise ValueError("several selections are a key of the sweep: write `selection: [...]` beside `set`")
        return value


class Sweep(_Common):
    """A grid: systems x folds x targets x seeds."""

    systems: tuple[Variant, ...] = Field(min_length=1)
    folds: tuple[int, ...] = (0,)
    selection: tuple[Literal["reported", "held_out"], ...] | None = None
    """Which split picks the best epoch, one or both (`[reported, held_out]`); else as the recipe says."""

    @field_validator("folds")
    @classmethod
    def _some_distinct_folds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _some_and_distinct(value)

    @field_validator("selection", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value if value is None else _some_and_distinct(tuple(value))

    @field_validator("systems", mode="before")
    @classmethod
    def _spellings(cls, value: Any) -> Any:
        """`rjca`, `rjca: {iterations: 2}` and `{system: rjca, params: {...}}` are the same kind of thing."""
        return [_variant(entry) for entry in value] if isinstance(value, list | tuple) else value


class Winner(Strict):
    """The ordinary cells that the best configuration of a search runs as."""

    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe fields that differ from those of the search, such as a longer budget."""

    @field_validator("folds", "seeds")
    @classmethod
    def _some_distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _some_and_distinct(value)


Whole = int
"""The built-in, under a name that a field called `int` does not hide."""


class Range(Strict):
    """One dimension of a search space: exactly one of the four."""

    int: tuple[Whole, Whole] | None = None
    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    choice: tuple[Any, ...] | None = None


class Search(_Common):
    """A search space over one system, judged on inner folds of the training clips of `fold`."""

    system: str
    params: dict[str, Any] = Field(default_factory=dict)
    fold: int = 0
    inner_folds: int = Field(3, ge=2)
    trials: int = Field(ge=1)
    sampler_seed: int = 0
    space: dict[str, Range] = Field(min_length=1)
    """Parameters of the system by name, recipe fields as `recipe.<dotted name>`."""
    winner: Winner = Winner()


@dataclass(frozen=True)
class Skipped:
    """A combination that makes no sense, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a sweep asks for."""

    cells: tuple[Cell, ...]
    skipped: tuple[Skipped, ...]


def load(source: str | Path, overrides: Sequence[str] = ()) -> Sweep | Search:
    """A sweep or search by file, or by the name of one that ships; `overrides` are `key=value` of `--set`.

    A key of the sweep is set directly (`seeds=[0]`), any other key is taken as a field of the recipe
    (`epochs=5`, `optimizer.lr=0.01`).
    """
    path = find_sweep(source)
    data = read_yaml(path)
    kind = Search if "space" in data else Sweep
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"--set {override!r} has no '='", "write --set key=value")
        value = _yaml_value(text, override)
        if key in kind.model_fields:
            data[key] = value
        elif key.partition(".")[0] not in Recipe.model_fields:
            known = [*kind.model_fields, *Recipe.model_fields]
            raise UserError(
                f"--set {override}: unknown key {key!r}{nearest(key, known)}", "a sweep key or recipe field"
            )
        else:
            data["set"] = {**(data.get("set") or {}), key: value}
    return kind.parse(data, str(source))


def find_sweep(source: str | Path) -> Path:
    """The file itself, or a shipped sweep of that name; else the nearest right name.

    A path such as `sweeps/paper/grjca-t2.yaml` means the shipped file wherever the command is given.
    """
    path = Path(source)
    if path.is_file():
        return path
    for shipped in _shipped():
        inside = shipped.relative_to(HERE.parent)
        if path.as_posix() in (shipped.stem, shipped.name, inside.as_posix()):
            return shipped
    raise UserError(f"no sweep {str(source)!r}{nearest(path.stem, shipped_sweeps())}", "give a YAML file or a name")


def shipped_sweeps() -> list[str]:
    """Names of the sweeps that come with Crossfold; those of papers' tables are called as the tables."""
    return [path.stem for path in _shipped()]


def _shipped() -> list[Path]:
    """Our own sweeps, then one a table of a paper."""
    return [*sorted(HERE.glob("*.yaml")), *sorted((HERE / "paper").glob("*.yaml"))]


def expand(sweep: Sweep, store: FeatureStore) -> Plan:
    """The cells of a grid, systems innermost, so that early partial tables cover all systems."""
    recipe = load_recipe(sweep.recipe, sweep.set)
    # One object for all cells of a selection: what is shared is checked and spelled once.
    recipes = [recipe.model_copy(update={"selection": chosen}) for chosen in sweep.selection or (recipe.selection,)]
    _check_targets(sweep.targets, store)
    for fold in sweep.folds:
        store.fold(fold)
    variants, skipped = _resolve(sweep.systems, store)
    revisions = {name: find_system(name).revision for name in {variant.system for variant in variants}}
    cells = [
        _cell(variant, store, chosen, fold, target, seed, revisions[variant.system])
        for seed, fold, target, variant, chosen in itertools.product(
            sweep.seeds, sweep.folds, _targets(sweep, recipe), variants, recipes
        )
    ]
    return Plan(tuple({cell.cell_id: cell for cell in cells}.values()), tuple(skipped))


def _targets(asked: _Common, recipe: Recipe) -> list[tuple[str, ...]]:
    """The targets of each model: all of one, or one of each."""
    joint = recipe.joint_targets if asked.joint_targets is None else asked.joint_targets
    return [asked.targets] if joint else [(target,) for target in asked.targets]


def trial_cells(search: Search, store: FeatureStore, chosen: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The inner-fold cells of one configuration of a search. None of them sees the reported split."""
    variant, recipe = _configured(search, chosen)
    (resolved,), _ = _resolve([variant], store, strict=True)
    revision = find_system(resolved.system).revision
    return tuple(
        _cell(resolved, store, recipe, search.fold, target, seed, revision, Inner(index=index, of=search.inner_folds))
        for seed, index, target in itertools.product(search.seeds, range(search.inner_folds), _targets(search, recipe))
    )


def winner_sweep(search: Search, chosen: Mapping[str, Any]) -> Sweep:
    """The ordinary sweep of the best configuration: the recipe of the search with `winner.set`, the reported split."""
    params = {key: value for key, value in chosen.items() if not key.startswith("recipe.")}
    recipe = {key.removeprefix("recipe."): value for key, value in chosen.items() if key.startswith("recipe.")}
    return Sweep(
        name=f"{search.name}-winner",
        corpus=search.corpus,
        store=search.store,
        recipe=search.recipe,
        set={**search.set, **search.winner.set, **recipe},
        systems=(Variant(system=search.system, params={**search.params, **params}),),
        targets=search.targets,
        joint_targets=search.joint_targets,
        folds=search.winner.folds,
        seeds=search.winner.seeds,
    )


def check_space(search: Search, store: FeatureStore) -> None:
    """Every dimension names a parameter or recipe field and holds legal values; found before work starts."""
    _check_targets(search.targets, store)
    for fold in (search.fold, *search.winner.folds):
        store.fold(fold)
    inner_fold(store.clips, store.fold(search.fold), 0, search.inner_folds)
    listed = [key for key, value in search.params.items() if isinstance(value, list)]
    if listed:
        raise UserError(f"params.{listed[0]} is a list: a search varies what stands in `space`", "give one value")
    values = {key: _values(key, dimension) for key, dimension in search.space.items()}
    first = {key: given[0] for key, given in values.items()}
    for key, given in values.items():
        for value in given:
            trial_cells(search, store, {**first, key: value})


def _yaml_value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: {text!r} is not a YAML value", "write it as in a sweep file") from None


def _variant(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"system": entry}
    if isinstance(entry, dict) and len(entry) == 1 and "system" not in entry:
        ((system, params),) = entry.items()
        return {"system": system, "params": params or {}}
    return entry


def _values(key: str, dimension: Range) -> tuple[Any, ...]:
    """The values of a dimension that must be legal: the ends of a range, or every choice."""
    ranges = {"int": dimension.int, "log": dimension.log, "linear": dimension.linear}
    given = {kind: bounds for kind, bounds in ranges.items() if bounds is not None}
    if len(given) + (dimension.choice is not None) != 1 or dimension.choice == ():
        count = len(given) + bool(dimension.choice)
        raise UserError(f"space.{key} gives {count} ranges", "give one of int, log, linear, choice")
    if dimension.choice is not None:
        return dimension.choice
    ((kind, (low, high)),) = given.items()
    if not low < high or (kind == "log" and low <= 0):
        rule = "0 < low < high" if kind == "log" else "low < high"
        raise UserError(f"space.{key}: {kind} range [{low}, {high}] breaks {rule}", "give the lower end first")
    return (low, high)


def _configured(search: Search, chosen: Mapping[str, Any]) -> tuple[Variant, Recipe]:
    sweep = winner_sweep(search, chosen)
    recipe = {key.removeprefix("recipe."): value for key, value in chosen.items() if key.startswith("recipe.")}
    return sweep.systems[0], load_recipe(search.recipe, {**search.set, **recipe})


def _resolve(
    variants: Sequence[Variant], store: FeatureStore, *, strict: bool = False
) -> tuple[list[Variant], list[Skipped]]:
    """Variants with every default filled in; those that need a modality the store lacks are skipped."""
    resolved, skipped = [], []
    for variant in itertools.chain.from_iterable(entry.expand() for entry in variants):
        system = find_system(variant.system)
        params = system.params.parse(variant.params, f"parameters of {variant.system}")
        missing = [m for m in system.modalities_for(params) if m not in store.modalities]
        if missing:
            reason = f"needs {', '.join(missing)}; store {store.path.name} has {', '.join(store.modalities)}"
            if strict:
                raise UserError(f"{variant.system} {reason}", "prepare the corpus with it")
            skipped.append(Skipped(variant.system, reason))
        else:
            resolved.append(Variant(system=variant.system, params=params.model_dump(mode="json")))
    return resolved, skipped


def _check_targets(targets: Sequence[str], store: FeatureStore) -> None:
    for target in targets:
        if target not in store.targets:
            raise UserError(
                f"target {target!r}{nearest(target, store.targets)}",
                f"{store.path.name} has {', '.join(store.targets)}",
            )


def _cell(
    variant: Variant,
    store: FeatureStore,
    recipe: Recipe,
    fold: int,
    targets: tuple[str, ...],
    seed: int,
    revision: int,
    inner: Inner | None = None,
) -> Cell:
    return Cell(
        system=variant.system,
        params=variant.params,
        corpus=store.corpus,
        store=store.content_hash,
        fold=fold,
        inner=inner,
        targets=targets,
        seed=seed,
        recipe=recipe,
        revision=revision,
    )
