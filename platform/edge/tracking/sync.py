"""Rebuilds the MLflow mirror from the workspace."""

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass

from crossfold.platform.edge.tracking.records import LiveCell, Records
from crossfold.platform.edge.tracking.search_runs import search_runs
from crossfold.platform.edge.tracking.writer import RunWriter
from crossfold.platform.workspace.disk_space import disk_errors, require_space
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.launches import Unfinished, assign_launches, unfinished_cells
from crossfold.platform.workspace.repair import remove_leftovers
from crossfold.platform.workspace.workspace import Workspace


@dataclass(frozen=True)
class SyncSummary:
    """Cells of the workspace that are finished and that are not, and runs that `sync` made or completed."""

    cells: int
    created: int
    completed: int
    unfinished: int

    def __str__(self) -> str:
        others = f" and {self.unfinished} that failed or were interrupted" if self.unfinished else ""
        present = self.cells + self.unfinished - self.created - self.completed
        counts = f"{present} present, {self.completed} completed, {self.created} created"
        return f"{self.cells} finished cells{others}: {counts}"


def sync(workspace: Workspace, uri: str | None = None) -> SyncSummary:
    """Brings MLflow to what the workspace holds and leaves complete runs alone. Raises what MLflow raises, and
    the `OSError` of a full disk instead where the disk is full.

    A rebuilt store equals the one that was written live, but for what no record says: the identities of runs, when a
    cell was begun, when each metric was written, and the readings of the machine.
    """
    require_space(workspace.root)
    with driver_lock(workspace), disk_errors(workspace.root):
        remove_leftovers(workspace)
        writer = RunWriter(workspace, uri)
        writer.prepare()
        found, finished = writer.find_runs(), workspace.finished()
        begun = {note.cell.cell_id: LiveCell(note) for note in _unfinished(workspace, finished)}
        cells = sorted({*finished, *begun})
        assign_launches(workspace, Records(workspace).orphaned(cell_id for cell_id in cells if cell_id not in found))
        records = Records(workspace, live=begun)
        for launch_id in records.launches:
            writer.write(records.find(launch_id))
        written = Counter(writer.write(records.find(cell_id)) for cell_id in cells)
        for run in search_runs(workspace):
            writer.write(run)
        if uri is None:
            # Launches leave these behind where MLflow lacks something; now it has everything.
            for marker in workspace.paths.mlflow_pending.glob("[!.]*"):
                marker.unlink(missing_ok=True)
    return SyncSummary(len(finished), written["created"], written["completed"], len(begun))


def _unfinished(workspace: Workspace, finished: Set[str]) -> Iterator[Unfinished]:
    """Notes of cells that were begun; as after a merge, the failure log may know cells of which there is none."""
    # Imported here: it loads every system, and few workspaces need it.
    from crossfold.sweeps.launched import planned_cells

    noted = unfinished_cells(workspace)
    failed = {failure.cell_id for failure in workspace.failures_of()}
    wanted = failed - finished - {note.cell.cell_id for note in noted}
    yield from noted
    for sweep, cell in planned_cells(workspace, wanted) if wanted else ():
        yield Unfinished(cell, sweep)
