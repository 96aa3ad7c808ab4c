"""From a sweep with a block `search` to its searches: one for each system and repetition, all with the same budget."""

from collections.abc import Mapping
from typing import Any

from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.sweeps.sweep_files import AnySearch, Range, Search, SearchBlock, SearchSweep, Variant, Winner

_COMMON = ("corpus", "store", "recipe", "set", "targets", "joint_targets")


def searches_of(asked: AnySearch) -> tuple[Search, ...]:
    """The searches of a file. Raises `UserError` for a parameter in `space` or `start` that no system has."""
    if isinstance(asked, Search):
        return (asked,)
    block = asked.search
    _check_names(asked)
    winner = Winner.parse({"folds": asked.folds, "seeds": asked.seeds, **asked.winner}, f"{asked.name}: winner")
    common = {name: getattr(asked, name) for name in _COMMON}
    fields = {name: getattr(block, name) for name in type(block).model_fields if name not in ("space", "repeats")}
    found = []
    for name, variant in _names(asked).items():
        space = _space_of(variant, block)
        known = find_system(variant.system).params.model_fields
        # A configuration may hold parameters that only other systems have.
        start = [{key: value for key, value in one.items() if _applies(key, known)} for one in block.start]
        for repeat in range(block.repeats):
            search = Search(
                **{**common, **fields, "start": tuple(one for one in start if one)},
                name=f"{name}-r{repeat + 1}" if block.repeats > 1 else name,
                system=variant.system,
                params=variant.params,
                space=space,
                winner=winner,
                group=asked.name,
                repeat=repeat,
            )
            found.append(search.model_copy(update={"sampler_seed": block.sampler_seed + 10_000 * repeat}))
    return tuple(found)


def _applies(key: str, known: Mapping[str, Any]) -> bool:
    return key.startswith("recipe.") or key in known


def _check_names(asked: SearchSweep) -> None:
    """Each parameter of `space` and `start` belongs to one system at least."""
    known = {key for variant in asked.systems for key in find_system(variant.system).params.model_fields}
    named = [*(asked.search.space or ()), *(key for one in asked.search.start for key in one)]
    for key in named:
        if not key.startswith("recipe.") and key not in known:
            raise UserError(
                f"search {asked.name}: no system has a parameter {key!r}{did_you_mean(key, sorted(known))}",
                "`crossfold list systems` shows their parameters; a field of the recipe begins with `recipe.`",
            )


def _space_of(variant: Variant, block: SearchBlock) -> dict[str, Range]:
    """The dimensions of one system: those of the file that it has, else those that it declares itself.

    A parameter that is fixed for the system has no dimension.
    """
    system = find_system(variant.system)
    declared = {key: Range.parse(given, f"space of {variant.system}") for key, given in system.space.items()}
    asked: Mapping[str, Range | None] = dict.fromkeys(declared) if block.space is None else block.space
    space = {}
    for key, given in asked.items():
        if key in variant.params or not _applies(key, system.params.model_fields):
            continue
        if given is None and key not in declared:
            raise UserError(
                f"search.space.{key}: {variant.system} declares no range of it", "give one, such as {linear: [0, 1]}"
            )
        space[key] = given or declared[key]
    if not space:
        raise UserError(
            f"search of {variant.system}: nothing is left to search",
            "give search.space, such as {recipe.optimizer.lr: {log: [0.0001, 0.01]}}",
        )
    return space


def _names(asked: SearchSweep) -> dict[str, Variant]:
    """A name for the search of each system, which names files."""
    names: dict[str, Variant] = {}
    for variant in asked.systems:
        base = name = f"{asked.name}-{variant.system.replace('+', '-')}" if len(asked.systems) > 1 else asked.name
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names[name] = variant
    return names
