"""Where the story of a sweep is told besides the workspace. A tracker is a mirror: losing it loses nothing."""

from collections.abc import Sequence
from typing import Any, Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Failure


class Tracker(Protocol):
    """What the driver tells a tracker. No call may raise or block training: trackers keep their troubles."""

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """A launch of a sweep begins; `cells` are those it will run."""
        ...

    def started(self, cell: Cell, attempt: int) -> None:
        """A worker took the cell."""
        ...

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """An epoch of a running cell ended."""
        ...

    def finished(self, cell: Cell) -> None:
        """The cell lies in the workspace; its folder holds everything to mirror."""
        ...

    def failed(self, cell: Cell, failure: Failure) -> None:
        """A try ended without a result."""
        ...

    def close(self) -> None:
        """The launch is over; everything pending is written."""
        ...


class NullTracker:
    """Tells nobody."""

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """Does nothing."""

    def started(self, cell: Cell, attempt: int) -> None:
        """Does nothing."""

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """Does nothing."""

    def finished(self, cell: Cell) -> None:
        """Does nothing."""

    def failed(self, cell: Cell, failure: Failure) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class RecordingTracker:
    """Keeps every call, in order, for tests."""

    def __init__(self) -> None:
        """Starts with an empty record: (call, cell id or sweep name, detail)."""
        self.calls: list[tuple[str, str, Any]] = []

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        """Records the call."""
        self.calls.append(("launch", sweep, len(cells)))

    def started(self, cell: Cell, attempt: int) -> None:
        """Records the call."""
        self.calls.append(("started", cell.cell_id, attempt))

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        """Records the call."""
        self.calls.append(("epoch", cell.cell_id, report))

    def finished(self, cell: Cell) -> None:
        """Records the call."""
        self.calls.append(("finished", cell.cell_id, None))

    def failed(self, cell: Cell, failure: Failure) -> None:
        """Records the call."""
        self.calls.append(("failed", cell.cell_id, failure))

    def close(self) -> None:
        """Records the call."""
        self.calls.append(("close", "", None))
