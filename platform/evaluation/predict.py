"""From a trained model to frame-level predictions.

Legend: B batch, L indices of a window, M its frames, T targets, N frames of the scored clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from crossfold.datasets.batches.corruptions import DamagedFrames
from crossfold.datasets.batches.source import WindowSource
from crossfold.datasets.batches.windows import Stitcher
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.fusion_models.system import Notes
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.evaluation.attention_collector import MapCollector
from crossfold.platform.evaluation.scoring import pooled_ccc
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.training.cell_data import CellData, Split
from crossfold.platform.workspace.predictions import Predictions

FRAMES = 3000
"""Frames of the windows that are predicted together: on a CPU fewer cost more calls, and more leave its cache."""


@dataclass(frozen=True)
class ForwardResult:
    """What one pass over a split gives."""

    predictions: Predictions
    reached: np.ndarray
    """bool [N]: frames that a window covers."""


@dataclass(frozen=True)
class Variant:
    """One way to show the windows of a split, and what is collected of it."""

    modality: str | None = None
    """The one that is damaged."""
    frames: DamagedFrames | None = None
    """What is shown of it."""
    gates: bool = False
    """Whether the weights of the gates are collected, and stitched as predictions are."""
    maps: Sequence[str] = ()
    """Clips whose attention maps are collected; only batches that hold a window of them note their maps."""


def validate(data: CellData, model: EmotionModel) -> dict[str, float]:
    """CCC per target on the split that picks the epoch."""
    return pooled_ccc(forward_pass(model, data, data.selection).predictions)


def forward_pass(
    model: EmotionModel, data: CellData, split: Split, *, gates: bool = False, maps: Sequence[str] = ()
) -> ForwardResult:
    """Predictions for every frame of the split's clips, windows stitched by their mean, in the labels' own units.

    gates, maps: see `Variant`.
    """
    return forward_passes(model, data, split, [Variant(gates=gates, maps=maps)])[0]


# Not in inference mode, which costs a little less: a model that is trained on may keep a tensor it made here.
@torch.no_grad()
def forward_passes(
    model: EmotionModel, data: CellData, split: Split, variants: Sequence[Variant]
) -> list[ForwardResult]:
    """As `forward_pass`, for several variants of one split at once: a modality is encoded again only where it is
    damaged.
    """
    model.eval()
    store, targets, windows = data.store, data.cell.targets, split.source.windows
    rows_N = rows_of(store, split.clips)
    # Sums are kept of the frames of these clips alone.
    place = np.zeros(store.frames, np.int64)
    place[rows_N] = np.arange(len(rows_N))
    stitcher = Stitcher(len(rows_N), len(variants) * len(targets))
    shown = [_Shown.of(variant, split, store) for variant in variants]
    once = [m for m in model.encoders if any(variant.modality != m for variant in variants)]
    batches = -(-len(split.source) // windows_at_once(data.cell.recipe, windows.rows.shape[1]))
    whole = []
    for chosen in np.array_split(np.arange(len(split.source)), batches):
        batch = split.source.batch(chosen)
        rows, real = windows.rows[chosen], windows.real[chosen]
        encoded = model.encode({m: batch.x[m] for m in once}, batch.real)
        predicted = []
        for each in shown:
            own, m = encoded, each.variant.modality
            if m is not None and m in model.encoders:
                own = encoded | model.encode({m: each.source.input(m, chosen)}, batch.real)
            notes = each.notes(rows)
            y_BLT = model.fuse({m: own[m] for m in model.encoders}, batch.real, notes)
            predicted.append(y_BLT.float())
            each.add(rows, real, place[rows], len(rows_N), notes or {})
        whole.append(torch.cat(predicted, dim=-1))
    # After the last batch, so that the host waits once for a GPU.
    stitcher.add(place[windows.rows], windows.real, _each_frame(torch.cat(whole), windows.rows.shape[1]))
    mean, reached = stitcher.frames()
    results = []
    for each, mean_NT in zip(shown, np.split(mean, len(variants), axis=1), strict=True):
        # Scores are in the units of the annotations, and the loss is not.
        units = np.stack([store.target(target).from_unit(mean_NT[:, t]) for t, target in enumerate(targets)], axis=1)
        predictions = predictions_of(store, split.clips, targets, units)
        predictions = replace(
            predictions,
            valid=predictions.valid & reached[:, None],
            gates={key: gate.frames()[0][:, 0] for key, gate in sorted(each.gates.items())},
            maps=each.maps.maps(),
        )
        results.append(ForwardResult(predictions, reached))
    return results


def windows_at_once(recipe: Recipe, frames: int) -> int:
    """How many windows of so many frames are predicted together.

    A prediction depends on it by no more than rounding: by nothing in most systems, by 1e-7 in some.
    """
    # Backbones need the memory of a training batch even without gradients.
    return recipe.batch if recipe.backbones else max(recipe.batch, FRAMES // frames)


@dataclass
class _Shown:
    """A variant on its way through the model, and what it noted."""

    variant: Variant
    source: WindowSource
    maps: MapCollector
    noting: bool
    """Whether gates are wanted, and the system has any as far as known."""
    gates: dict[tuple[str, str], Stitcher] = field(default_factory=dict)

    @classmethod
    def of(cls, variant: Variant, split: Split, store: FeatureStore) -> "_Shown":
        source = split.source
        if variant.modality is not None and variant.frames is not None:
            source = source.with_frames(variant.modality, variant.frames, variant.frames.present)
        maps = MapCollector.of_store(store, variant.maps, source.windows.rows.shape[1])
        return cls(variant, source, maps, variant.gates)

    def notes(self, rows: np.ndarray) -> Notes | None:
        """What the model shall note of these windows, rows int [B, M] of the store; None: nothing."""
        return {} if self.noting or self.maps.wants(rows) else None

    def add(self, rows: np.ndarray, real: np.ndarray, place: np.ndarray, frames: int, notes: Notes) -> None:
        """Keeps what was noted; place: int [B, M] of [0, `frames`), where each row stands among those of the clips."""
        if self.maps.wants(rows):
            self.maps.add(rows, real, notes)
        weights = first_columns(notes) if self.noting else {}
        for key, weight_BL1 in weights.items():
            gate = self.gates.setdefault(key, Stitcher(frames, 1))
            gate.add(place, real, _each_frame(weight_BL1, rows.shape[1]))
        # A system that notes no gate in its first batch has none.
        self.noting = bool(weights)


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
