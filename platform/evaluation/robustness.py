"""The same weights with a modality damaged on purpose: how the score holds, and whether gates notice."""

from collections.abc import Sequence
from typing import Any

from crossfold.datasets.batches.corruptions import damaged_frames
from crossfold.platform.core.evaluation_config import Stress, strengths_of
from crossfold.platform.evaluation.gate_calibration import gate_entries
from crossfold.platform.evaluation.predict import ForwardResult, forward_pass, rows_of
from crossfold.platform.evaluation.scoring import score
from crossfold.platform.modeling.emotion_model import EmotionModel, modalities_of
from crossfold.platform.training.cell_data import CellData, Split


def under_stress(
    suite: Sequence[Stress], data: CellData, model: EmotionModel, clean: ForwardResult
) -> tuple[list[Any] | None, list[Any]]:
    """`stress` of `result.json`, None for an empty suite; and the entries that it adds to `gates` (docs/results.md).

    clean: the pass over the undamaged reported split. Each entry costs one such pass, but for those of a modality that
    the system does not read, and of strength 0: nothing can change there.
    """
    cell, store, clips = data.cell, data.store, data.reported.clips
    raw = score(clean.predictions, store)["metrics"]
    used = modalities_of(cell)
    entries, gates = [], []
    for kind, modality, strength in strengths_of(suite, store.modalities):
        entry = {"kind": kind, "modality": modality, "strength": strength, "used": modality in used}
        metrics = raw
        if modality in used and strength != 0:
            frames = damaged_frames(store, kind, strength, modality=modality, fold=cell.fold, clips=clips)
            damaged = frames.damaged[rows_of(store, clips)]
            # A gate is compared on damaged and on clean frames, so it needs both.
            partly = bool(damaged.any() and not damaged.all()) and kind in ("missing", "frozen")
            split = Split(clips, data.reported.source.with_frames(modality, frames, frames.present))
            result = forward_pass(model, data, split, gates=partly and bool(clean.predictions.gates))
            metrics = score(result.predictions, store)["metrics"]
            truth = {f"{kind}:{modality}:{strength:g}": damaged} if partly else {}
            gates += gate_entries(result.predictions.gates, result.reached, "stress", truth)
        entries.append(entry | {"metrics": metrics})
    return entries if suite else None, gates
