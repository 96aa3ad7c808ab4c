"""Where a launch is logged in addition to the workspace. A tracker is a mirror: losing it loses nothing."""

from collections.abc import Callable, Sequence
from typing import Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Failure


class Tracker(Protocol):
    """What the driver reports to a tracker. No call may raise or block training: a tracker handles its own errors."""

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """A launch of a sweep begins; `cells` are those it will run."""

    def started(self, cell: Cell, attempt: int) -> None:
        """A worker took the cell."""

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """An epoch of a running cell ended."""

    def finished(self, cell: Cell) -> None:
        """The cell lies in the workspace; its folder holds everything to mirror."""

    def failed(self, cell: Cell, failure: Failure) -> None:
        """An attempt ended without a result."""

    def close(self) -> None:
        """The launch is over; everything pending is written."""


TrackerOf = Callable[[str], Tracker | None]
"""The tracker of a cell, by identity, as each sweep of a launch has one of its own; None for no tracker."""
