"""In which order cells run: fairly, with the longest first where that saves time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crossfold.platform.core.cell import Cell


@dataclass(frozen=True)
class Forecast:
    """What is known about the cells of a launch before it: how long each takes, and which sweep it is for."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of each cell, by identity; a missing one counts as 0."""
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
        # Cells with the same turn keep their order, which their index says.
        return [cells[index] for _, _, index in sorted(turns)]

    def before(self, some: Sequence[Cell], others: Sequence[Cell]) -> bool:
        """Whether `some` go first where the two cannot run at once: unless their sweeps have a later place."""
        first, second = (min(self.priority.get(cell.cell_id, 0) for cell in cells) for cells in (some, others))
        return first <= second

    def epoch_seconds(self, cells: Sequence[Cell]) -> dict[str, float]:
        """How long an epoch of each cell should take, by identity."""
        known = ((cell.cell_id, self.seconds.get(cell.cell_id, 0.0) / cell.recipe.epochs) for cell in cells)
        return {cell_id: seconds for cell_id, seconds in known if seconds > 0}
