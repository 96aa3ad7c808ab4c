"""From a sweep to its cells. Pure: reads a store's manifest, runs nothing."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell, Inner
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.recipe import Recipe
from crossfold.sweeps.recipe_files import CHOSEN_ON, load_recipe
from crossfold.sweeps.sweep_files import Search, Sweep, Variant
from crossfold.sweeps.system_facts import VariantFacts, variant_facts

MOST_CELLS = 2_000_000
"""The most cells of one sweep: planning them takes a few GiB."""


@dataclass(frozen=True)
class Skipped:
    """A combination that makes no sense, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, and the combinations without one."""

    cells: tuple[Cell, ...]
    skipped: tuple[Skipped, ...]


def expand(sweep: Sweep, store: FeatureStore) -> Plan:
    """The cells of a grid, systems innermost, so that early partial tables cover all systems."""
    recipe = load_recipe(sweep.recipe, sweep.set)
    recipes = recipes_of(sweep, recipe)
    check_targets(sweep.targets, store)
    for fold in sweep.folds:
        store.fold(fold)
    _check_size(sweep)
    variants, skipped = resolve(sweep.systems, store)
    axes = itertools.product(sweep.folds, target_sets(sweep, recipe), variants, recipes)
    first = [make_cell(variant, store, chosen, fold, target, sweep.seeds[0]) for fold, target, variant, chosen in axes]
    cells = [cell.with_seed(seed) for seed in sweep.seeds for cell in first]  # cheaper than checking each cell again
    return Plan(tuple({cell.cell_id: cell for cell in cells}.values()), tuple(skipped))


def recipes_of(sweep: Sweep, recipe: Recipe) -> list[Recipe]:
    """The recipe with each selection and each modality dropout of a sweep.

    One object for all cells of a combination, so that it is checked and serialised once.
    """
    chosen = [recipe.model_copy(update={"selection": split}) for split in sweep.selection or (recipe.selection,)]
    if sweep.modality_dropout is None:
        return chosen
    # A name of its own, because reports never mix numbers of two recipes.
    return [
        each.model_copy(
            update={"modality_dropout": dropout, "name": each.name + ("+modality_dropout" if dropout else "")}
        )
        for each in chosen
        for dropout in sweep.modality_dropout
    ]


def _check_size(sweep: Sweep) -> None:
    """Raises `UserError` for more cells than memory holds, which a slip in a list can ask for."""
    axes = {
        "variants": sum(variant.count for variant in sweep.systems),
        "folds": len(sweep.folds),
        "targets": len(sweep.targets),
        "seeds": len(sweep.seeds),
        "selections": len(sweep.selection or (0,)),
        "modality dropouts": len(sweep.modality_dropout or (0,)),
        "doses": len(sweep.corpora),
    }
    if (cells := math.prod(axes.values())) > MOST_CELLS:
        product = " x ".join(f"{count:,} {name}" for name, count in axes.items() if count > 1)
        raise UserError(
            f"sweep {sweep.name} asks for {cells:,} cells: {product}; the most is {MOST_CELLS:,}",
            "shorten a list, make several sweeps of it, or search (`crossfold list sweeps` shows one)",
        )


def target_sets(asked: Sweep | Search, recipe: Recipe) -> list[tuple[str, ...]]:
    """The targets of each model: all of one, or one of each."""
    joint = recipe.joint_targets if asked.joint_targets is None else asked.joint_targets
    return [asked.targets] if joint else [(target,) for target in asked.targets]


def resolve(
    variants: Sequence[Variant], store: FeatureStore, *, strict: bool = False
) -> tuple[list[VariantFacts], list[Skipped]]:
    """Variants with every default filled in; those that need a modality the store lacks are skipped.

    strict: raises `UserError` instead.
    """
    resolved, skipped = [], []
    for facts in variant_facts([each for entry in variants for each in entry.expand()]):
        missing = [m for m in facts.modalities if m not in store.modalities]
        if missing:
            reason = f"needs {', '.join(missing)}; store {store.path.name} has {', '.join(store.modalities)}"
            if strict:
                raise UserError(f"{facts.system} {reason}", "prepare the corpus with it")
            skipped.append(Skipped(facts.system, reason))
        else:
            resolved.append(facts)
    return resolved, skipped


def seen_by_choice(recipe: str, store: FeatureStore, folds: Sequence[int]) -> tuple[int, ...]:
    """Those of some folds whose reported clips were seen when the values of a shipped recipe were chosen."""
    corpus, fold = CHOSEN_ON.get(recipe, ("", 0))
    if not corpus or not store.corpus.startswith(corpus):
        return ()
    seen = set(store.fold(fold).train)
    return tuple(each for each in folds if seen & set(store.fold(each).validation))


def check_targets(targets: Sequence[str], store: FeatureStore) -> None:
    """Raises `UserError` for a target that a store has no labels of."""
    for target in targets:
        if target not in store.targets:
            raise UserError(
                f"target {target!r}{did_you_mean(target, store.targets)}",
                f"{store.path.name} has {', '.join(store.targets)}",
            )


NARROW_REVISION = 1
"""Added to the revision of a system where a cell is trained in bfloat16: it rounds at other places than in version 0.1,
so cells from before keep their ids and numbers, and are not mixed with new ones."""


def make_cell(
    variant: VariantFacts,
    store: FeatureStore,
    recipe: Recipe,
    fold: int,
    targets: tuple[str, ...],
    seed: int,
    inner: Inner | None = None,
) -> Cell:
    """The cell of a resolved variant on a store."""
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
        revision=variant.revision + (NARROW_REVISION if recipe.precision == "bf16" else 0),
    )
