"""The cells of a search: those that judge a configuration on inner folds, and the sweep of the winner."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from crossfold.datasets.corpora.partitions import inner_fold
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.base_model import MOST_COUNT
from crossfold.platform.core.cell import Cell, Inner
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.sweeps.plan import check_targets, make_cell, resolve, seen_by_choice, target_sets
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.sweep_files import Budget, Range, Search, Sweep, Variant
from crossfold.sweeps.system_facts import variant_facts

GRID_POINTS = 5
"""Of a continuous range on a grid, unless it says how many."""

MOST_NAMED = 5
"""Clips that a message names."""


def trial_cells(search: Search, store: FeatureStore, chosen: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The inner-fold cells of one configuration of a search. None of them reads the reported split."""
    # The recipe of the search itself: the changes of `winner.set` belong to the winner's ordinary cells.
    recipe = load_recipe(search.recipe, {**search.set, **_recipe_fields(chosen)})
    (resolved,), _ = resolve(winner_sweep(search, chosen).systems, store, strict=True)
    splits = [Inner(index=index, of=search.inner_folds) for index in range(search.inner_folds)]
    return tuple(
        make_cell(resolved, store, recipe, search.fold, targets, seed, inner)
        for seed, inner, targets in itertools.product(search.seeds, splits, target_sets(search, recipe))
    )


def winner_sweep(search: Search, chosen: Mapping[str, Any], seen: tuple[int, ...] | None = None) -> Sweep:
    """The ordinary sweep of the best configuration: the recipe of the search with `winner.set`, the reported split.

    seen: the folds whose reported clips were seen (`seen_folds`).
    """
    params = {key: value for key, value in chosen.items() if not key.startswith("recipe.")}
    return Sweep(
        name=f"{search.name}-winner",
        corpus=search.corpus,
        store=search.store,
        recipe=search.recipe,
        set={**search.set, **search.winner.set, **_recipe_fields(chosen)},
        systems=(Variant(system=search.system, params={**search.params, **params}),),
        targets=search.targets,
        joint_targets=search.joint_targets,
        folds=search.winner_folds,
        seeds=search.winner.seeds,
        seen=seen,
    )


def default_sweep(search: Search) -> Sweep:
    """What the winner is compared with: the system with the defaults of all parameters, as the papers print them.

    Repeated searches of one system share it.
    """
    repeated = search.group not in (None, search.name)
    name = re.sub(r"-r\d+$", "", search.name) if repeated else search.name
    return winner_sweep(search, {}).model_copy(update={"name": f"{name}-default"})


def check_space(search: Search, store: FeatureStore) -> None:
    """Raises `UserError` for a dimension that names no parameter or recipe field, or holds an illegal value.

    And where the winner would report clips that the search sees, unless the search says `allow_seen`.
    """
    check_targets(search.targets, store)
    seen = seen_clips(search, store)
    if seen and not search.allow_seen:
        fold, clips = next(iter(seen.items()))
        clean = [f.index for f in store.folds if not set(f.validation) & set(store.fold(search.fold).train)]
        named = ", ".join(clips[:MOST_NAMED]) + (f" and {len(clips) - MOST_NAMED} more" if clips[MOST_NAMED:] else "")
        raise UserError(
            f"search {search.name} sees the training clips of fold {search.fold}, and its winner would report "
            f"{len(clips)} of them in fold {fold}: {named}",
            f"give winner.folds: {clean}, or allow_seen: true, which labels every number of the winner in such folds",
        )
    inner_fold(store.clips, store.fold(search.fold), 0, search.inner_folds)
    listed = [key for key, value in search.params.items() if isinstance(value, list)]
    if listed:
        raise UserError(
            f"params.{listed[0]} is a list, but a search varies `space` only", "give one value, or a range in `space`"
        )
    # An illegal value raises in the cells of a configuration that has it.
    for chosen in corners(search):
        trial_cells(search, store, chosen)
    check_settings(search)


def check_settings(search: Search) -> None:
    """Raises `UserError` for a budget, a sampler, a scheduler or a start that does not fit the rest of the search."""
    limits = search.limits
    if search.trials is not None and search.budget.trials not in (None, search.trials):
        raise UserError(
            f"search {search.name}: trials {search.trials}, but budget.trials {search.budget.trials}",
            "give one of them",
        )
    if search.sampler != "grid" and limits == Budget():
        raise UserError(f"search {search.name} has no budget", "give budget: {trials: 50}, hours or cell_epochs")
    if len(search.objective) > 1 and search.stops_by != "none":
        raise UserError(
            f"search {search.name}: scheduler {search.stops_by} stops trials by CCC alone, and the objective has "
            f"{' and '.join(search.objective)}",
            "leave the scheduler out, or search for ccc only",
        )
    if len(search.objective) > 1 and search.sampler == "cmaes":
        raise UserError(f"search {search.name}: cmaes has one objective only", "take tpe or gp, or search for ccc only")
    if search.sampler == "grid":
        size = len(grid(search))
        if limits.trials is not None and limits.trials < size:
            raise UserError(
                f"search {search.name}: the grid has {size} configurations, and the budget {limits.trials} trials",
                f"give budget: {{trials: {size}}} or no number of trials, fewer points, or another sampler",
            )
    for number, configuration in enumerate(search.start):
        for key, value in configuration.items():
            dimension = search.space.get(key)
            if dimension is None:
                raise UserError(
                    f"start[{number}]: the space has no {key!r}{did_you_mean(key, list(search.space))}",
                    "give parameters of the space only; `params` and `set` fix others",
                )
            if not _contains(dimension, value):
                there = f"which has {key}: {_as_written(dimension)}"
                raise UserError(
                    f"start[{number}].{key} = {value!r} is outside of the space, {there}",
                    "give a value inside, or widen the space",
                )


