"""From frame-level predictions to numbers, and which cells still lack theirs. No torch here: reports read it, and a
sweep that is done.

Legend: N frames of the scored clips, T targets.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.core.files import path_inside
from crossfold.platform.core.metrics import Moments, ccc, ccc_of, moments, pcc_of, rmse_of
from crossfold.platform.workspace.predictions import Predictions
from crossfold.platform.workspace.workspace import Workspace

DAMAGE = ("missing", "corrupted", "conflict")
"""Kinds of spans where one modality shows nothing, or something false."""


def pooled_ccc(predictions: Predictions) -> dict[str, float]:
    """CCC per target over the concatenated valid frames (F4): the headline number."""
    return {
        target: float(ccc(predictions.prediction[:, t], predictions.label[:, t], predictions.valid[:, t]))
        for t, target in enumerate(predictions.targets)
    }


def score(predictions: Predictions, store: FeatureStore) -> dict[str, Any]:
    """What `result.json` holds about a split: pooled metrics, the mean per video, and the moments per video."""
    metrics: dict[str, Any] = {}
    videos: dict[str, Any] = {}
    for t, target in enumerate(predictions.targets):
        # Moments of videos merge to those of any set of videos: reports resample them without the predictions.
        per_video = _video_moments(predictions, store, t)
        pooled = moments(predictions.prediction[:, t], predictions.label[:, t], predictions.valid[:, t])
        metrics[target] = {
            "ccc": float(ccc_of(pooled)),
            "ccc_video_mean": float(np.mean([ccc_of(m) for m in per_video.values()])) if per_video else 0.0,
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


def span_masks(predictions: Predictions, spans: pd.DataFrame) -> dict[str, np.ndarray]:
    """bool [N] for each `<kind>` and `<kind>:<modality>` of the spans on these clips, in order of name.

    spans: columns clip, start, end, kind, modality; frames [start, end) of the clip.
    """
    masks: dict[str, np.ndarray] = {}
    for span in spans[spans["clip"].isin(predictions.clips)].itertuples():
        rows = predictions.clip(str(span.clip))
        # A span may end after the last frame that is annotated.
        at = slice(rows.start + int(str(span.start)), min(rows.start + int(str(span.end)), rows.stop))
        for key in (str(span.kind), f"{span.kind}:{span.modality}"):
            masks.setdefault(key, np.zeros(len(predictions.frame), np.bool_))[at] = True
    return dict(sorted(masks.items()))


def span_scores(predictions: Predictions, spans: pd.DataFrame) -> dict[str, Any] | None:
    """Pooled metrics of each part of the frames that the spans make, and of the rest, `clean`; None without spans."""
    masks = span_masks(predictions, spans)
    if not masks:
        return None
    parts = {"clean": ~np.logical_or.reduce(list(masks.values()))} | masks
    scores = {name: _part_score(predictions, mask) for name, mask in parts.items()}
    return {name: found for name, found in scores.items() if found}


def _part_score(predictions: Predictions, part: np.ndarray) -> dict[str, Any]:
    found = {}
    for t, target in enumerate(predictions.targets):
        m = moments(predictions.prediction[:, t], predictions.label[:, t], predictions.valid[:, t] & part)
        if m.n > 0:
            found[target] = {
                "ccc": float(ccc_of(m)),
                "pcc": float(pcc_of(m)),
                "rmse": float(rmse_of(m)),
                "frames": int(m.n),
            }
    return found


def rescored_path(workspace: Workspace, evaluation: Evaluation, cell_id: str) -> Path:
    """Where the four parts of one cell under one evaluation are kept."""
    return path_inside(workspace.paths.rescored / evaluation.key, f"{cell_id}.json")


def to_rescore(
    cells: Iterable[Cell], evaluation: Evaluation, workspace: Workspace, *, by_video: bool = False
) -> Iterator[Cell]:
    """The finished ones that were neither committed nor rescored under this evaluation.

    by_video: also those whose stress curves have no numbers by video, as version 0.1 kept none.
    """
    # In the form in which a cell commits it.
    wanted = evaluation.model_dump(mode="json")
    finished = workspace.finished()
    for cell in cells:
        if cell.cell_id not in finished:
            continue
        known = rescored_path(workspace, evaluation, cell.cell_id).is_file() or (
            workspace.committed_evaluation(cell.cell_id) == wanted
        )
        if not known or (by_video and not has_videos(cell.cell_id, wanted, workspace)):
            yield cell


def has_videos(cell_id: str, wanted: Mapping[str, Any], workspace: Workspace) -> bool:
    """Whether the last evaluation of this kind has numbers by video for all curves of its stress suite."""
    evaluations = workspace.evaluations(workspace.read_exactly(cell_id))
    found = [each["stress"] for each in evaluations if each["evaluation"] == wanted]
    return bool(found) and _curves_have_videos(found[-1] or ())


def curves_of(strengths: Sequence[tuple[str, str, float]]) -> set[tuple[str, str]]:
    """The kinds and modalities that make a curve: those of two strengths or more besides 0."""
    count = Counter((kind, modality) for kind, modality, strength in strengths if strength != 0)
    return {damage for damage, number in count.items() if number > 1}


def _curves_have_videos(stress: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every entry of a curve has `left_out`, which version 0.1 did not keep."""
    curves = curves_of([(one["kind"], one["modality"], one["strength"]) for one in stress])
    return all("left_out" in one for one in stress if (one["kind"], one["modality"]) in curves)
