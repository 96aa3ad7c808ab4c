"""From a sweep file to cells. Pure: reads files and a store's manifest, runs nothing."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from crossfold.datasets.partitions import inner_fold
from crossfold.datasets.store import FeatureStore
from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.config import Recipe, Strict
from crossfold.platform.contracts import Cell, Inner
from crossfold.platform.errors import UserError, nearest
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.yaml_files import read_yaml

HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

EXAMPLE = "name: mine\ncorpus: puppets\nrecipe: demo\nsystems: [concat, rjca]"
"""The smallest sweep."""
MOST_CELLS = 2_000_000
"""Of one sweep: as many as a planner holds in a few GiB."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Variant(Strict):
    """One system with its parameters; a list as a value expands to one variant an entry."""

    system: str
    params: dict[str, Any] = Field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many `expand` yields."""
        return math.prod(len(value) for value in self.params.values() if isinstance(value, list))

    def expand(self) -> Iterator["Variant"]:
        """All combinations of the listed values."""
        lists = {key: value for key, value in self.params.items() if isinstance(value, list)}
        if empty := [key for key, value in lists.items() if not value]:
            raise UserError(f"{self.system}: {empty[0]} = [] names no value", "give at least one, or leave it out")
        for values in itertools.product(*lists.values()):
            yield Variant(system=self.system, params={**self.params, **dict(zip(lists, values, strict=True))})


def _listed(value: Any, example: str) -> Any:
    """Lists only; `0..3` and `3` may mean several things. Numbers only where they are meant: true is no seed."""
    if not isinstance(value, list | tuple) or any(isinstance(entry, bool) for entry in value):
        raise ValueError(f"give a list, such as {example}")
    return value


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
    seeds: tuple[Seed, ...] = (0, 1, 2)

    @field_validator("targets", mode="before")
    @classmethod
    def _listed_targets(cls, value: Any) -> Any:
        return _listed(value, "[valence, arousal]")

    @field_validator("seeds", mode="before")
    @classmethod
    def _listed_seeds(cls, value: Any) -> Any:
        return _listed(value, "[0, 1, 2]")

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

    systems: tuple[Variant, ...]
    folds: tuple[int, ...] = (0,)
    selection: tuple[Literal["reported", "held_out"], ...] | None = None
    """Which split picks the best epoch, one or both (`[reported, held_out]`); else as the recipe says."""

    @field_validator("folds", mode="before")
    @classmethod
    def _listed_folds(cls, value: Any) -> Any:
        return _listed(value, "[0, 1]")

    @field_validator("folds")
    @classmethod
    def _some_distinct_folds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _some_and_distinct(value)

    @field_validator("selection", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value if value is None else (value,)
        return _some_and_distinct(tuple(_listed(value, "[reported, held_out]")))

    @field_validator("systems", mode="before")
    @classmethod
    def _spellings(cls, value: Any) -> Any:
        """`rjca`, `rjca: {iterations: 2}` and `{system: rjca, params: {...}}` are the same kind of thing."""
        if not isinstance(value, list | tuple) or not value:
            named = value if isinstance(value, str) else "concat, rjca"
            raise ValueError(f"give a list of systems, such as [{named}]")
        return [_variant(entry) for entry in value]


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
    data = read_yaml(path, "a sweep", EXAMPLE)
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
    _check_size(sweep)
    variants, skipped = _resolve(sweep.systems, store)
    revisions = {name: find_system(name).revision for name in {variant.system for variant in variants}}
    first = [
        _cell(variant, store, chosen, fold, target, sweep.seeds[0], revisions[variant.system])
        for fold, target, variant, chosen in itertools.product(sweep.folds, _targets(sweep, recipe), variants, recipes)
    ]
    cells = [cell.with_seed(seed) for seed in sweep.seeds for cell in first]
    return Plan(tuple({cell.cell_id: cell for cell in cells}.values()), tuple(skipped))


def _check_size(sweep: Sweep) -> None:
    """A slip in a list can ask for more cells than memory holds; the product is known before."""
    axes = {
        "variants": sum(variant.count for variant in sweep.systems),
        "folds": len(sweep.folds),
        "targets": len(sweep.targets),
        "seeds": len(sweep.seeds),
        "selections": len(sweep.selection or (0,)),
    }
    if (cells := math.prod(axes.values())) > MOST_CELLS:
        product = " x ".join(f"{count:,} {name}" for name, count in axes.items() if count > 1)
        raise UserError(
            f"sweep {sweep.name} asks for {cells:,} cells: {product}; the most is {MOST_CELLS:,}",
            "shorten a list, make several sweeps of it, or search (`crossfold list sweeps` shows one)",
        )


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
    for chosen in corners(search):
        trial_cells(search, store, chosen)


def corners(search: Search) -> Iterator[dict[str, Any]]:
    """Configurations in which each end of a range and each choice stands once. Raises `UserError` for a bad range."""
    values = {key: _values(key, dimension) for key, dimension in search.space.items()}
    first = {key: given[0] for key, given in values.items()}
    return ({**first, key: value} for key, given in values.items() for value in given)


def _yaml_value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: {text!r} is not a YAML value", "write it as in a sweep file") from None


def _variant(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"system": entry}
    if isinstance(entry, Variant) or (isinstance(entry, dict) and "system" in entry):
        return entry
    if isinstance(entry, dict) and len(entry) == 1:
        ((system, params),) = entry.items()
        if params is None or isinstance(params, dict):
            return {"system": system, "params": params or {}}
    raise ValueError(f"{entry!r} is no system: write its name, as rjca, or one as rjca: {{iterations: [2, 3]}}")


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