def is_drawn(dimension: Range, chosen: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
    """Whether a dimension is drawn, given the parameters that were chosen before it and those that are fixed."""
    known = {**fixed, **chosen}
    return all(key in known and known[key] in allowed for key, allowed in (dimension.when or {}).items())


def fixed_params(search: Search) -> dict[str, Any]:
    """The parameters of the system that the space does not have, with their defaults."""
    (facts,) = variant_facts([Variant(system=search.system, params=search.params)])
    return {key: value for key, value in facts.params.items() if key not in search.space}


def grid_values(dimension: Range) -> tuple[Any, ...]:
    """The values of a dimension on a grid."""
    if dimension.choice is not None:
        return dimension.choice
    if dimension.int is not None:
        return tuple(range(dimension.int[0], dimension.int[1] + 1))
    ends = dimension.log or dimension.linear
    assert ends is not None
    spaced = np.geomspace if dimension.log else np.linspace
    # So many digits that two points never become one, and few enough to be read.
    return tuple(float(f"{value:.6g}") for value in spaced(*ends, dimension.points or GRID_POINTS))


def grid(search: Search) -> list[dict[str, Any]]:
    """All configurations of a grid; a parameter that is not drawn is left out."""
    fixed = fixed_params(search)
    configurations: list[dict[str, Any]] = [{}]
    for key, dimension in search.space.items():
        longer = []
        for one in configurations:
            drawn = is_drawn(dimension, one, fixed)
            longer += [{**one, key: value} for value in grid_values(dimension)] if drawn else [one]
        configurations = longer
        if len(configurations) > MOST_COUNT:
            raise UserError(
                f"search {search.name}: the grid has more than {MOST_COUNT:,} configurations", "give fewer points"
            )
    return configurations


def seen_clips(search: Search, store: FeatureStore) -> dict[int, list[str]]:
    """Folds of the winner -> their reported clips that the search sees, in order of name; clean folds are left out.

    A search sees the training clips of its fold and no others: the inner folds are made of them, and their encoders and
    normalisation are fitted to them.
    """
    sees = set(store.fold(search.fold).train)
    found = {fold: sorted(sees & set(store.fold(fold).validation)) for fold in search.winner_folds}
    return {fold: clips for fold, clips in found.items() if clips}


def seen_folds(search: Search, store: FeatureStore) -> tuple[int, ...]:
    """Folds of the winner whose reported clips were seen by the search, or when its recipe was chosen."""
    by_search, by_choice = seen_clips(search, store), seen_by_choice(search.recipe, store, search.winner_folds)
    return tuple(fold for fold in search.winner_folds if fold in by_search or fold in by_choice)


def corners(search: Search) -> Iterator[dict[str, Any]]:
    """Configurations that contain each end of a range and each choice. Raises `UserError` for a bad range."""
    values = {key: _values(key, dimension) for key, dimension in search.space.items()}
    _check_conditions(search)
    first, fixed = {key: given[0] for key, given in values.items()}, fixed_params(search)
    for key, given in values.items():
        for value in given:
            asked = {**first, key: value, **_meeting(search, key)}
            chosen: dict[str, Any] = {}
            for name, dimension in search.space.items():
                if is_drawn(dimension, chosen, fixed):
                    chosen[name] = asked[name]
            yield chosen


def _meeting(search: Search, key: str) -> dict[str, Any]:
    """Values of other parameters with which one is drawn."""
    found: dict[str, Any] = {}
    for other, allowed in (search.space[key].when or {}).items():
        if other in search.space:
            possible = [value for value in allowed if _contains(search.space[other], value)]
            found |= {**_meeting(search, other), other: possible[0]} if possible else {}
    return found


def _check_conditions(search: Search) -> None:
    fixed, above = fixed_params(search), set[str]()
    for key, dimension in search.space.items():
        for other in dimension.when or {}:
            if other not in above and other not in fixed:
                raise UserError(
                    f"space.{key}.when: no parameter {other!r} of {search.system} is fixed or stands above {key}"
                    f"{did_you_mean(other, [*above, *fixed])}",
                    "give a parameter of the system that the space leaves fixed, or one that the space has further up",
                )
        above.add(key)


def _as_written(dimension: Range) -> str:
    """A dimension as in a file, without its condition."""
    given = dimension.model_dump(mode="json", exclude_none=True, exclude={"when", "points"})
    return f"{{{', '.join(f'{kind}: {values}' for kind, values in given.items())}}}"


def _contains(dimension: Range, value: Any) -> bool:
    if dimension.choice is not None:
        return value in dimension.choice
    low, high = dimension.int or dimension.log or dimension.linear or (0, -1)
    whole = isinstance(value, int) or dimension.int is None
    return isinstance(value, int | float) and not isinstance(value, bool) and whole and low <= value <= high


def _values(key: str, dimension: Range) -> tuple[Any, ...]:
    """The values of a dimension to check: the ends of a range, or every choice."""
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


def _recipe_fields(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("recipe."): value for key, value in chosen.items() if key.startswith("recipe.")}
