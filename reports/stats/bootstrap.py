"""Statistics of finished runs: means over seeds and folds, intervals over videos, paired gains.

Everything here is computed from the numbers in `result.json`; no prediction is read. An interval resamples videos,
never frames: the frames of one video are not independent. Two systems are compared on the same resampled videos.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from crossfold.platform.core.metrics import Moments, ccc_of

Floats = npt.NDArray[np.float64]

DRAWS = 2000
"""Resamples of one interval: the ends of a 95% interval then move by less than 0.002 from seed to seed."""
LEVEL = 0.95
_FIELDS = ("n", "mean_x", "mean_y", "sxx", "syy", "sxy")  # of `Moments`, in its order
MIN_VIDEOS = 4
"""With fewer videos to resample there is no interval: they say too little about other videos."""


@dataclass(frozen=True, eq=False)
class Run:
    """The score of one finished cell for one target, and the moments of each reported video.

    Runs compare by identity, so that the bootstrap of a run is found in the cache.
    """

    fold: int
    seed: int
    ccc: float
    videos: tuple[str, ...]
    moments: Moments
    """Arrays with one entry per video, in the order of `videos`."""


class MeanSd(NamedTuple):
    """A mean over folds of means over seeds, and the spread over seeds."""

    mean: float
    sd: float | None
    """Root of the mean over folds of the variance over seeds (n - 1); None where no fold has two seeds."""


@dataclass(frozen=True)
class Interval:
    """The two ends of a 95% interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """How much better one system is than another on the same folds, seeds and videos."""

    mean: float
    """Mean over folds of the mean over seeds of the difference in CCC."""
    low: float | None
    high: float | None
    """Ends of the paired video-level interval; None with too few videos."""
    n: int
    """Pairs, one a fold and seed."""
    p: float | None
    """Paired t test over the pairs; None with fewer than two, or with no spread at all."""
    p_wilcoxon: float | None = None
    differences: tuple[float, ...] = ()
    """One a fold and seed, in that order."""

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between the printed and the measured order of n rows."""

    tau: float
    p: float
    n: int


def moments_of(videos: Mapping[str, Sequence[float]]) -> tuple[tuple[str, ...], Moments]:
    """Names and moments of the videos in `result.json`, in order of name."""
    names = tuple(sorted(videos))
    table = np.array([videos[name] for name in names], np.float64).reshape(len(names), 6)
    return names, Moments(*table.T)


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


@lru_cache(maxsize=256)
def resample(videos: int, fold: int, draws: int = DRAWS) -> Floats:
    """How often each video is in each resample: float64 [draws, videos], rows sum to `videos`."""
    # Seeded by the fold and not by the system: all systems are scored on the same resampled videos.
    drawn = np.random.default_rng([0, fold]).multinomial(videos, np.full(videos, 1 / videos), size=draws)
    counts: Floats = drawn.astype(np.float64)
    counts.setflags(write=False)  # every later call returns the same array
    return counts


def merged_ccc(moments: Moments, counts: Floats) -> Floats:
    """CCC of the pooled frames of each resample: float64 [draws], or [draws, runs].

    moments: arrays [videos], or [videos, runs] of runs on the same videos. Equal to adding `Moments` one video after
    the other; means are shifted first, so that nothing cancels.
    """
    shift_x, shift_y = np.mean(moments.mean_x, axis=0), np.mean(moments.mean_y, axis=0)
    x, y = moments.mean_x - shift_x, moments.mean_y - shift_y
    sums = (moments.n, moments.n * x, moments.n * y)
    squares = (moments.sxx + moments.n * x * x, moments.syy + moments.n * y * y, moments.sxy + moments.n * x * y)
    # One product of matrices for all runs and sums.
    merged = np.tensordot(counts, np.stack([*sums, *squares], axis=-1), axes=1)
    n, of_x, of_y, of_xx, of_yy, of_xy = (merged[..., index] for index in range(6))
    safe = n + (n == 0)  # a resample may draw only videos without labels for the target
    mean_x, mean_y = of_x / safe, of_y / safe
    pooled = Moments(
        n, mean_x + shift_x, mean_y + shift_y, of_xx - n * mean_x**2, of_yy - n * mean_y**2, of_xy - n * mean_x * mean_y
    )
    resampled: Floats = ccc_of(pooled)
    return resampled


def bootstrap_mean(runs: Sequence[Run], draws: int = DRAWS) -> Floats | None:
    """The mean over folds of the mean over seeds in each resample: float64 [draws].

    Videos are drawn with replacement within each fold; the runs of a fold share the draw. A fold that reports one
    video stays as it is. None where the other folds report fewer than `MIN_VIDEOS` together.
    """
    # The order of runs changes nothing but rounding; one order makes one entry of the cache.
    return _bootstrap_mean(tuple(sorted(runs, key=lambda run: (run.fold, run.seed))), draws)


# An entry is 16 kB; a table, its gains and its claims ask for the same runs again and again.
@lru_cache(maxsize=4096)
def _bootstrap_mean(runs: tuple[Run, ...], draws: int) -> Floats | None:
    folds = defaultdict(list)
    for run in runs:
        folds[run.fold].append(run)
    sizes = {fold: len(inside[0].videos) for fold, inside in folds.items()}
    if sum(size for size in sizes.values() if size > 1) < MIN_VIDEOS:
        return None
    means = []
    for fold, inside in sorted(folds.items()):
        counts = resample(sizes[fold], fold, draws)
        together = Moments(*(np.stack([getattr(run.moments, name) for run in inside], axis=-1) for name in _FIELDS))
        means.append(merged_ccc(together, counts).mean(axis=1))
    mean = np.asarray(np.mean(means, axis=0))
    mean.setflags(write=False)  # as in `resample`
    return mean


def interval_of(resampled: Floats | None) -> Interval | None:
    """The percentile interval of a bootstrap distribution."""
    if resampled is None:
        return None
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def restrict_to_common_runs(groups: Sequence[Sequence[Run]]) -> list[list[Run]]:
    """The runs of several targets or systems, only of folds and seeds that all have, on the same videos in each fold.

    A video without labels for a target has weight zero there, so that one draw of videos fits all targets.
    """
    by_key = [{(run.fold, run.seed): run for run in group} for group in groups]
    keys = sorted(set(by_key[0]).intersection(*by_key[1:])) if by_key else []
    videos: dict[int, set[str]] = defaultdict(set)
    for fold, seed in keys:
        videos[fold].update(*(runs[fold, seed].videos for runs in by_key))
    return [[_on_videos(runs[key], tuple(sorted(videos[key[0]]))) for key in keys] for runs in by_key]


def mean_scores(groups: Sequence[Sequence[Run]]) -> pd.DataFrame:
    """Columns fold, seed and ccc: the mean over targets, one group per target, of each fold and seed that all have."""
    columns = zip(*restrict_to_common_runs(groups), strict=True)
    scores = [(runs[0].fold, runs[0].seed, sum(run.ccc for run in runs) / len(runs)) for runs in columns]
    return pd.DataFrame(scores, columns=["fold", "seed", "ccc"])


def mean_interval(groups: Sequence[Sequence[Run]], draws: int = DRAWS) -> Interval | None:
    """95% interval of the mean CCC over targets, one group per target; all targets share the resampled videos."""
    return interval_of(_mean_over_targets(restrict_to_common_runs(groups), draws))


def paired_gain(a: Sequence[Sequence[Run]], b: Sequence[Sequence[Run]], draws: int = DRAWS) -> Gain | None:
    """How much better system `a` is than `b` in the mean CCC over targets; one group per target, in the same order.

    Over the folds and seeds that both have; None where there is none. Both systems and all targets share the resampled
    videos. Raises `ValueError` where a pair was not scored on the same videos.
    """
    # With other videos on one side, the difference would be between videos and not between systems.
    for first, second in zip(a, b, strict=True):
        known = {(run.fold, run.seed): run.videos for run in second}
        for run in first:
            if known.get((run.fold, run.seed), run.videos) != run.videos:
                raise ValueError(f"fold {run.fold} seed {run.seed}: the two runs were not scored on the same videos")
    common = restrict_to_common_runs([*a, *b])
    left, right = common[: len(a)], common[len(a) :]
    pairs = mean_scores(left)
    if pairs.empty:
        return None
    pairs["ccc"] -= mean_scores(right)["ccc"]
    drawn, drawn_base = (_mean_over_targets(side, draws) for side in (left, right))
    interval = None if drawn is None or drawn_base is None else interval_of(drawn - drawn_base)
    differences = pairs["ccc"].to_numpy()
    return Gain(
        mean=mean_sd(pairs).mean,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=len(pairs),
        p=_p_value(stats.ttest_1samp, differences, 0.0),
        p_wilcoxon=_p_value(stats.wilcoxon, differences),
        differences=tuple(float(difference) for difference in differences),
    )


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Holm's correction over the tests that were made; those that were not stay None."""
    made = np.array([p for p in p_values if p is not None], np.float64)
    # Written out: statsmodels runs the garbage collector in each call, which costs a second in a large report.
    order = np.argsort(made, kind="stable")
    corrected = np.empty_like(made)
    corrected[order] = np.minimum(np.maximum.accumulate(made[order] * np.arange(len(made), 0, -1)), 1)
    left = iter(corrected.tolist())
    return tuple(None if p is None else float(next(left)) for p in p_values)


