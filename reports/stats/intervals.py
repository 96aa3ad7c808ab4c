"""Intervals of scores and of paired gains: a jackknife over videos, and over seeds where at least three ran.

Whole videos are left out, never frames: the frames of one video are not independent. `docs/statistics.md` measures how
often these intervals hold the true value, for few and many videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from crossfold.platform.core.metrics import Moments, ccc_without_each
from crossfold.reports.stats.hypothesis_tests import ALPHA, Family
from crossfold.reports.stats.runs import FIELDS, Floats, Run, restrict_to_common_runs, same_runs

LEVEL = 0.95
MIN_VIDEOS = 3
"""A fold that reports fewer has no interval: with two, the simulated one covers 98 to 99 % and says nothing."""
MIN_SEEDS = 3
"""With fewer seeds in a fold the spread over seeds is not part of the interval, and a gain has no verdict (B13)."""
ROUNDING = 1e-12
"""Differences in CCC below this are rounding."""


PAIR = Family()
"""One comparison alone."""


@dataclass(frozen=True)
class Interval:
    """The two ends of a 95% interval."""

    low: float
    high: float


class Spread(NamedTuple):
    """How uncertain a mean over folds is."""

    error: float
    """Standard error."""
    df: float
    """Degrees of freedom of its t distribution."""
    seeds: bool
    """Whether every fold has `MIN_SEEDS`, so that the spread over seeds is part of it."""


@dataclass(frozen=True)
class Gain:
    """How much better one system is than another on the same folds, seeds and videos."""

    mean: float
    """Mean over folds of the mean over seeds of the difference in CCC."""
    spread: Spread | None
    """None where a fold reports fewer than `MIN_VIDEOS`."""
    n: int
    """Pairs, one a fold and seed; 0 for a difference without pairs."""
    family: Family = PAIR
    """The comparisons of which it is one."""
    differences: tuple[float, ...] = ()
    """One a fold and seed, in that order."""

    @property
    def interval(self) -> Interval | None:
        """The 95% interval of this gain alone; None where a fold reports fewer than `MIN_VIDEOS`."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def low(self) -> float | None:
        """The lower end of the 95% interval of this gain alone."""
        return None if self.spread is None else self.mean - self._half

    @property
    def high(self) -> float | None:
        """The upper end."""
        return None if self.spread is None else self.mean + self._half

    @property
    def _half(self) -> float:
        return t_quantile(self.spread.df) * self.spread.error if self.spread else 0.0

    @cached_property
    def p(self) -> float | None:
        """p that the systems are equal, corrected for all comparisons of the family; None where it is not judged."""
        return self.family.p(*self._statistic) if self.judged else None

    @cached_property
    def sign(self) -> int:
        """The one verdict of all tables, claims and figures: 1 where the first system beats the second, -1, else 0."""
        return int(np.sign(self.mean)) if self.p is not None and self.p < ALPHA else 0

    @property
    def judged(self) -> bool:
        """Whether there are enough videos and seeds to say which system beats the other."""
        return self.spread is not None and self.spread.seeds

    @property
    def _statistic(self) -> tuple[float, float]:
        """t and its degrees of freedom."""
        if self.spread is None or abs(self.mean) < ROUNDING:
            return 0.0, 1.0
        return self.mean / max(self.spread.error, ROUNDING), self.spread.df


def left_out(runs: Sequence[Run]) -> Floats:
    """The score of each run without each of its videos, minus its score: float64 [videos, runs].

    All runs have the same videos. The score is the CCC, or another one whose changes the runs bring along.
    """
    known = [run.changes for run in runs if run.changes is not None]
    if known:
        return np.stack(known, axis=1)
    whole, without = ccc_without_each(
        Moments(*(np.stack([getattr(run.moments, name) for run in runs], axis=1).astype(np.float64) for name in FIELDS))
    )
    changes: Floats = without - whole
    return changes


def spread_of(folds: Sequence[tuple[Floats, Floats]]) -> Spread | None:
    """The uncertainty of a mean over folds of the mean over seeds; None where a fold has too few videos.

    folds: for each fold, how the statistic changes without each video [videos, seeds], and the statistic [seeds].

    The variance over videos is the jackknife's about the statistic itself (Efron and Stein 1981; CV3 of MacKinnon,
    Nielsen and Webb 2023). Long or hard videos make it noisier than as many equal ones would, so the degrees of freedom
    follow from the kurtosis of the changes (Satterthwaite 1946). Videos and seeds are crossed: to the variance over
    videos comes that over seeds, less their interaction, which is in both (Owen 2007).
    """
    videos, count = sum(len(changes) for changes, _ in folds), len(folds)
    if not folds or min(len(changes) for changes, _ in folds) < MIN_VIDEOS:
        return None
    of_videos = second = fourth = of_seeds = interaction = squared = 0.0
    for changes, scores in folds:
        k, seeds = changes.shape
        scale = (k - 1) / k / count**2
        mean = changes.mean(axis=1, keepdims=True)
        of_videos += scale * float((mean**2).sum())
        centred = np.sqrt(scale) * (mean - mean.mean())
        second, fourth = second + float((centred**2).sum()), fourth + float((centred**4).sum())
        if seeds >= MIN_SEEDS:
            own = float(scores.var(ddof=1)) / seeds / count**2
            of_seeds, squared = of_seeds + own, squared + own**2 / (seeds - 1)
            interaction += scale * float(((changes - mean) ** 2).sum()) / seeds / (seeds - 1)
    free = videos - count
    # So many equally important videos with normal changes would give this ratio of moments.
    equal = min(3 * free / (free + 2) * second**2 / fourth, videos) if fourth > 0 else videos
    df = max(equal * free / videos, 1.0)
    more = max(of_seeds - interaction, 0.0)
    if more > 0:
        df = (of_videos + more) ** 2 / (of_videos**2 / df + more**2 * squared / of_seeds**2)
    enough = min(len(scores) for _, scores in folds) >= MIN_SEEDS
    return Spread(float(np.sqrt(of_videos + more)), df, enough)


