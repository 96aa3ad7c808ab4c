"""From a trained model to frame-level predictions and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crossfold.datasets.store import FeatureStore
from crossfold.datasets.windows import Stitcher, WindowSource
from crossfold.platform.metrics import Moments, ccc, ccc_of, moments, pcc_of, rmse_of
from crossfold.platform.model import EmotionModel
from crossfold.platform.results import Predictions


@dataclass(frozen=True)
class Split:
    """The clips that are scored together and the windows that cover them."""

    clips: tuple[str, ...]
    source: WindowSource


@torch.no_grad()
def predict(model: EmotionModel, split: Split, store: FeatureStore, targets: Sequence[str], batch: int) -> Predictions:
    """Predictions for every frame of the split's clips, windows stitched by their mean."""
    model.eval()
    stitcher = Stitcher(store.frames, len(targets))
    for start in range(0, len(split.source), batch):
        chosen = np.arange(start, min(start + batch, len(split.source)))
        gathered = split.source.batch(chosen)
        y_BLT = model(gathered.x, gathered.real)
        windows = split.source.windows
        stitcher.add(windows.rows[chosen], windows.real[chosen], y_BLT.float().cpu().numpy())
    mean, reached = stitcher.frames()
    rows = np.concatenate([np.arange(store.rows(name).start, store.rows(name).stop) for name in split.clips])
    columns = [store.targets.index(target) for target in targets]
    lengths = [store.clip(name).frames for name in split.clips]
    return Predictions(
        clips=split.clips,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        frame=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        prediction=mean[rows],
        label=np.asarray(store.labels[rows])[:, columns],
        valid=np.asarray(store.valid[rows])[:, columns] & reached[rows][:, None],
        targets=tuple(targets),
    )


def pooled_ccc(predictions: Predictions) -> dict[str, float]:
    """CCC per target over the concatenated valid frames (F4): the headline number."""
    return {
        target: float(ccc(predictions.prediction[:, t], predictions.label[:, t], predictions.valid[:, t]))
        for t, target in enumerate(predictions.targets)
    }


def score(predictions: Predictions, store: FeatureStore) -> dict[str, Any]:
    """Everything `result.json` says of a split: pooled metrics, the mean per video, and the moments per video."""
    metrics: dict[str, Any] = {}
    videos: dict[str, Any] = {}
    for t, target in enumerate(predictions.targets):
        per_video = _video_moments(predictions, store, t)
        pooled = moments(predictions.prediction[:, t], predictions.label[:, t], predictions.valid[:, t])
        metrics[target] = {
            "ccc": float(ccc_of(pooled)),
            "ccc_video_mean": float(np.mean([ccc_of(m) for m in per_video.values()])),
            "pcc": float(pcc_of(pooled)),
            "rmse": float(rmse_of(pooled)),
            "frames": int(pooled.n),
        }
        videos[target] = {
            video: [float(value) for value in (m.n, m.mean_x, m.mean_y, m.sxx, m.syy, m.sxy)]
            for video, m in per_video.items()
        }
    return {"metrics": metrics, "videos": videos}


def _video_moments(predictions: Predictions, store: FeatureStore, target: int) -> dict[str, Moments]:
    """Moments of each video with a valid frame; the clips of one video count as one."""
    found: dict[str, Moments] = {}
    for name in predictions.clips:
        rows = predictions.clip(name)
        m = moments(
            predictions.prediction[rows, target], predictions.label[rows, target], predictions.valid[rows, target]
        )
        video = store.clip(name).video
        if m.n > 0:
            found[video] = found[video] + m if video in found else m
    return found
