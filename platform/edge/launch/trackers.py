"""The MLflow trackers of a launch: one for each sweep, as each has an experiment of its own."""

import contextlib
from collections.abc import Iterator, Sequence

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.tracking.tracker import MlflowTracker, pending_marker
from crossfold.platform.scheduling.tracker import Tracker, TrackerOf
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import Prepared


@contextlib.contextmanager
def tracked(sweeps: Sequence[Prepared], todo: Sequence[Sequence[Cell]], space: Workspace) -> Iterator[TrackerOf]:
    """Logs a launch to MLflow while the block runs. `todo`: the cells that will run, for each sweep."""
    by_cell: dict[str, Tracker] = {}
    with contextlib.ExitStack() as opened:
        for prepared, cells in zip(sweeps, todo, strict=True):
            tracker = _launch(prepared, cells, space)
            opened.callback(tracker.close)
            by_cell |= dict.fromkeys((cell.cell_id for cell in cells), tracker)
        yield by_cell.get


def flush_pending(prepared: Prepared, space: Workspace) -> None:
    """Logs to MLflow what an interrupted driver of this sweep did not; without such a driver, imports nothing."""
    if pending_marker(space, prepared.sweep.name).exists():
        with driver_lock(space):
            _launch(prepared, (), space).close()


def _launch(prepared: Prepared, cells: Sequence[Cell], space: Workspace) -> MlflowTracker:
    tracker = MlflowTracker(space)
    tracker.launch(prepared.sweep.name, cells)
    tracker.catch_up(cell for cell in prepared.plan.cells if cell.cell_id in prepared.finished)
    return tracker
