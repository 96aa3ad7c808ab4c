"""The same weights with a modality damaged on purpose: how the score holds, and whether gates notice."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfold.datasets.batches.corruptions import DamagedFrames, damaged_frames
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.evaluation_config import Stress, strengths_of
from crossfold.platform.evaluation.gate_calibration import gate_entries
from crossfold.platform.evaluation.predict import ForwardResult, look
from crossfold.platform.evaluation.scoring import score
from crossfold.platform.modeling.emotion_model import EmotionModel, modalities_of
from crossfold.platform.training.cell_data import Split


def under_stress(
    battery: Sequence[Stress],
    cell: Cell,
    model: EmotionModel,
    store: FeatureStore,
    reported: Split,
    clean: ForwardResult,
) -> tuple[list[Any], list[Any]]:
    """`stress` of `result.json`, and the entries that it adds to `gates` (docs/results.md).

    clean: the pass over the undamaged split. Each entry costs one such pass, but for those of a modality that the
    system does not read, and of strength 0: nothing can change there.
    """
    raw = score(clean.predictions, store)["metrics"]
    used = modalities_of(cell)
    entries, gates = [], []
    for kind, modality, strength in strengths_of(battery, store.modalities):
        entry = {"kind": kind, "modality": modality, "strength": strength, "used": modality in used}
        metrics = raw
        if modality in used and strength != 0:
            frames = damaged_frames(store, kind, strength, modality=modality, fold=cell.fold, clips=reported.clips)
            damaged = rows_of(frames, store, reported.clips)
            partly = bool(damaged.any() and not damaged.all()) and kind in ("missing", "frozen")
            seen = look(
                model,
                Split(reported.clips, reported.source.with_frames(modality, frames, frames.present)),
                store,
                cell.targets,
                cell.recipe.batch,
                gates=partly and bool(clean.gates),
            )
            metrics = score(seen.predictions, store)["metrics"]
            gates += gate_entries(
                seen.gates, seen.reached, "stress", {f"{kind}:{modality}:{strength:g}": damaged} if partly else {}
            )
        entries.append(entry | {"metrics": metrics})
    return entries, gates


def rows_of(frames: DamagedFrames, store: FeatureStore, clips: Sequence[str]) -> np.ndarray:
    """bool [N of these clips]: which of their frames are damaged."""
    return np.concatenate([frames.damaged[store.rows(name)] for name in clips])
