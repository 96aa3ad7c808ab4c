"""Rebuilds the MLflow mirror from the workspace."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crossfold.platform.core.files import utc_now
from crossfold.platform.edge.tracking.writer import Mirror
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.launches import (
    Launch,
    LaunchIndex,
    Unfinished,
    launches,
    save_launch,
    unfinished_cells,
)
from crossfold.platform.workspace.workspace import Workspace


@dataclass(frozen=True)
class SyncSummary:
    """What `sync` found and wrote."""

    cells: int
    """Finished cells of the workspace."""
    created: int
    """Runs that were missing."""
    completed: int
    """Runs that were there but not complete."""
    unfinished: int = 0
    """Cells that were begun and not finished: they failed, or were interrupted."""

    def __str__(self) -> str:
        present = self.cells + self.unfinished - self.created - self.completed
        others = f" and {self.unfinished} that failed or were interrupted" if self.unfinished else ""
        return (
            f"{self.cells} finished cells{others}: "
            f"{present} present, {self.completed} completed, {self.created} created"
        )


def sync(workspace: Workspace, uri: str | None = None) -> SyncSummary:
    """Brings MLflow to what the workspace holds; what is complete is left alone. Here troubles are raised.

    A rebuilt store equals the one that was written live, but for what the workspace cannot know: the identities of
    runs, when a cell was begun, when each metric was written, and the readings of the machine.
    """
    with driver_lock(workspace):
        mirror = Mirror(workspace, uri)
        mirror.prepare()
        runs = mirror.cell_runs()
        mirror.remember_all(runs)
        finished = sorted(workspace.finished())
        left = {each.cell.cell_id: each for each in [*_failed_before_notes(workspace), *unfinished_cells(workspace)]}
        status = {cell_id: run.info.status for cell_id, run in runs.items()}
        missing = [cell_id for cell_id in finished if status.get(cell_id) != "FINISHED"]
        failed = {failure.cell_id for failure in workspace.failures_of()}
        stopped = [cell_id for cell_id in left if status.get(cell_id) != ("FAILED" if cell_id in failed else "KILLED")]
        _adopt(mirror, [*missing, *stopped])
        known, closed = {launch.launch_id: launch for launch in launches(workspace)}, mirror.closed_launches()
        for launch in known.values():
            if launch.launch_id not in closed:
                mirror.close_launch(launch)
        first = LaunchIndex(list(known.values()))
        for cell_id in missing:
            record = workspace.read_exactly(cell_id)
            mirror.settle(mirror.attach(record.cell, first.having(cell_id)), record)
        for cell_id in stopped:
            last = known.get(left[cell_id].launch_id) or first.having(cell_id)
            run = mirror.attach(left[cell_id].cell, last)
            mirror.write_epochs(run, left[cell_id].epochs)
            mirror.leave(cell_id, run.run_id)
    completed = sum(cell_id in runs for cell_id in (*missing, *stopped))
    return SyncSummary(len(finished), len(missing) + len(stopped) - completed, completed, len(left))


def _adopt(mirror: Mirror, cells: Sequence[str]) -> None:
    """Gives cells that no launch has one for each sweep, over as soon as it began."""
    orphaned = [cell_id for cell_id in cells if mirror.launch_of(cell_id) is None]
    for sweep, members in _by_sweep(mirror.workspace, orphaned).items():
        now = utc_now()
        save_launch(mirror.workspace, Launch(sweep, len(members), tuple(members), at=now, ended=now))
    mirror.look_up_launches()


def _failed_before_notes(workspace: Workspace) -> Iterator[Unfinished]:
    """Failed cells of which only the ledger tells, as after a merge: found again in the sweeps that were launched."""
    from crossfold.sweeps.launched import planned_cells

    finished = workspace.finished()
    wanted = {failure.cell_id for failure in workspace.failures_of()} - finished
    wanted -= {each.cell.cell_id for each in unfinished_cells(workspace)}
    for sweep, cell in planned_cells(workspace, wanted) if wanted else ():
        yield Unfinished(cell, sweep)


def ui_command(workspace: Workspace, port: int, uri: str | None = None) -> list[str]:
    """The command of a local MLflow server with two processes instead of ten.

    Run it with `MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false` and `MLFLOW_DISABLE_TELEMETRY=true`.
    """
    store = Mirror(workspace, uri).uri
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *where]


def _by_sweep(workspace: Workspace, cells: Sequence[str]) -> dict[str, list[str]]:
    """Cells under the name of the first sweep or search that lists them; the rest under `cells`."""
    owner: dict[str, str] = {}
    for folder in (workspace.sweeps, workspace.root / "searches"):
        for path in sorted(folder.glob("*.json")):
            launched = json.loads(path.read_text())
            for cell_id in launched.get("cells", ()):
                owner.setdefault(cell_id, launched["name"])
    grouped: dict[str, list[str]] = {}
    for cell_id in cells:
        grouped.setdefault(owner.get(cell_id, "cells"), []).append(cell_id)
    return grouped
