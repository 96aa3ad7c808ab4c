"""The cells of a search: those that judge a configuration on inner folds, and the sweep of the winner."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from crossfold.datasets.corpora.partitions import inner_fold
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.core.cell import Cell, Inner
from crossfold.platform.core.errors import UserError
from crossfold.sweeps.plan import check_targets, make_cell, resolve, target_sets
from crossfold.sweeps.recipe_files import load_recipe
from crossfold.sweeps.sweep_files import Range, Search, Sweep, Variant


def trial_cells(search: Search, store: FeatureStore, chosen: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The inner-fold cells of one configuration of a search. None of them reads the reported split."""
    # The recipe of the search itself: the changes of `winner.set` belong to the winner's ordinary cells.
    recipe = load_recipe(search.recipe, {**search.set, **_recipe_fields(chosen)})
    (resolved,), _ = resolve(winner_sweep(search, chosen).systems, store, strict=True)
    revision = find_system(resolved.system).revision
    splits = [Inner(index=index, of=search.inner_folds) for index in range(search.inner_folds)]
    return tuple(
        make_cell(resolved, store, recipe, search.fold, targets, seed, revision, inner)
        for seed, inner, targets in itertools.product(search.seeds, splits, target_sets(search, recipe))
    )


def winner_sweep(search: Search, chosen: Mapping[str, Any]) -> Sweep:
    """The ordinary sweep of the best configuration: the recipe of the search with `winner.set`, the reported split."""
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
        folds=search.winner.folds,
        seeds=search.winner.seeds,
    )


def check_space(search: Search, store: FeatureStore) -> None:
    """Raises `UserError` for a dimension that names no parameter or recipe field, or holds an illegal value."""
    check_targets(search.targets, store)
    for fold in (search.fold, *search.winner.folds):
        store.fold(fold)
    inner_fold(store.clips, store.fold(search.fold), 0, search.inner_folds)
    listed = [key for key, value in search.params.items() if isinstance(value, list)]
    if listed:
        raise UserError(
            f"params.{listed[0]} is a list, but a search varies `space` only", "give one value, or a range in `space`"
        )
    # An illegal value raises in the cells of a configuration that has it.
    for chosen in corners(search):
        trial_cells(search, store, chosen)


def corners(search: Search) -> Iterator[dict[str, Any]]:
    """Configurations that contain each end of a range and each choice. Raises `UserError` for a bad range."""
    values = {key: _values(key, dimension) for key, dimension in search.space.items()}
    first = {key: given[0] for key, given in values.items()}
    return ({**first, key: value} for key, given in values.items() for value in given)


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
