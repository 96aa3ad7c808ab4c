"""What trained weights are worth beyond one score: post-processing, stress, spans, gates.

A finished cell may be evaluated again in another way, from its stored weights; the committed cell never changes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as from_safetensors

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.core.files import write_json
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.evaluation.gate_calibration import gate_entries
from crossfold.platform.evaluation.postprocessing import post_part
from crossfold.platform.evaluation.predict import ForwardResult, forward_pass
from crossfold.platform.evaluation.robustness import under_stress
from crossfold.platform.evaluation.scoring import DAMAGE, has_videos, rescored_path, span_masks, span_scores
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.emotion_model import EmotionModel, stored_narrow
from crossfold.platform.training.cell_data import CellData, open_data
from crossfold.platform.workspace.attention_maps import shown_clips
from crossfold.platform.workspace.workspace import Workspace

DRIFT = 1e-3
"""Weights whose predictions differ by more than this from the stored ones are not those of the cell any more."""

NARROW_DRIFT = 0.05
"""The same for cells of `precision: bf16` from before version 0.2, which stored predictions of products in bfloat16:
on puppets these differ by up to 0.018 from those of float32."""


def evaluation_of(cell: Cell) -> Evaluation:
    """How a cell is evaluated when it is trained; inner cells of a search are scored, and nothing more."""
    return cell.recipe.evaluation if cell.inner is None else Evaluation()


# The weights are trained no more, so nothing needs to follow how the predictions came about.
@torch.inference_mode()
def evaluate(data: CellData, evaluation: Evaluation, model: EmotionModel) -> tuple[ForwardResult, dict[str, Any]]:
    """The pass over the reported split, and the four parts of `result.json` that depend on the evaluation.

    model: with the weights of the cell. The parts (docs/results.md) are `post`, `stress`, `spans` and `gates`.
    """
    store = data.store
    # Nothing shows the maps of a search's inner cells.
    shown = shown_clips(store, data.reported.clips) if data.cell.inner is None else ()
    result = forward_pass(model, data, data.reported, gates=True, maps=shown)
    stress, gates = under_stress(evaluation.stress, data, model, result)
    return result, {
        "post": post_part(
            evaluation.post, result.predictions, lambda: forward_pass(model, data, data.training).predictions, store
        ),
        "stress": stress,
        "spans": span_scores(result.predictions, store.spans),
        "gates": [*_gates_on_spans(result, store), *gates] or None,
    }


def _gates_on_spans(result: ForwardResult, store: FeatureStore) -> list[Any]:
    masks = span_masks(result.predictions, store.spans)
    damaged = {name: mask for name, mask in masks.items() if name.partition(":")[0] in DAMAGE}
    if damaged:
        damaged = {"any": np.logical_or.reduce(list(damaged.values()))} | damaged
    return gate_entries(result.predictions.gates, result.reached, "spans", damaged)


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
    """`rescore` as work for a pool of processes; returns, rather than raises, what is wrong with the cell."""
    try:
        for plugin in task.plugins:
            load_plugin(plugin)
        rescore(task.cell_id, task.evaluation, Workspace.at(task.workspace), task.device)
    except UserError as error:
        return error
    return None


def rescore(cell_id: str, evaluation: Evaluation, workspace: Workspace, device: str = "cpu") -> Path:
    """Scores a finished cell under this evaluation, and returns the file.

    One that is there is kept, unless it lacks numbers by video. Raises `DataError` where the weights no longer give the
    stored predictions.
    """
    path = rescored_path(workspace, evaluation, cell_id)
    if path.is_file() and has_videos(cell_id, evaluation.model_dump(mode="json"), workspace):
        return path
    record = workspace.read_exactly(cell_id)
    cell = record.cell
    with arithmetic(cell, device):
        data = open_data(cell, workspace.local_store(cell.corpus, cell.store), device)
        model = data.new_model().to(device)
        model.load_state_dict(from_safetensors(record.file("best.safetensors").read_bytes()))
        result, parts = evaluate(data, evaluation, model)
    # Another library, or a store that was made again: what was measured now would not be of this cell.
    drift = float(np.abs(result.predictions.prediction - record.predictions.prediction).max())
    if not drift <= (NARROW_DRIFT if stored_narrow(cell) else DRIFT):
        raise DataError(
            f"cell {cell_id}: its weights predict other values than it stored, by up to {drift:.2g}",
            f"`crossfold rerun {cell_id}`",
        )
    write_json(path, {"cell_id": cell_id, "evaluation": evaluation.model_dump(mode="json")} | parts)
    return path
