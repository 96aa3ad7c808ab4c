"""Finished runs of cells, and their means over folds, seeds and targets.

Everything here is computed from the numbers in `result.json`; no prediction is read.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfold.platform.core.metrics import Moments

FIELDS = ("n", "mean_x", "mean_y", "sxx", "syy", "sxy")
"""The fields of `Moments`, in its order."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """The score of one finished cell for one target, and the moments of each reported video.

    Runs compare by identity, so that what was computed from a run is found in a cache.
    """

    fold: int
    seed: int
    ccc: float
    videos: tuple[str, ...]
    moments: Moments
    """Arrays with one entry per video, in the order of `videos`."""
    changes: Floats | None = None
    """For a score that is not the CCC of the moments, such as an area: what it changes by without each video."""


class MeanSd(NamedTuple):
    """A mean over folds of means over seeds, and the spread over seeds."""

    mean: float
    sd: float | None
    """Root of the mean over folds of the variance over seeds (n - 1); None where no fold has two seeds."""


def moments_of(videos: Mapping[str, Sequence[float]]) -> tuple[tuple[str, ...], Moments]:
    """Names and moments of the videos in `result.json`, in order of name."""
    names = _one_copy(tuple(sorted(videos)))
    table = np.array([videos[name] for name in names], np.float64).reshape(len(names), 6)
    return names, Moments(*table.T)


@lru_cache(maxsize=1024)
def _one_copy(names: tuple[str, ...]) -> tuple[str, ...]:
    # All runs of a fold have the same names; a copy for each of 100,000 cells would take 1 GB.
    return names


def mean_sd(cells: pd.DataFrame) -> MeanSd:
    """Mean over folds of the mean over seeds of column `ccc`, with the spread over seeds.

    cells: one row per finished run, columns `fold`, `seed`, `ccc`. Each fold weighs the same, whatever its seeds.
    """
    fold, ccc = cells["fold"].to_numpy(), cells["ccc"].to_numpy(np.float64)
    inside = [ccc[fold == each] for each in np.unique(fold)]
    variances = [float(np.var(values, ddof=1)) for values in inside if len(values) > 1]
    return MeanSd(
        mean=float(np.mean([values.mean() for values in inside])),
        sd=float(np.sqrt(np.mean(variances))) if variances else None,
    )


def restrict_to_common_runs(groups: Sequence[Sequence[Run]]) -> list[list[Run]]:
    """The runs of several targets or systems, only of folds and seeds that all have, on the same videos in each fold.

    A video without labels for a target has weight zero there, so that leaving it out changes nothing there.
    """
    if same_runs(groups):
        return [list(group) for group in groups]
    by_key = [{(run.fold, run.seed): run for run in group} for group in groups]
    keys = sorted(set(by_key[0]).intersection(*by_key[1:])) if by_key else []
    # Almost always one tuple of names a fold: a union over thousands of runs would take longer than all statistics.
    distinct: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    for runs in by_key:
        for fold, seed in keys:
            distinct[fold].add(runs[fold, seed].videos)
    videos = {fold: tuple(sorted(set().union(*names))) for fold, names in distinct.items()}
    return [[_on_videos(runs[key], videos[key[0]]) for key in keys] for runs in by_key]


def same_runs(groups: Sequence[Sequence[Run]]) -> bool:
    """Whether all groups have the same folds and seeds, in order, on the same videos in each fold."""
    layouts = [_layout(tuple(group)) for group in groups]
    return bool(layouts) and layouts[0] is not None and all(layout == layouts[0] for layout in layouts)


@lru_cache(maxsize=128)  # each system is compared with all others
def _layout(runs: tuple[Run, ...]) -> tuple[tuple[int, int, tuple[str, ...]], ...] | None:
    """Fold, seed and videos of each run; None where they are not in order, or a fold has other videos in some runs."""
    layout = tuple((run.fold, run.seed, run.videos) for run in runs)
    videos = {fold: names for fold, _, names in layout}
    ordered = all(before[:2] < after[:2] for before, after in pairwise(layout))
    return layout if ordered and all(videos[fold] == names for fold, _, names in layout) else None


def mean_scores(groups: Sequence[Sequence[Run]]) -> pd.DataFrame:
    """Columns fold, seed and ccc: the mean over targets, one group per target, of each fold and seed that all have."""
    columns = zip(*restrict_to_common_runs(groups), strict=True)
    scores = [(runs[0].fold, runs[0].seed, sum(run.ccc for run in runs) / len(runs)) for runs in columns]
    return pd.DataFrame(scores, columns=["fold", "seed", "ccc"])


def _on_videos(run: Run, videos: tuple[str, ...]) -> Run:
    """The run on these videos, with empty moments for those that it was not scored on."""
    if run.videos == videos:
        return run
    at = [videos.index(video) for video in run.videos]
    wide = Moments(*np.zeros((6, len(videos))))
    for name in FIELDS:
        getattr(wide, name)[at] = getattr(run.moments, name)
    changes = None
    if run.changes is not None:
        changes = np.zeros(len(videos))
        changes[at] = run.changes
    return replace(run, videos=videos, moments=wide, changes=changes)