def mean_interval(groups: Sequence[Sequence[Run]]) -> Interval | None:
    """95% interval of the mean CCC over targets, one group per target; symmetric on Fisher's z scale."""
    folds = changes_of(restrict_to_common_runs(groups), [])
    spread = spread_of(folds)
    if spread is None:
        return None
    mean = mean_of(folds)
    slope = max(1 - mean**2, ROUNDING)
    half, centre = t_quantile(spread.df) * spread.error / slope, np.arctanh(np.clip(mean, -1 + ROUNDING, 1 - ROUNDING))
    return Interval(float(np.tanh(centre - half)), float(np.tanh(centre + half)))


def paired_folds(a: Sequence[Sequence[Run]], b: Sequence[Sequence[Run]]) -> list[tuple[Floats, Floats]]:
    """For each fold how the gain of `a` over `b` changes without each video [videos, seeds], and the gains [seeds].

    Over the folds and seeds that both have; empty where there is none. The groups, one per target, are as of
    `paired_gain`. Raises `ValueError` where a pair was not scored on the same videos.
    """
    # With other videos on one side, the difference would be between videos and not between systems.
    for first, second in () if same_runs([*a, *b]) else zip(a, b, strict=True):
        known = {(run.fold, run.seed): run.videos for run in second}
        for run in first:
            if known.get((run.fold, run.seed), run.videos) != run.videos:
                raise ValueError(f"fold {run.fold} seed {run.seed}: the two runs were not scored on the same videos")
    common = restrict_to_common_runs([*a, *b])
    return changes_of(common[: len(a)], common[len(a) :])


def paired_gain(a: Sequence[Sequence[Run]], b: Sequence[Sequence[Run]], family: Family = PAIR) -> Gain | None:
    """How much better system `a` is than `b` in the mean CCC over targets; one group per target, in the same order.

    Over the folds and seeds that both have; None where there is none. Raises `ValueError` where a pair was not scored
    on the same videos. family: the comparisons of which this is one.
    """
    folds = paired_folds(a, b)
    if not folds:
        return None
    return Gain(
        mean=mean_of(folds),
        spread=spread_of(folds),
        n=sum(len(scores) for _, scores in folds),
        family=family,
        differences=tuple(float(score) for _, scores in folds for score in scores),
    )


def unpaired_gain(a: Sequence[Sequence[Run]], b: Sequence[Sequence[Run]] | float, family: Family = PAIR) -> Gain | None:
    """How much higher the mean CCC over targets is in `a` than in `b`, which share no video and so have no pairs.

    b: one group per target, as `a`; or a score without error, such as a printed one. None where a side has no run. The
    degrees of freedom are those of Welch (1947).
    """
    sides = [changes_of(restrict_to_common_runs(side), []) for side in ([a] if isinstance(b, float) else [a, b])]
    if not all(sides):
        return None
    spreads = [spread_of(side) for side in sides]
    known = [spread for spread in spreads if spread]
    variance = sum(spread.error**2 for spread in known)
    against = b if isinstance(b, float) else mean_of(sides[1])
    spread = None
    if len(known) == len(sides):
        terms = sum(spread.error**4 / spread.df for spread in known)
        df = variance**2 / terms if terms > 0 else known[0].df
        spread = Spread(float(np.sqrt(variance)), df, all(each.seeds for each in known))
    return Gain(mean=mean_of(sides[0]) - against, spread=spread, n=0, family=family)


def changes_of(plus: Sequence[Sequence[Run]], minus: Sequence[Sequence[Run]]) -> list[tuple[Floats, Floats]]:
    """For each fold the changes [videos, seeds] and scores [seeds] of the mean over `plus` less that over `minus`.

    The groups must have the same runs, in order of fold, and the same videos.
    """
    if not plus:
        return []
    signs = np.array([1.0] * len(plus) + [-1.0] * len(minus)) / len(plus)  # both sides have as many targets
    folds = zip(*(_by_fold(tuple(group)) for group in (*plus, *minus)), strict=True)
    return [
        (
            sum((sign * changes for sign, (changes, _) in zip(signs, groups, strict=True)), np.zeros(())),
            sum((sign * scores for sign, (_, scores) in zip(signs, groups, strict=True)), np.zeros(())),
        )
        for groups in folds
    ]


@lru_cache(maxsize=128)  # every system is compared with all others; of 100,000 cells an entry holds 2 MB
def _by_fold(runs: tuple[Run, ...]) -> tuple[tuple[Floats, Floats], ...]:
    """For each fold of some runs, in order of fold, their changes [videos, seeds] and scores [seeds]."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(run.fold, []).append(run)
    return tuple((left_out(found[fold]), np.array([run.ccc for run in found[fold]])) for fold in sorted(found))


def mean_of(folds: Sequence[tuple[Floats, Floats]]) -> float:
    """The mean over folds of the mean over seeds, of what `changes_of` found."""
    return float(np.mean([scores.mean() for _, scores in folds]))


@lru_cache(maxsize=65536)
def t_quantile(df: float) -> float:
    """Half the width of a two-sided 95% interval, in standard errors."""
    return float(stats.t.ppf((1 + LEVEL) / 2, df))
