"""The same weights with a modality damaged on purpose: how the score holds, and whether gates notice."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfold.datasets.batches.corruptions import damaged_frames
from crossfold.platform.core.evaluation_config import Stress, strengths_of
from crossfold.platform.evaluation.gate_calibration import gate_entries
from crossfold.platform.evaluation.predict import ForwardResult, Variant, forward_passes, rows_of
from crossfold.platform.evaluation.scoring import score
from crossfold.platform.modeling.emotion_model import EmotionModel, modalities_of
from crossfold.platform.training.cell_data import CellData


def under_stress(
    suite: Sequence[Stress], data: CellData, model: EmotionModel, clean: ForwardResult
) -> tuple[list[Any] | None, list[Any]]:
    """`stress` of `result.json`, None for an empty suite; and the entries that it adds to `gates` (docs/results.md).

    clean: the pass over the undamaged reported split. All damage is shown in one pass, in which a modality is encoded
    once where it is whole. A modality that the system does not read is not shown, nor is strength 0: nothing can change
    there.
    """
    cell, store, clips = data.cell, data.store, data.reported.clips
    used, rows = modalities_of(cell), rows_of(store, clips)
    raw = score(clean.predictions, store)["metrics"]
    entries: list[dict[str, Any]] = []
    variants: dict[int, Variant] = {}
    for kind, modality, strength in strengths_of(suite, store.modalities):
        if modality in used and strength != 0:
            frames = damaged_frames(store, kind, strength, modality=modality, fold=cell.fold, clips=clips)
            partly = _partly(frames.damaged[rows], kind)
            variants[len(entries)] = Variant(modality, frames, gates=partly and bool(clean.predictions.gates))
        entry = {"kind": kind, "modality": modality, "strength": strength, "used": modality in used}
        entries.append(entry | {"metrics": raw})
    gates: list[Any] = []
    shown = forward_passes(model, data, data.reported, list(variants.values())) if variants else []
    for (at, variant), result in zip(variants.items(), shown, strict=True):
        entry = entries[at]
        entry["metrics"] = score(result.predictions, store)["metrics"]
        if variant.frames is not None and variant.gates:
            truth = {f"{entry['kind']}:{entry['modality']}:{entry['strength']:g}": variant.frames.damaged[rows]}
            gates += gate_entries(result.predictions.gates, result.reached, "stress", truth)
    return entries if suite else None, gates


def _partly(damaged: np.ndarray, kind: str) -> bool:
    """Whether gates can be compared: on damaged frames and on clean ones, bool [N]."""
    return bool(damaged.any() and not damaged.all()) and kind in ("missing", "frozen")
