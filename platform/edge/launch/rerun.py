"""Computes one cell again, as a launch of its own."""

from collections.abc import Sequence
from pathlib import Path

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.launch.preflight import driving
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.edge.terminal.progress import choose_view
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace


def rerun_cell(
    cell: Cell, space: Workspace, *, workers: int, plugins: Sequence[Path]
) -> dict[str, dict[str, float]] | None:
    """Runs a cell whether it is finished or not, and returns its new metrics by target.

    Returns None if it does not finish; then an older result is still there. workers: 0 runs it in this process.
    """
    with driving(space):
        kept = space.move_aside(cell.cell_id)
        tracker = MlflowTracker(space)
        tracker.launch("rerun", [cell])
        try:
            summary = run_cells(
                [cell],
                space,
                FleetOptions(workers=workers, plugins=plugins),
                sweep="rerun",
                tracker_of=lambda cell_id: tracker,
                view=choose_view(),
            )
        finally:
            tracker.close()
            if kept is not None:
                space.restore(cell.cell_id, kept)
    if summary.done == 0:
        return None
    metrics: dict[str, dict[str, float]] = space.read_exactly(cell.cell_id).result["metrics"]
    return metrics
