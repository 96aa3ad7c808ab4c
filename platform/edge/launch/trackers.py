"""One tracker per sweep of a launch."""

from collections.abc import Mapping, Sequence

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Failure
from crossfold.platform.scheduling.tracker import Tracker


class Trackers:
    """One tracker a sweep behind the face of one: each hears of its own cells."""

    def __init__(self, by_cell: Mapping[str, Tracker]) -> None:
        """`by_cell`: the tracker of each cell, by identity; all of them launched."""
        self._by_cell = by_cell
        self._all = list({id(tracker): tracker for tracker in by_cell.values()}.values())

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """Does nothing: each was launched under the name of its own sweep."""

    def started(self, cell: Cell, attempt: int) -> None:
        """See `Tracker`."""
        self._by_cell[cell.cell_id].started(cell, attempt)

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """See `Tracker`."""
        self._by_cell[cell.cell_id].epoch(cell, report)

    def finished(self, cell: Cell) -> None:
        """See `Tracker`."""
        self._by_cell[cell.cell_id].finished(cell)

    def failed(self, cell: Cell, failure: Failure) -> None:
        """See `Tracker`."""
        self._by_cell[cell.cell_id].failed(cell, failure)

    def close(self) -> None:
        """See `Tracker`."""
        for tracker in self._all:
            tracker.close()
