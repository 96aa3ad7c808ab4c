"""A finished cell in Python: its scores, curve, predictions and model, and predictions for new clips."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.modeling.emotion_model import EmotionModel, modalities_of
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.workspace import Workspace


class TrainedCell:
    """One training run that finished: what `train` returns and `load` reads."""

    def __init__(self, record: CellRecord, workspace: Workspace) -> None:
        self._record, self._workspace = record, workspace

    def __repr__(self) -> str:
        scores = ", ".join(f"{target} CCC {row['ccc']:.3f}" for target, row in self.scores.iterrows())
        return f"TrainedCell({self.cell.label}: {scores})"

    @property
    def cell(self) -> Cell:
        """What was trained: system, parameters, corpus, fold, targets, seed and recipe."""
        return self._record.cell

    @property
    def cell_id(self) -> str:
        """The identity of the cell, 16 hex digits; the name of its folder in the workspace."""
        return self._record.cell_id

    @property
    def path(self) -> Path:
        """The folder of the cell."""
        return self._record.path

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per target on the reported clips: `ccc`, `ccc_video_mean`, `pcc`, `rmse` and others."""
        metrics = pd.DataFrame.from_dict(self._record.result["metrics"], orient="index")
        return metrics.rename_axis("target")

    @property
    def curve(self) -> pd.DataFrame:
        """One row per epoch: epoch, learning_rate, train_loss, and `ccc_<target>` on the selection split."""
        return self._record.curve

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per frame and target of the reported clips; see `Workspace.predictions`."""
        from crossfold.platform.export.predictions_table import tidy

        return tidy([(self.cell, self._record.predictions)])

    @cached_property
    def model(self) -> EmotionModel:
        """The network with its best weights, in evaluation mode: float windows [B, L, I] of each modality and their
        bool mask [B, L] in, float [B, L, T] in the unit range out.
        """
        from safetensors.torch import load_file

        from crossfold.platform.modeling.emotion_model import build_model
        from crossfold.platform.modeling.inputs import input_widths

        model = build_model(self.cell, input_widths(self.cell.recipe, self._store, modalities_of(self.cell)))
        model.load_state_dict(load_file(self._record.file("best.safetensors")))
        return model.eval()

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> features per frame that `predict` takes."""
        return {modality: entry.width for modality, entry in self._predictor.inputs.items()}

    def predict(
        self,
        clip: str | Path | Mapping[str, npt.ArrayLike],
        present: Mapping[str, npt.ArrayLike] | None = None,
        *,
        whole_frame: bool = False,
        rate: float | None = None,
        weights: str | Path | None = None,
    ) -> pd.DataFrame:
        """Predictions for one new clip: one row per frame, one column per target, in the units of the labels.

        clip: a video, a wav file, a folder of face crops or of features; or float [N, I] of each modality, as the
        feature store of the cell would hold them, before normalisation. present: bool [N] of each modality of such
        arrays, false where it is absent; else it is present everywhere. whole_frame: the pictures of the video are
        crops of a face already. rate: frames per second of a clip without video. weights: the folder of pretrained
        weights, where a front end is a network.
        Raises `UserError` for a modality that is missing or has another shape, a video without a face, and a cell that
        reads raw frames.
        """
        if isinstance(clip, (str, Path)):
            from crossfold.platform.features.new_clips import ReadingOptions

            options = ReadingOptions(Path(weights) if weights is not None else None, whole_frame, rate)
            read = self._predictor.read(Path(clip), options)
            values = self._predictor.trace_of(read).values
            return pd.DataFrame(values, columns=list(self.cell.targets)).rename_axis("frame")
        features = clip
        arrays = {modality: np.asarray(values) for modality, values in features.items()}
        shown = {modality: np.asarray(values, np.bool_) for modality, values in (present or {}).items()}
        values = self._predictor.predict(arrays, shown)
        return pd.DataFrame(values, columns=list(self.cell.targets)).rename_axis("frame")

    @cached_property
    def _predictor(self) -> Any:
        from crossfold.platform.export.predictor import Predictor

        return Predictor.of(self._record, self._store)

    @cached_property
    def _store(self) -> Any:
        from crossfold.datasets.store.feature_store import FeatureStore

        return FeatureStore(self._workspace.find_store(self.cell.corpus, self.cell.store))


def load(cell: str, workspace: str | Path | None = None) -> TrainedCell:
    """A finished cell by its id, or the beginning of it.

    workspace: a folder or a URL, else `CROSSFOLD_HOME`, else `./.crossfold`. Raises `UserError` where there is no such
    cell, `DataError` where it is damaged.
    """
    files = Workspace.locate(workspace)
    return TrainedCell(files.read(cell), files)
