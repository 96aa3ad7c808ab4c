"""A run that is stopped after an epoch, and the bytes that it must end in all the same."""

from crossfold.platform.core.errors import Cancelled
from crossfold.platform.core.layout import CELL_FILES

SAME_BYTES = tuple(name for name in CELL_FILES if name != "env.json")


class StopAfter:
    """Cancels the run when one of these epochs, counted from 1, has ended."""

    def __init__(self, *epochs):
        self.epochs = epochs

    def epoch(self, cell_id, report):
        if report.epoch in self.epochs:
            raise Cancelled(f"epoch {report.epoch}")


def bytes_of(workspace, cell):
    """What a finished cell left, by file."""
    return {name: (workspace.paths.cell(cell.cell_id) / name).read_bytes() for name in SAME_BYTES}
