"""The cells of a sweep that `--only` selects."""

from collections.abc import Sequence
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.yaml_files import parse_yaml


def only(cells: Sequence[Cell], conditions: Sequence[str]) -> list[Cell]:
    """The cells that satisfy `axis=value` conditions; several values of one axis are alternatives.

    Axes are system, fold, target, seed, selection, and every parameter that a system here has. Raises `UserError` with
    the nearest right name for an axis or a value that no cell has, and where no cell satisfies all of them.
    """
    if not conditions:
        return list(cells)
    facts = [_facts(cell) for cell in cells]
    axes: dict[str, set[Any]] = {}
    for fact in facts:
        for axis, values in fact.items():
            axes.setdefault(axis, set()).update(values)
    wanted: dict[str, list[str]] = {}
    for condition in " ".join(conditions).split():
        axis, equals, text = condition.partition("=")
        if not equals or not text:
            raise UserError(f"--only {condition!r} is not axis=value", "such as --only system=hgrjca fold=0")
        if axis not in axes:
            raise UserError(
                f"--only {condition}: no axis {axis!r}{did_you_mean(axis, axes)}", f"one of {', '.join(axes)}"
            )
        for value in text.split(","):
            if not any(_same(value, there) for there in axes[axis]):
                known = sorted(map(str, axes[axis]), key=lambda text: (len(text), text))
                near = did_you_mean(value, known).partition("; known")[0]  # the remedy lists them all
                raise UserError(f"--only {axis}={value}: no cell has it{near}", f"there is {', '.join(known)}")
            wanted.setdefault(axis, []).append(value)
    chosen = [
        cell
        for cell, fact in zip(cells, facts, strict=True)
        if all(any(_same(v, there) for v in values for there in fact.get(axis, ())) for axis, values in wanted.items())
    ]
    if wanted and not chosen:
        asked = " and ".join(f"{axis}={','.join(values)}" for axis, values in wanted.items())
        raise UserError(f"no cell has {asked} at once", "leave one of them out")
    return chosen


def _facts(cell: Cell) -> dict[str, tuple[Any, ...]]:
    """The values of a cell by axis; a model of both targets has three: each target, and both."""
    axes: dict[str, tuple[Any, ...]] = {
        "system": (cell.system,),
        "fold": (cell.fold,),
        "target": tuple(dict.fromkeys((*cell.targets, cell.target))),
        "seed": (cell.seed,),
        "selection": (cell.recipe.selection,),
    }
    # A parameter may be a list, which no set can hold, so its text is used.
    hashable = {k: v if isinstance(v, int | float | str | None) else str(v) for k, v in cell.params.items()}
    return axes | {key: (value,) for key, value in hashable.items() if key not in axes}


def _same(asked: str, there: Any) -> bool:
    if asked.casefold() == str(there).casefold():
        return True
    try:
        # As a sweep file is read: `true` is a bool, `1e-3` a number.
        read = parse_yaml(asked, asked, "write axis=value")
        return (type(read) is type(there) and bool(read == there)) or float(asked) == there
    except ValueError:
        return False