def rank_agreement(printed: Sequence[float], measured: Sequence[float]) -> Agreement | None:
    """Kendall's tau-b of two orders of the same rows; None with fewer than three, or where all are equal."""
    if len(printed) < 3:
        return None
    result = stats.kendalltau(printed, measured)
    return (
        None if np.isnan(result.statistic) else Agreement(float(result.statistic), float(result.pvalue), len(printed))
    )


def _mean_over_targets(groups: Sequence[Sequence[Run]], draws: int) -> Floats | None:
    """The mean over targets in each resample: float64 [draws]. The groups must have the same runs and videos."""
    resampled = [bootstrap_mean(group, draws) for group in groups]
    found = [drawn for drawn in resampled if drawn is not None]
    return np.asarray(np.mean(found, axis=0)) if found and len(found) == len(resampled) else None


def _on_videos(run: Run, videos: tuple[str, ...]) -> Run:
    """The run on these videos, with empty moments for those that it was not scored on."""
    if run.videos == videos:
        return run
    at = [videos.index(video) for video in run.videos]
    wide = Moments(*np.zeros((6, len(videos))))
    for name in _FIELDS:
        getattr(wide, name)[at] = getattr(run.moments, name)
    return replace(run, videos=videos, moments=wide)


def _p_value(test: Callable[..., Any], differences: Floats, *rest: float) -> float | None:
    """The p value of a paired test; None where it is undefined."""
    # Identical runs differ by rounding at most, for which a test would give a p value all the same.
    if len(differences) < 2 or np.ptp(differences) < 1e-12:
        return None
    return float(test(differences, *rest).pvalue)
