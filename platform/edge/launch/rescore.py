"""Scores finished cells again, in several processes."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import track

from crossfold.platform.core.process_pool import LocalWorkers, Workers
from crossfold.platform.edge.fleet.cluster import cores
from crossfold.platform.edge.terminal.console import out, print_error
from crossfold.platform.evaluation.scoring import to_rescore
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.platform.core.cell import Cell
    from crossfold.platform.core.evaluation_config import Evaluation
    from crossfold.sweeps.prepared import Prepared


CELLS_A_PROCESS = 4
"""For fewer cells, another process costs more than it saves."""


def rescore_cells(
    cells: "Sequence[Cell]",
    evaluation: "Evaluation",
    space: Workspace,
    *,
    device: str = "cpu",
    workers: Workers | None = None,
    plugins: tuple[Path, ...] = (),
    by_video: bool = False,
    silent: bool = False,
) -> tuple[int, int]:
    """Scores those finished cells that this evaluation has not seen; returns how many it did and how many failed.

    by_video: also those that have been, and whose stress curves have no numbers by video.
    workers: who scores them; by default as many processes of this machine as save time.
    """
    asked = list(to_rescore(cells, evaluation, space, by_video=by_video))
    if not asked:
        return 0, 0
    # It imports torch, which a sweep that is done can do without.
    from crossfold.platform.evaluation.evaluate import RescoreTask, rescore_task

    tasks = [RescoreTask(cell.cell_id, evaluation, space.address, device, plugins) for cell in asked]
    failed = 0
    work = workers or LocalWorkers(_worthwhile(len(tasks), device))
    title = "scoring finished cells again"
    for _, error in track(work(rescore_task, tasks), title, total=len(tasks), console=out, disable=silent):
        if error is not None:
            failed += 1
            print_error(error)
    return len(tasks) - failed, failed


def rescore_outdated(
    prepared: "Prepared", space: Workspace, chosen: Set[str], *, plugins: Sequence[Path] = (), silent: bool
) -> None:
    """Scores cells that finished earlier, under another post-processing chain or stress suite, as this sweep says.

    chosen: identities of the cells that the run is about.
    """
    before = [cell for cell in prepared.plan.cells if cell.cell_id in prepared.finished & chosen]
    if before:
        rescore_cells(before, before[0].recipe.evaluation, space, plugins=tuple(plugins), silent=silent)


def _worthwhile(cells: int, device: str) -> int:
    """How many processes save time: while one starts, this one scores a few cells. A GPU has one."""
    return max(1, min(cores(), cells // CELLS_A_PROCESS)) if device == "cpu" else 1
