"""Which finished cells an evaluation has not seen yet. No torch here: a sweep that is done asks this, and no more."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.core.files import path_inside
from crossfold.platform.workspace.workspace import Workspace


def rescored_path(workspace: Workspace, evaluation: Evaluation, cell_id: str) -> Path:
    """Where the four parts of one cell under one evaluation are kept."""
    return path_inside(workspace.paths.rescored / evaluation.key, f"{cell_id}.json")


def to_rescore(
    cells: Iterable[Cell], evaluation: Evaluation, workspace: Workspace, *, by_video: bool = False
) -> Iterator[Cell]:
    """The finished ones that were neither committed nor rescored under this evaluation.

    by_video: also those whose stress curves have no numbers by video, as version 0.1 kept none.
    """
    # In the form in which a cell commits it.
    wanted = evaluation.model_dump(mode="json")
    finished = workspace.finished()
    for cell in cells:
        if cell.cell_id not in finished:
            continue
        known = rescored_path(workspace, evaluation, cell.cell_id).is_file() or (
            workspace.committed_evaluation(cell.cell_id) == wanted
        )
        if not known or (by_video and not has_videos(cell.cell_id, wanted, workspace)):
            yield cell


def has_videos(cell_id: str, wanted: Mapping[str, Any], workspace: Workspace) -> bool:
    """Whether the last evaluation of this kind has numbers by video for all curves of its stress suite."""
    from crossfold.platform.evaluation.robustness import curves_have_videos  # it imports torch

    evaluations = workspace.evaluations(workspace.read_exactly(cell_id))
    found = [each["stress"] for each in evaluations if each["evaluation"] == wanted]
    return bool(found) and curves_have_videos(found[-1] or ())
