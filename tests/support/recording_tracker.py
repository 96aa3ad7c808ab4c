"""A tracker that keeps what it hears."""

from collections.abc import Sequence
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import EpochReport, Failure


class RecordingTracker:
    """Keeps every call, in order."""

    def __init__(self) -> None:
        """Starts with an empty record: (call, cell id or sweep name, detail)."""
        self.calls: list[tuple[str, str, Any]] = []

    def launch(self, sweep: str, cells: Sequence[Cell]) -> None:
        self.calls.append(("launch", sweep, len(cells)))

    def started(self, cell: Cell, attempt: int) -> None:
        self.calls.append(("started", cell.cell_id, attempt))

    def epoch(self, cell: Cell, report: EpochReport) -> None:
        self.calls.append(("epoch", cell.cell_id, report))

    def finished(self, cell: Cell) -> None:
        self.calls.append(("finished", cell.cell_id, None))

    def failed(self, cell: Cell, failure: Failure) -> None:
        self.calls.append(("failed", cell.cell_id, failure))

    def close(self) -> None:
        self.calls.append(("close", "", None))
