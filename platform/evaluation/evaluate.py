"""Looks at trained weights more closely than one score does: post-processing, stress, spans, gates."""

from typing import Any

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.evaluation.gate_calibration import gate_entries
from crossfold.platform.evaluation.postprocessing import post_part
from crossfold.platform.evaluation.predict import ForwardResult, look, predict
from crossfold.platform.evaluation.robustness import under_stress
from crossfold.platform.evaluation.scoring import DAMAGE, span_masks, span_scores
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.training.cell_data import CellData
from crossfold.platform.workspace.attention_maps import shown_clips

PARTS = ("post", "stress", "spans", "gates")
"""What depends on how a cell is looked at, in `result.json` and in `rescored/`."""


def evaluate(data: CellData, evaluation: Evaluation, model: EmotionModel) -> tuple[ForwardResult, dict[str, Any]]:
    """The pass over the reported split, and the four parts (docs/results.md). `model` has the weights of the cell."""
    cell, store = data.cell, data.store
    batch = cell.recipe.batch
    shown = shown_clips(store, data.reported.clips) if cell.inner is None else ()
    seen = look(model, data.reported, store, cell.targets, batch, gates=True, maps=shown)
    parts: dict[str, Any] = dict.fromkeys(PARTS)
    parts["spans"] = span_scores(seen.predictions, store.spans)
    parts["post"] = post_part(
        evaluation.post, seen.predictions, lambda: predict(model, data.training, store, cell.targets, batch), store
    )
    gates = _gates_on_spans(seen, store)
    if evaluation.stress:
        parts["stress"], under = under_stress(evaluation.stress, cell, model, store, data.reported, seen)
        gates += under
    parts["gates"] = gates or None
    return seen, parts


def _gates_on_spans(seen: ForwardResult, store: FeatureStore) -> list[Any]:
    damaged = {
        name: mask
        for name, mask in span_masks(seen.predictions, store.spans).items()
        if name.partition(":")[0] in DAMAGE
    }
    if damaged:
        whole = list(damaged.values())
        damaged = {"any": sum(whole[1:], whole[0])} | damaged
    return gate_entries(seen.gates, seen.reached, "spans", damaged)
