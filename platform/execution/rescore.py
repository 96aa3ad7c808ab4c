"""Looks at finished cells in another way, from their stored weights. The committed cell never changes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load as from_safetensors

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.core.files import write_json
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.core.seeds import weight_seed
from crossfold.platform.evaluation.evaluate import evaluate
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.workspace.workspace import Workspace

DRIFT = 1e-3
"""Weights whose predictions differ by more than this from the stored ones are not those of the cell any more."""


def rescored_path(workspace: Workspace, evaluation: Evaluation, cell_id: str) -> Path:
    """Where the four parts of one cell under one evaluation are kept."""
    return workspace.rescored / evaluation.key / f"{cell_id}.json"


def to_rescore(cells: Iterable[Cell], evaluation: Evaluation, workspace: Workspace) -> Iterator[Cell]:
    """The finished ones that were neither committed nor rescored under this evaluation."""
    wanted = evaluation.model_dump(mode="json")
    finished = workspace.finished()
    for cell in cells:
        if cell.cell_id not in finished or rescored_path(workspace, evaluation, cell.cell_id).is_file():
            continue
        if workspace.committed_evaluation(cell.cell_id) != wanted:
            yield cell


@dataclass(frozen=True)
class RescoreTask:
    """One finished cell to be scored in another way, by whichever process takes it."""

    cell_id: str
    evaluation: Evaluation
    workspace: str
    """As `Workspace.at` takes it."""
    device: str
    plugins: tuple[Path, ...] = ()


def rescore_task(task: RescoreTask) -> UserError | None:
    """`rescore` as work for `process_pool.py`; returns, rather than raises, what is wrong with the cell."""
    try:
        for plugin in task.plugins:
            load_plugin(plugin)
        rescore(task.cell_id, task.evaluation, Workspace.at(task.workspace), task.device)
    except UserError as error:
        return error
    return None


def rescore(cell_id: str, evaluation: Evaluation, workspace: Workspace, device: str = "cpu") -> Path:
    """Scores a finished cell under this evaluation, and returns the file; one that is there is kept.

    Raises `DataError` where the weights no longer give the stored predictions.
    """
    path = rescored_path(workspace, evaluation, cell_id)
    if path.is_file():
        return path
    record = workspace.read_exactly(cell_id)
    cell = record.cell
    with arithmetic(cell.recipe, weight_seed(cell), device):
        data = open_data(cell, workspace.local_store(cell.corpus, cell.store), device)
        model = data.new_model().to(device)
        model.load_state_dict(from_safetensors(record.file("best.safetensors").read_bytes()))
        seen, parts = evaluate(data, evaluation, model)
    drift = float(np.abs(seen.predictions.prediction - record.predictions.prediction).max())
    if not drift <= DRIFT:
        raise DataError(
            f"cell {cell_id}: its weights predict other values than it stored, by up to {drift:.2g}",
            f"`crossfold rerun {cell_id}`",
        )
    write_json(path, {"cell_id": cell_id, "evaluation": evaluation.model_dump(mode="json")} | parts)
    return path
