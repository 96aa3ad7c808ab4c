"""Predictions of several cells joined into one track per clip and target."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.evaluation.postprocessing import processed
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.predictions import Predictions


@dataclass(frozen=True)
class Track:
    """The predictions of one clip for every frame: float32 [frames, targets]."""

    clip: str
    values: np.ndarray
    filled: int
    """Frames that had no prediction and hold another's."""


def predictions_of_part(record: CellRecord, store: FeatureStore, part: str, *, post: bool) -> Predictions:
    """What a cell predicted for the clips it reports, or predicts now for those of the corpus's test part.

    part: `reported` or `test`; post: after the post-processing, of reported clips only. Raises `UserError` else.
    """
    if part == "reported":
        return post_processed(record, store) if post else record.predictions
    if part != "test" or post:
        raise UserError(f"--part {part}{' --post' * post}", "give reported or test; --post goes with reported")
    from crossfold.platform.export.test_set import clips_of_test_part, predict_clips  # imports torch

    return predict_clips(record, store, clips_of_test_part(store))


def post_processed(record: CellRecord, store: FeatureStore) -> Predictions:
    """The predictions of a cell after the chain that is stored with it, as fitted on its training clips or fixed.

    The column that was fitted on the reported labels themselves is never applied. Raises `UserError` without a chain.
    """
    columns = (record.result.get("post") or {}).get("columns", {})
    for name in ("train", "fixed"):
        if name in columns:
            return processed(record.predictions, columns[name]["fitted"], store)
    problem = f"{record.cell.label} has no chain of post-processing in its result"
    raise UserError(problem, "leave --post out, or run the sweep under a recipe with `post`")


def join(members: Sequence[Predictions], targets: Sequence[str]) -> list[Track]:
    """One track per clip: the targets of several cells side by side, the mean where several cells predict a clip.

    Seeds, and folds that report the same clip, are an ensemble: their predictions are averaged frame by frame, then
    gaps are filled. Raises `UserError` where a target is missing for a clip, or has no prediction at all.
    """
    sums: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        for clip, target, values in _tracks(member):
            sums[clip][target].append(values)
    tracks = []
    # In order of name, whatever order the cells were given in.
    for clip in sorted(sums):
        if missing := [target for target in targets if target not in sums[clip]]:
            raise UserError(
                f"clip {clip} has predictions of {', '.join(sums[clip])} and none of {missing[0]}",
                "run the cells of both targets on the same folds, or choose a fold with --fold",
            )
        columns = [_mean(clip, target, sums[clip][target]) for target in targets]
        missing_frames = np.isnan(np.stack(columns)).any(axis=0)
        # The last value before a gap holds through it; before the first value, that one does.
        values = pd.DataFrame(np.stack(columns, axis=1)).ffill().bfill().to_numpy(np.float32)
        tracks.append(Track(clip, values, int(missing_frames.sum())))
    return tracks


def _tracks(predictions: Predictions) -> Iterator[tuple[str, str, np.ndarray]]:
    """(clip, target, float64 [frames]), not a number where no window reached the frame."""
    for clip in predictions.clips:
        rows = predictions.clip(clip)
        for t, target in enumerate(predictions.targets):
            values = predictions.prediction[rows, t].astype(np.float64)
            # What no window reached has no label that counts, and stands at exactly 0 in all targets.
            unreached = ~predictions.valid[rows].any(axis=1) & (predictions.prediction[rows] == 0).all(axis=1)
            yield clip, target, np.where(unreached, np.nan, values)


def _mean(clip: str, target: str, tracks: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(tracks)
    there = ~np.isnan(stacked)
    if not there.any():
        raise UserError(f"clip {clip} has no frame with a prediction of {target}", "train with `invalid: mask`")
    counts = there.sum(axis=0)
    mean: np.ndarray = np.where(there, stacked, 0).sum(axis=0) / np.where(counts > 0, counts, np.nan)
    return mean
