"""A finished cell as an MLflow model: `mlflow.pyfunc.load_model("runs:/<run id>/model").predict("video.mp4")`.

Only a description and the cell's own files are logged, a few milliseconds a cell; `mlflow.pyfunc.log_model` would
import and test the model each time. Loading needs Crossfold in the environment.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.export.predictor import Predictor, write_deployment
from crossfold.platform.features.new_clips import ReadingOptions
from crossfold.platform.workspace.cell_record import CellRecord

ARTIFACT = "model"
"""Where a run's model lies among its artifacts."""

_DATA = "data"


class Deployed:
    """What `load_model` wraps: one clip in, as a file or as features, predictions out."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        """float32 [frames, targets] of one clip.

        model_input: the path of a video, a wav file or a folder of crops, or a mapping with it under `path`, and, where
        wanted, `whole_frame`, `rate` and `weights` as `crossfold predict` has them; or a mapping of modality to
        [frames, width], or a data frame with columns `audio_0`, `audio_1`, ...
        """
        if isinstance(model_input, (str, Path)):
            model_input = {"path": model_input}
        if isinstance(model_input, Mapping) and "path" in model_input:
            asked = dict(model_input)
            path = Path(asked.pop("path"))
            known = [each.name for each in fields(ReadingOptions)]
            for name in asked:
                if name not in known:
                    raise UserError(f"unknown option {name!r}{did_you_mean(name, known)}", f"give {', '.join(known)}")
            return self.predictor.trace_of(self.predictor.read(path, ReadingOptions(**asked))).values
        return self.predictor.predict(_features(model_input, self.predictor))


def _features(given: Any, predictor: Predictor) -> dict[str, np.ndarray]:
    if not hasattr(given, "columns"):
        return {modality: np.asarray(values) for modality, values in dict(given).items()}
    wanted = {m: [f"{m}_{column}" for column in range(entry.width)] for m, entry in predictor.inputs.items()}
    missing = [name for names in wanted.values() for name in names if name not in given.columns]
    if missing:
        raise UserError(
            f"the data frame lacks {len(missing)} columns, {missing[0]} the first",
            f"give {', '.join(f'{names[0]} ... {names[-1]}' for names in wanted.values())}",
        )
    return {modality: given[names].to_numpy(np.float32) for modality, names in wanted.items()}


def _load_pyfunc(path: str) -> Deployed:
    """Called by MLflow, by this name, with the folder of the model's data."""
    return Deployed(Predictor.load(Path(path)))


def write_model(record: CellRecord, store: FeatureStore, folder: Path) -> None:
    """Writes the model of a cell into `folder`, in MLflow's own layout. Raises `UserError` where it cannot be."""
    from mlflow import pyfunc
    from mlflow.models import Model

    write_deployment(record, store, folder / _DATA)
    model = Model(run_id=None, metadata={"cell_id": record.cell_id, "label": record.cell.label})
    pyfunc.add_to_model(model, loader_module=__name__, data=_DATA)
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text(
        "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in ("crossfold", "torch", "safetensors"))
    )
