"""A finished cell as a predictor of clips that are in no store: weights, windows and statistics in one folder.

    cell.json  best.safetensors  inputs.json      what `Predictor.load` reads; nothing else of the workspace is needed

Legend: N frames of a clip, W windows, L frames of a window, I inputs of a modality, T targets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from crossfold.datasets.batches.windows import Stitcher, windows_over
from crossfold.datasets.corpora.clips import Target
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.datasets.store.normalisation import statistics_of
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.files import write_bytes, write_json
from crossfold.platform.modeling.emotion_model import EmotionModel, build_model, modalities_of
from crossfold.platform.training.cell_data import splits
from crossfold.platform.workspace.cell_record import CellRecord

INPUTS = "inputs.json"
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


class Predictor:
    """Predicts frame by frame from the features that the cell's store would hold of a clip."""

    def __init__(
        self, cell: Cell, model: EmotionModel, inputs: Mapping[str, Input], targets: Mapping[str, Target]
    ) -> None:
        self.cell = cell
        self.inputs = inputs
        self._model = model.eval()
        self._targets = targets

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Reads what `write_deployment` wrote. Raises `UserError` where it is no such folder."""
        try:
            cell = Cell.model_validate_json((folder / "cell.json").read_text())
            described: dict[str, Any] = json.loads((folder / INPUTS).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no deployed cell: {error}", "export the cell again") from None
        return cls._of(cell, described, folder / "best.safetensors")

    @classmethod
    def of(cls, record: CellRecord, store: FeatureStore) -> "Predictor":
        """Of a finished cell. Raises `UserError` where it cannot be deployed."""
        return cls._of(record.cell, _described(record.cell, store), record.file("best.safetensors"))

    @classmethod
    def _of(cls, cell: Cell, described: Mapping[str, Any], weights: Path) -> "Predictor":
        inputs = {
            modality: Input(
                int(entry["width"]), np.array(entry["mean"], np.float32), np.array(entry["std"], np.float32)
            )
            for modality, entry in described["modalities"].items()
        }
        model = build_model(cell, {modality: entry.width for modality, entry in inputs.items()})
        model.load_state_dict(load_file(weights))
        targets = {name: Target(name, *limits) for name, limits in described["targets"].items()}
        return cls(cell, model, inputs, targets)

    @torch.no_grad()
    def predict(
        self, features: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """float32 [N, T], in the units of the labels, from float [N, I] of each modality of one clip.

        present: bool [N] of each modality, false where it is absent; else it is present in every frame.
        Raises `UserError` for a modality that is missing, or of another width or length.
        """
        frames = self._checked(features)
        every, batch = np.ones(frames, np.bool_), self.cell.recipe.batch
        x = {
            modality: entry.normalised(
                np.asarray(features[modality], np.float32), np.asarray((present or {}).get(modality, every), np.bool_)
            )
            for modality, entry in self.inputs.items()
        }
        windows = windows_over(np.arange(frames), self.cell.recipe.window, self.cell.recipe.hop)
        stitcher = Stitcher(frames, len(self.cell.targets))
        for begin in range(0, len(windows), batch):
            rows, real = (array[begin : begin + batch] for array in (windows.rows, windows.real))
            gathered = {m: torch.from_numpy(values[rows] * real[..., None]) for m, values in x.items()}
            stitcher.add(rows, real, self._model(gathered, torch.from_numpy(real)).numpy())
        mean, _ = stitcher.frames()
        return np.stack(
            [self._targets[target].from_unit(mean[:, t]) for t, target in enumerate(self.cell.targets)], axis=1
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
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        write_bytes(folder / name, record.file(name).read_bytes())
    write_json(folder / INPUTS, described)


def _described(cell: Cell, store: FeatureStore) -> dict[str, Any]:
    """`inputs.json`: width and statistics of each modality, and the range of each target."""
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
    return {
        "modalities": modalities,
        "targets": {name: [store.target(name).low, store.target(name).high] for name in cell.targets},
    }
