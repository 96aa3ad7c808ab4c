"""Which cells run, in which order, until when: `--only`, the fair order with the longest first, and time budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError, nearest


@dataclass(frozen=True)
class Forecast:
    """What is known about the cells of a launch before it: how long each takes, and which sweep it is for."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of each cell, by identity; one that is missing counts as a moment."""
    priority: Mapping[str, int] = field(default_factory=dict)
    """Of each cell, by identity, 0 first: the place of its sweep on the command line."""

    def in_turn(self, cells: Sequence[Cell], slots: int) -> list[Cell]:
        """Cells in the order in which `slots` workers should take them.

        Within one priority each cell has two moments: its fair turn, which is when it would start if cells went as
        given (systems innermost, so that early partial tables cover all systems), and the moment at which only twice
        its predicted time is left until all the work could be done, max(total / slots, longest). The earlier of the two
        is its turn. So most cells go fairly, very long ones go early, and near the end the longest go first.
        """
        turns: list[tuple[int, float, int]] = []
        groups: dict[int, list[int]] = {}
        for index, cell in enumerate(cells):
            groups.setdefault(self.priority.get(cell.cell_id, 0), []).append(index)
        for priority, members in groups.items():
            seconds = [self.seconds.get(cells[index].cell_id, 0.0) for index in members]
            end = max(sum(seconds) / max(slots, 1), max(seconds))
            begun = 0.0
            for index, own in zip(members, seconds, strict=True):
                turns.append((priority, min(begun / max(slots, 1), end - 2 * own), index))
                begun += own
        return [cells[index] for _, _, index in sorted(turns)]

    def before(self, some: Sequence[Cell], others: Sequence[Cell]) -> bool:
        """Whether `some` go first where they cannot run beside `others`: unless their sweeps stand behind."""
        first, second = (min(self.priority.get(cell.cell_id, 0) for cell in cells) for cells in (some, others))
        return first <= second

    def epoch_seconds(self, cells: Sequence[Cell]) -> dict[str, float]:
        """How long an epoch of each cell should take, by identity."""
        known = ((cell.cell_id, self.seconds.get(cell.cell_id, 0.0) / cell.recipe.epochs) for cell in cells)
        return {cell_id: seconds for cell_id, seconds in known if seconds > 0}


def only(cells: Sequence[Cell], conditions: Sequence[str]) -> list[Cell]:
    """The cells that satisfy `axis=value` conditions; several values of one axis are alternatives.

    Axes are system, fold, target, seed, selection, and every parameter that a system here has. Raises `UserError` with
    the nearest right name for an axis or a value that no cell has, and where no cell satisfies all of them.
    """
    facts = [_facts(cell) for cell in cells]
    axes = {axis: {value for fact in facts for value in fact.get(axis, ())} for fact in facts for axis in fact}
    wanted: dict[str, list[str]] = {}
    for condition in " ".join(conditions).split():
        axis, equals, text = condition.partition("=")
        if not equals or not text:
            raise UserError(f"--only {condition!r} is not axis=value", "such as --only system=hgrjca fold=0")
        if axis not in axes:
            raise UserError(f"--only {condition}: no axis {axis!r}{nearest(axis, axes)}", f"one of {', '.join(axes)}")
        for value in text.split(","):
            if not any(_same(value, there) for there in axes[axis]):
                known = sorted(map(str, axes[axis]), key=lambda spelled: (len(spelled), spelled))
                hint = nearest(value, known)
                raise UserError(f"--only {axis}={value}: no cell has it{hint}", f"there is {', '.join(known)}")
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
    """What `only` may ask of a cell; a model of both targets answers to each and to both."""
    axes: dict[str, tuple[Any, ...]] = {
        "system": (cell.system,),
        "fold": (cell.fold,),
        "target": tuple(dict.fromkeys((*cell.targets, cell.target))),
        "seed": (cell.seed,),
        "selection": (cell.recipe.selection,),
    }
    return axes | {key: (_hashable(value),) for key, value in cell.params.items() if key not in axes}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _same(asked: str, there: Any) -> bool:
    if asked.casefold() == str(there).casefold():
        return True
    try:
        read = yaml.safe_load(asked)
        return (type(read) is type(there) and bool(read == there)) or float(asked) == there
    except (yaml.YAMLError, ValueError):
        return False
