"""A finished cell as a predictor of clips that are in no store: weights, windows and statistics in one folder.

    cell.json  best.safetensors  inputs.json      what `Predictor.load` reads; nothing else of the workspace is needed
    fitted.safetensors                            encoders that the fold fitted, where a front end has one

Legend: N frames of a clip, W windows, L frames of a window, I inputs of a modality, T targets.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save
from safetensors.torch import load as load_weights

from crossfold.datasets.batches.windows import Stitcher, windows_over
from crossfold.datasets.corpora.clips import Target
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.datasets.store.normalisation import statistics_of
from crossfold.fusion_models.system import Notes
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.files import write_bytes, write_json
from crossfold.platform.evaluation.attention_collector import MapCollector
from crossfold.platform.evaluation.predict import first_columns
from crossfold.platform.features.fitted_encoders import fitted_of
from crossfold.platform.features.new_clips import NewClip, ReadingOptions
from crossfold.platform.modeling.emotion_model import EmotionModel, Stream, build_model, modalities_of
from crossfold.platform.training.cell_data import splits
from crossfold.platform.workspace.attention_maps import ClipMaps
from crossfold.platform.workspace.cell_record import CellRecord

INPUTS = "inputs.json"
FITTED = "fitted.safetensors"
_CLIP = "clip"
_COPIED = ("cell.json", "best.safetensors")


@dataclass(frozen=True)
class Input:
    """One modality as the cell was trained on it."""

    width: int
    mean: np.ndarray
    """float32 [I], of the training frames of the cell's fold."""
    std: np.ndarray

    def normalised(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        """float32 [N, I]: standardised, and zero where bool [N] `present` is false, as in training."""
        scaled: np.ndarray = ((values - self.mean) / self.std * present[:, None]).astype(np.float32)
        return scaled


@dataclass(frozen=True)
class FrontEnd:
    """How the features of the cell are made of media."""

    fps: float
    """The middle of the rates of its corpus, for clips without one."""
    origin: Mapping[str, Any]
    """Of each modality, as in the manifest of the store."""
    fitted: Mapping[str, np.ndarray] = field(default_factory=dict)
    """As `FeatureStore.fitted`, of the fold of the cell."""


@dataclass(frozen=True)
class Trace:
    """What a cell says of one clip."""

    values: np.ndarray
    """float32 [N, T], in the units of the labels."""
    gates: Mapping[tuple[str, str], np.ndarray]
    """(gate, modality) -> float32 [N], the weight of the unattended features (B2), for systems with gates."""
    maps: ClipMaps
    """Attention over the first windows of the clip; without maps for systems that have none over time."""


class Predictor:
    """Predicts frame by frame: from media, or from the features that the cell's store would hold of a clip."""

    def __init__(
        self,
        cell: Cell,
        model: EmotionModel,
        inputs: Mapping[str, Input],
        targets: Mapping[str, Target],
        front_end: FrontEnd | None = None,
    ) -> None:
        self.cell = cell
        self.inputs = inputs
        self.targets = targets
        self._model = model.eval()
        self._front_end = front_end

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Reads what `write_deployment` wrote. Raises `UserError` where it is no such folder, or damaged."""
        try:
            cell = Cell.model_validate_json((folder / "cell.json").read_text())
            described: dict[str, Any] = json.loads((folder / INPUTS).read_text())
            weights = (folder / "best.safetensors").read_bytes()
            fitted = (folder / FITTED).read_bytes() if FITTED in described.get("sha256", {}) else b""
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no deployed cell: {error}", "export the cell again") from None
        for name, content in (("best.safetensors", weights), (FITTED, fitted)):
            wanted = described.get("sha256", {}).get(name)  # earlier versions wrote none
            if wanted is not None and hashlib.sha256(content).hexdigest() != wanted:
                raise UserError(f"{folder / name} does not have the digest of {INPUTS}", "export the cell again")
        return cls._of(cell, described, weights, load(fitted) if fitted else {})

    @classmethod
    def of(cls, record: CellRecord, store: FeatureStore) -> "Predictor":
        """Of a finished cell. Raises `UserError` where it cannot be deployed."""
        described = _described(record.cell, store)
        weights = record.file("best.safetensors").read_bytes()
        return cls._of(record.cell, described, weights, _fitted(record.cell, store))

    @classmethod
    def _of(
        cls, cell: Cell, described: Mapping[str, Any], weights: bytes, fitted: Mapping[str, np.ndarray]
    ) -> "Predictor":
        inputs = {
            modality: Input(
                int(entry["width"]), np.array(entry["mean"], np.float32), np.array(entry["std"], np.float32)
            )
            for modality, entry in described["modalities"].items()
        }
        model = build_model(cell, {modality: entry.width for modality, entry in inputs.items()})
        model.load_state_dict(load_weights(weights))
        targets = {name: Target(name, *limits) for name, limits in described["targets"].items()}
        made = described.get("front_end")
        front_end = FrontEnd(made["fps"], made["origin"], fitted) if made is not None else None
        return cls(cell, model, inputs, targets, front_end)

    @property
    def front_end(self) -> FrontEnd:
        """How its features are made of media. Raises `UserError` for a folder of a version that did not say it."""
        if self._front_end is None:
            raise UserError(f"{self.cell.label} was exported without its front ends", "export it again")
        return self._front_end

    def read(self, path: Path, options: ReadingOptions | None = None) -> NewClip:
        """A clip of a video, sound, a folder of crops or features, for `trace_of`. Raises `UserError`."""
        front_end = self.front_end
        return NewClip.read(path, front_end.origin, front_end.fps, options)

    def trace_of(self, clip: NewClip) -> Trace:
        """What the cell says of a clip that was read with its front ends. Raises `UserError`."""
        fitted = {m: fitted_of(self.front_end.fitted, m, self.cell.fold) for m in self.inputs}
        features = clip.features(fitted)
        # A folder of features may hold more modalities than the cell reads, and media give those of its store.
        values = {m: array for m, array in features.values.items() if m in self.inputs}
        return self.trace(values, {m: features.present[m] for m in values})

    def predict(
        self, features: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """float32 [N, T], in the units of the labels, from float [N, I] of each modality of one clip.

        present: bool [N] of each modality, false where it is absent; else it is present in every frame.
        Raises `UserError` for a modality that is missing, or of another width or length.
        """
        return self.trace(features, present).values

    @torch.no_grad()
    def trace(self, features: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray] | None = None) -> Trace:
        """`predict`, with gates and attention."""
        frames = self._checked(features)
        x, batch = self.normalised(features, present), self.cell.recipe.batch
        windows = windows_over(np.arange(frames), self.cell.recipe.window, self.cell.recipe.hop)
        stitcher = Stitcher(frames, len(self.cell.targets))
        gates: dict[tuple[str, str], Stitcher] = {}
        collector = MapCollector.of_clip(_CLIP, frames, self.cell.recipe.window)
        for begin in range(0, len(windows), batch):
            rows, real = (array[begin : begin + batch] for array in (windows.rows, windows.real))
            gathered = {m: torch.from_numpy(values[rows] * real[..., None]) for m, values in x.items()}
            notes: Notes = {}
            stitcher.add(rows, real, self._model(gathered, torch.from_numpy(real), notes).numpy())
            for key, weight_BL1 in first_columns(notes).items():
                gates.setdefault(key, Stitcher(frames, 1)).add(rows, real, weight_BL1.float().numpy())
            collector.add(rows, real, notes)
        mean, _ = stitcher.frames()
        values = self.in_units(mean)
        weights = {key: stitched.frames()[0][:, 0] for key, stitched in sorted(gates.items())}
        return Trace(values, weights, collector.maps()[_CLIP])

    def stream(self) -> Stream:
        """Predicts a window frame by frame. Raises `UserError` where predictions depend on future frames."""
        return Stream(self.cell, self._model)

    def normalised(
        self, features: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """float32 [N, I] of each modality as the model reads it; arguments as of `predict`."""
        return {
            modality: entry.normalised(
                np.asarray(features[modality], np.float32),
                np.asarray((present or {}).get(modality, np.ones(len(features[modality]))), np.bool_),
            )
            for modality, entry in self.inputs.items()
        }

    def in_units(self, mean: np.ndarray) -> np.ndarray:
        """float32 [N, T] of the model in the units of the labels."""
        return np.stack(
            [self.targets[target].from_unit(mean[:, t]) for t, target in enumerate(self.cell.targets)], axis=1
        )

    def _checked(self, features: Mapping[str, np.ndarray]) -> int:
        for modality in features:
            if modality not in self.inputs:
                known = tuple(self.inputs)
                raise UserError(
                    f"unknown modality {modality!r}{did_you_mean(modality, known)}", f"give {', '.join(known)}"
                )
        lengths = set()
        for modality, entry in self.inputs.items():
            if modality not in features:
                raise UserError(f"{self.cell.label} needs {modality}", f"give {', '.join(self.inputs)}")
            shape = np.shape(features[modality])
            if len(shape) != 2 or shape[1] != entry.width or not shape[0]:
                raise UserError(
                    f"{modality} has shape {shape}, the cell was trained on (frames, {entry.width})",
                    "give the features of the store's front end, one row per frame",
                )
            lengths.add(shape[0])
        if len(lengths) > 1:
            raise UserError(f"modalities of {sorted(lengths)} frames", "give every modality on the same frames")
        return int(lengths.pop())


def why_not_deployable(cell: Cell) -> str | None:
    """Why a cell cannot be deployed as features in, predictions out; None where it can."""
    if cell.recipe.backbones:
        return "its backbones read raw frames"
    if cell.recipe.clip.frames > 1:
        return "its predictions stand for clips of frames"
    return None


def write_deployment(record: CellRecord, store: FeatureStore, folder: Path) -> None:
    """Writes what `Predictor.load` needs of a finished cell into `folder`. Raises `UserError` where it cannot be."""
    described = _described(record.cell, store)
    contents = {name: record.file(name).read_bytes() for name in _COPIED}
    if fitted := _fitted(record.cell, store):
        contents[FITTED] = save(fitted)
    described["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_bytes(folder / name, content)
    write_json(folder / INPUTS, described)


def _fitted(cell: Cell, store: FeatureStore) -> dict[str, np.ndarray]:
    """What the fold of the cell fitted for its modalities."""
    own = tuple(f"{modality}@{cell.fold}." for modality in modalities_of(cell))
    return {name: array for name, array in store.fitted().items() if name.startswith(own)}


def _described(cell: Cell, store: FeatureStore) -> dict[str, Any]:
    """`inputs.json`: width and statistics of each modality, how it is made, and the range of each target."""
    if (reason := why_not_deployable(cell)) is not None:
        raise UserError(f"{cell.label} cannot be deployed: {reason}", "export its predictions instead")
    modalities = {}
    # An inner cell trains on fewer clips than its fold, and so has statistics of its own.
    trained = splits(cell, store)[0].train
    for modality in modalities_of(cell):
        statistics = statistics_of(store, modality, cell.fold, trained)
        assert statistics is not None, "extracted features have statistics"
        modalities[modality] = {
            "width": store.width(modality),
            "mean": statistics.mean.tolist(),
            "std": statistics.std.tolist(),
        }
    origin = store.manifest["origin"]
    made = {name: facts for name, facts in origin.items() if name in modalities}
    return {
        "modalities": modalities,
        "targets": {name: [store.target(name).low, store.target(name).high] for name in cell.targets},
        "front_end": {
            "fps": float(np.median([clip.fps for clip in store.clips])),
            # Features that were given, and the corpus that is numbers from the start, have no front end.
            "origin": made if len(made) == len(modalities) else {"features": "as given"},
        },
    }
