"""From a trained model to frame-level predictions.

Legend: B batch, L indices of a window, T targets, N frames of the scored clips, G gates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from crossfold.datasets.batches.windows import Stitcher
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.fusion_models.system import Notes
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.evaluation.attention_collector import MapCollector
from crossfold.platform.evaluation.scoring import pooled_ccc
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.training.cell_data import CellData, Split
from crossfold.platform.workspace.predictions import Predictions


@dataclass(frozen=True)
class ForwardResult:
    """What one pass over a split gives."""

    predictions: Predictions
    reached: np.ndarray
    """bool [N]: frames that a window covers."""


def validate(data: CellData, model: EmotionModel) -> dict[str, float]:
    """CCC per target on the split that picks the epoch."""
    return pooled_ccc(forward_pass(model, data, data.selection).predictions)


@torch.no_grad()
def forward_pass(
    model: EmotionModel, data: CellData, split: Split, *, gates: bool = False, maps: Sequence[str] = ()
) -> ForwardResult:
    """Predictions for every frame of the split's clips, windows stitched by their mean, in the labels' own units.

    gates: whether the weights of the gates are collected, and stitched alike.
    maps: clips whose attention maps are collected; only batches that hold a window of them note their maps.
    """
    model.eval()
    store, targets, windows = data.store, data.cell.targets, split.source.windows
    stitcher = Stitcher(store.frames, len(targets))
    gate_stitchers: dict[tuple[str, str], Stitcher] = {}
    collector = MapCollector.of_store(store, maps, windows.rows.shape[1])
    for start in range(0, len(split.source), data.cell.recipe.batch):
        chosen = np.arange(start, min(start + data.cell.recipe.batch, len(split.source)))
        batch = split.source.batch(chosen)
        rows, real = windows.rows[chosen], windows.real[chosen]
        mapped = collector.wants(rows)
        notes: Notes | None = {} if gates or mapped else None
        y_BLT = model(batch.x, batch.real, notes)
        stitcher.add(rows, real, _each_frame(y_BLT, rows.shape[1]))
        if mapped:
            collector.add(rows, real, notes or {})
        weights = first_columns(notes or {}) if gates else {}
        for key, weight_BL1 in weights.items():
            gate = gate_stitchers.setdefault(key, Stitcher(store.frames, 1))
            gate.add(rows, real, _each_frame(weight_BL1, rows.shape[1]))
        # A system that notes no gate in its first batch has none.
        gates = bool(weights)
    mean, reached = stitcher.frames()
    # Scores are in the units of the annotations, and the loss is not.
    mean = np.stack([store.target(target).from_unit(mean[:, t]) for t, target in enumerate(targets)], axis=1)
    rows = rows_of(store, split.clips)
    predictions = predictions_of(store, split.clips, targets, mean[rows])
    predictions = replace(
        predictions,
        valid=predictions.valid & reached[rows][:, None],
        gates={key: stitched.frames()[0][rows, 0] for key, stitched in sorted(gate_stitchers.items())},
        maps=collector.maps(),
    )
    return ForwardResult(predictions, reached[rows])


def rows_of(store: FeatureStore, clips: Sequence[str]) -> np.ndarray:
    """int64 [N]: the rows of these clips, one after the other."""
    return np.concatenate([np.arange(store.rows(name).start, store.rows(name).stop) for name in clips])


def predictions_of(
    store: FeatureStore, clips: Sequence[str], targets: Sequence[str], prediction: np.ndarray
) -> Predictions:
    """float32 [N, T] as the predictions of every frame of these clips, with the labels of the store."""
    rows = rows_of(store, clips)
    columns = [store.targets.index(target) for target in targets]
    lengths = [store.clip(name).frames for name in clips]
    return Predictions(
        clips=tuple(clips),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        frame=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        prediction=prediction,
        label=np.asarray(store.labels[rows])[:, columns],
        valid=np.asarray(store.valid[rows])[:, columns],
        targets=tuple(targets),
    )


def _each_frame(values_BLT: torch.Tensor, frames: int) -> np.ndarray:
    """One row per frame of the windows: where an index is a clip of several frames (A16), its value holds for each."""
    values: np.ndarray = values_BLT.float().cpu().numpy()
    return np.repeat(values, frames // values.shape[1], axis=1)


def first_columns(notes: Notes) -> dict[tuple[str, str], torch.Tensor]:
    """(gate, modality) -> B x L x 1, the weight of column 0 of every gate that has "unattended" there.

    Gates note themselves as `gate.<modality>`, `gate.<t>.<modality>`, or `gate.<modality>.<t>` inside a recursion. The
    final gate of hgrjca chooses between iterations, none of them unattended.
    """
    found = {}
    for name, weight_BLK in notes.items():
        kind, *rest = name.split(".")
        modality = next((part for part in rest if part in MODALITIES), None)
        if kind == "gate" and modality is not None and "final" not in rest:
            # The place of the modality in a name differs between systems; without it names of one gate agree.
            rest.remove(modality)
            found[".".join([kind, *rest]), modality] = weight_BLK[..., :1]
    return found
