"""Means of predictions: over seeds of one fold, and over folds where they predict the same clips (E13).

No torch here: reports read it. Cells of different folds report different clips, so an ensemble of folds has no score
on the training corpus; it is for clips that none of them reports, such as those of a challenge's test set.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.evaluation.scoring import pooled_ccc, score
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.predictions import Predictions
from crossfold.platform.workspace.workspace import Workspace


def mean_of(predictions: Sequence[Predictions]) -> Predictions:
    """The mean prediction, frame by frame, in float64; a frame is valid where it is for every member.

    Raises `UserError` where members predict different clips or targets, as those of different folds do.
    """
    if not predictions:
        raise UserError("an ensemble of no predictions", "give at least one")
    first = predictions[0]
    for other in predictions[1:]:
        if (other.clips, other.targets) != (first.clips, first.targets) or len(other.frame) != len(first.frame):
            raise UserError(
                f"members of an ensemble predict different clips or targets ({len(first.clips)} clips of "
                f"{', '.join(first.targets)}; {len(other.clips)} of {', '.join(other.targets)})",
                "cells of different folds report different clips: predict the same clips with each of them first",
            )
    mean = np.mean([p.prediction.astype(np.float64) for p in predictions], axis=0).astype(np.float32)
    return replace(first, prediction=mean, valid=np.logical_and.reduce([p.valid for p in predictions]))


def means_of(predictions: Iterable[Predictions]) -> list[tuple[Predictions, int]]:
    """The mean of each group that predicts the same clips and targets, and of how many members it is."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Predictions]] = defaultdict(list)
    for member in predictions:
        groups[member.clips, member.targets].append(member)
    return [(mean_of(members), len(members)) for members in groups.values()]


def save_seed_ensembles(workspace: Workspace, among: Set[str] | None = None) -> list[Path]:
    """Scores the mean of each two or more finished cells that differ in the seed only, and keeps it for reports.

    among: only of these cells; None: of all. Returns the file of each (docs/results.md); one that is there already is
    not made again.
    """
    groups: dict[str, list[CellRecord]] = defaultdict(list)
    finished = workspace.finished()
    for record in map(workspace.read_exactly, sorted(finished if among is None else finished & among)):
        if record.cell.inner is None:
            groups[canonical_json(record.cell.identity() | {"seed": None})].append(record)
    stores: dict[Path, FeatureStore] = {}
    saved = []
    for members in groups.values():
        store = workspace.paths.store(members[0].cell.corpus, members[0].cell.store)
        # A store that is elsewhere, as after a merge, cannot say which frames make a video.
        if len(members) > 1 and store.is_dir():
            saved.append(_scored(sorted(members, key=lambda record: record.cell.seed), workspace, store, stores))
    return saved


def _scored(members: Sequence[CellRecord], workspace: Workspace, store: Path, stores: dict[Path, FeatureStore]) -> Path:
    cell, ids = members[0].cell, [record.cell_id for record in members]
    # With the scores of the members, so that a cell that was run again is not mistaken for what it was.
    key = canonical_json({"members": ids, "metrics": [record.result["metrics"] for record in members]})
    path = workspace.paths.ensembles / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return path
    if store not in stores:
        stores[store] = FeatureStore(store)
    ensemble = {
        "over": "seed",
        "members": ids,
        "seeds": [record.cell.seed for record in members],
        **{key: value for key, value in cell.identity().items() if key not in ("recipe", "seed")},
        "recipe_hash": hashlib.sha256(cell.recipe.identity_json.encode()).hexdigest()[:8],
        **score(mean_of([record.predictions for record in members]), stores[store]),
    }
    write_json(path, ensemble)
    return path


def best_folds(cells: Iterable[CellRecord], count: int) -> tuple[int, ...]:
    """E13: the folds with the highest score on the split that chose their epochs, mean over seeds and targets.

    cells: of one system and recipe. Ties go to the lower index; the folds come in order of their index.
    Raises `UserError` where there are fewer folds.
    """
    scores: dict[int, list[float]] = defaultdict(list)
    for record in cells:
        scores[record.cell.fold].append(float(record.result["selection"]["best_ccc"]))
    if not 1 <= count <= len(scores):
        raise UserError(f"the best {count} of {len(scores)} folds", "run more folds, or choose fewer")
    ranked = sorted(scores, key=lambda fold: (-float(np.mean(scores[fold])), fold))
    return tuple(sorted(ranked[:count]))


def scores_of_means(members: Sequence[Predictions]) -> list[dict[str, Any]]:
    """The score of each mean over cells that predict the same clips, where these have labels.

    One row per mean and target: target, ccc, cells, clips, and frames, the labelled ones.
    """
    scores: list[dict[str, Any]] = []
    for mean, cells in means_of(members):
        labelled = mean.valid.sum(axis=0)
        if not labelled.any():
            continue
        scores += [
            {"target": target, "ccc": ccc, "cells": cells, "clips": len(mean.clips), "frames": int(frames)}
            for (target, ccc), frames in zip(pooled_ccc(mean).items(), labelled, strict=True)
        ]
    return scores
