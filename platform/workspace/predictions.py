"""Frame-level predictions of a cell, and how they lie in `predictions.npz`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.platform.workspace.attention_maps import ClipMaps, from_arrays, to_arrays

GATE = "gate:"
"""Begins the names of gate weights in `predictions.npz`: `gate:<gate>:<modality>`."""


@dataclass(frozen=True)
class Predictions:
    """Frame-level predictions of the reported split, in frame order, clip after clip.

    prediction, label: float32 [N, targets]; valid: bool [N, targets], false where the annotators gave no
    value or no window reached the frame; frame: int32 [N], the frame's index in its clip; clips: names;
    offsets: int64 [clips + 1], so clip i is rows offsets[i]:offsets[i+1]; gates: (gate, modality) ->
    float [N], the weight of column 0 (B2) at each frame, kept with two bytes, for systems that have any; maps:
    clip -> its attention maps, kept likewise, None for cells from before there were any.
    """

    clips: tuple[str, ...]
    offsets: np.ndarray
    frame: np.ndarray
    prediction: np.ndarray
    label: np.ndarray
    valid: np.ndarray
    targets: tuple[str, ...]
    gates: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    maps: Mapping[str, ClipMaps] | None = None

    @property
    def sha256(self) -> str:
        """The hash of the predicted values, in hexadecimal."""
        return hashlib.sha256(np.ascontiguousarray(self.prediction).tobytes()).hexdigest()

    def clip(self, name: str) -> slice:
        """The rows of one clip."""
        index = self.clips.index(name)
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


def read_predictions(path: Path) -> Predictions:
    """What `write_predictions` wrote."""
    with np.load(path) as data:
        return Predictions(
            clips=tuple(str(name) for name in data["clips"]),
            offsets=data["offsets"],
            frame=data["frame"],
            prediction=data["prediction"],
            label=data["label"],
            valid=data["valid"],
            targets=tuple(str(name) for name in data["targets"]),
            gates={
                (gate, modality): data[key]
                for key in sorted(data.files)
                if key.startswith(GATE)
                for gate, modality in [key.removeprefix(GATE).split(":")]
            },
            maps=from_arrays(data),
        )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes the file; equal predictions give equal bytes."""
    gates: dict[str, Any] = {
        f"{GATE}{':'.join(key)}": weight_N.astype(np.float16) for key, weight_N in predictions.gates.items()
    }
    np.savez_compressed(
        path,
        clips=np.array(predictions.clips),
        offsets=predictions.offsets,
        frame=predictions.frame,
        prediction=predictions.prediction,
        label=predictions.label,
        valid=predictions.valid,
        targets=np.array(predictions.targets),
        **gates,
        **(to_arrays(predictions.maps) if predictions.maps is not None else {}),
    )
