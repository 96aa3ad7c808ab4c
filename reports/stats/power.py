"""How likely a gain of some size is to be seen by the verdict of all tables, and how much must run to see it.

The model is a crossed random-effects model of the paired gain, within each fold:

    u[f, v, s] = gain + fold[f] + video[f, v] + seed[f, s] + interaction[f, v, s]

u are jackknife pseudo-values of the difference in CCC (Efron and Stein 1981). Videos and seeds are nested in folds and
crossed with each other. Variances are estimated by the method of moments (Henderson 1953, method 1; Searle, Casella and
McCulloch 1992, chapter 5): each mean square is set to its expectation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from crossfold.reports.stats.hypothesis_tests import ALPHA, Family
from crossfold.reports.stats.intervals import MIN_SEEDS, MIN_VIDEOS, PAIR, ROUNDING
from crossfold.reports.stats.runs import Floats

TARGET = 0.8
"""The power that a plan should have."""
LEVEL = 0.9
"""Of the interval of a forecast."""
DRAWS = 2000
"""Of the error of a gain; the chance is their mean, and exact given each of them."""
MOST = 10_000
"""More videos, seeds or folds than these are no answer."""
PRODUCT = 2 / (9 - 1)
"""Degrees of freedom that a video is worth to a variance where the effects are as heavy-tailed as a product of two
normal values, of kurtosis 9: var(s^2) / var^2 is (kurtosis - 1) / n, and 2 / df. CCC is made of such products."""

FEW = 8
"""Degrees of freedom of about ten videos, up to which their own spread says how well a variance is known."""


@dataclass(frozen=True)
class Design:
    """What is run: videos and seeds of each fold."""

    videos: tuple[int, ...]
    """Reported videos, one number a fold."""
    seeds: int

    @property
    def folds(self) -> int:
        """How many folds."""
        return len(self.videos)

    @property
    def judged(self) -> bool:
        """Whether the verdict of all tables says anything about it."""
        return self.seeds >= MIN_SEEDS and min(self.videos) >= MIN_VIDEOS


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of the pseudo-values of a gain, pooled over folds; each has its degrees of freedom.

    Expectations: `of_videos` is video + interaction / seeds, `of_seeds` is seed + interaction / videos, and
    `interaction` is itself.
    """

    of_videos: float
    of_seeds: float
    interaction: float
    design: Design
    """What ran."""
    tail: float = 1.0
    """Share of the degrees of freedom that unequal videos leave, 0-1, by the kurtosis (docs/statistics.md)."""
    fold: float = 0.0
    """Variance of the gain between folds beyond that of videos and seeds; 0 where one fold ran."""
    known: float = 1.0
    """Share of its degrees of freedom that `of_videos` has as an estimate of a variance, 0-1 (`_share_known`)."""
    contrasts: float = 1.0
    """Independent gains that were averaged: pairs without a common system, which are half as many as systems."""

    @property
    def free_videos(self) -> float:
        """Degrees of freedom of `of_videos` as an estimate of a variance, at least 1.

        Few videos do not show how heavy the tails of their effects are, and the more heavy, the slower a variance is
        learnt: beyond `FEW` the degrees of freedom grow with the square root of the number of videos, which is what
        simulated sweeps ask for (docs/statistics.md).
        """
        free = sum(self.design.videos) - self.design.folds
        return max(free * self.known * min(1.0, math.sqrt(FEW / max(free, 1))), 1.0)

    @property
    def mean_videos(self) -> float:
        """Harmonic mean of the videos of a fold."""
        return float(stats.hmean(self.design.videos))

    @property
    def video(self) -> float:
        """Variance between videos, at least 0."""
        return max(self.of_videos - self.interaction / self.design.seeds, 0.0)

    @property
    def seed(self) -> float:
        """Variance between seeds, at least 0."""
        return max(self.of_seeds - self.interaction / self.mean_videos, 0.0)


def mean_squares(folds: Sequence[tuple[Floats, Floats]]) -> MeanSquares | None:
    """Variances of a gain from its finished runs; None where a fold has fewer than two videos or seeds.

    folds: as of `paired_folds`: changes of the gain without each video [videos, seeds], and gains [seeds].
    """
    if not folds or min(min(changes.shape) for changes, _ in folds) < 2:
        return None
    design = Design(tuple(len(changes) for changes, _ in folds), min(changes.shape[1] for changes, _ in folds))
    of_videos = of_seeds = interaction = second = fourth = 0.0
    errors, of_each = [], []
    free, free_seeds = sum(design.videos) - design.folds, sum(changes.shape[1] - 1 for changes, _ in folds)
    free_both = sum((len(changes) - 1) * (changes.shape[1] - 1) for changes, _ in folds)
    for changes, gains in folds:
        k, seeds = changes.shape
        values = (k - 1) * changes  # pseudo-values about the statistic, but for their sign
        mean = values.mean(axis=1, keepdims=True)
        squares = float((mean**2).sum()), float(gains.var(ddof=1)), float(((values - mean) ** 2).sum())
        of_videos += squares[0] / free
        of_each.append(mean[:, 0] ** 2)
        of_seeds += squares[1] * (seeds - 1) / free_seeds
        interaction += squares[2] / free_both
        own = squares[2] / (k - 1) / (seeds - 1) / k
        errors.append(squares[0] / (k - 1) / k + max(squares[1] - own, 0.0) / seeds)
        centred = (mean - mean.mean()) / k
        second, fourth = second + float((centred**2).sum()), fourth + float((centred**4).sum())
    equal = 3 * free / (free + 2) * second**2 / fourth if fourth > 0 else math.inf
    between = float(np.var([gains.mean() for _, gains in folds], ddof=1)) - float(np.mean(errors)) if folds[1:] else 0.0
    tail = min(equal / sum(design.videos), 1.0)
    known = _share_known(np.concatenate(of_each), free)
    return MeanSquares(of_videos, of_seeds, interaction, design, tail, max(between, 0.0), known)


def _share_known(squares: Floats, free: int) -> float:
    """The share of `free` degrees of freedom that a mean of these squares of videos has, by its own spread; 0-1.

    Jackknife of the logarithm of a variance (Miller 1968), which for df degrees of freedom varies by trigamma(df / 2),
    about 2 / df + 2 / df^2. Videos of which none decides look too alike by chance: no more than `PRODUCT` is believed.
    """
    total, count = float(squares.sum()), len(squares)
    if total <= 0:
        return PRODUCT
    logs = np.log(np.maximum(1 - squares / total, ROUNDING))
    varies = (count - 1) / count * float(((logs - logs.mean()) ** 2).sum())
    return min((1 + math.sqrt(1 + 2 * varies)) / max(varies, ROUNDING) / free, PRODUCT)


def pooled(found: Sequence[MeanSquares], systems: int) -> MeanSquares:
    """Those of a typical pair of some systems: means over all pairs, which ran the same design."""
    names = ("of_videos", "of_seeds", "interaction")
    means = {name: float(np.mean([getattr(each, name) for each in found])) for name in names}
    tail, known = (float(np.median([getattr(each, name) for each in found])) for name in ("tail", "known"))
    fold = float(np.mean([each.fold for each in found]))
    return MeanSquares(**means, design=found[0].design, tail=tail, fold=fold, known=known, contrasts=systems / 2)


@dataclass(frozen=True)
class Power:
    """The chance that a gain is seen, by the verdict of all tables."""

    chance: float
    low: float
    """Lower end of the 90% interval, which is as wide as the finished runs leave the variances uncertain."""
    high: float


def power_of(squares: MeanSquares, gain: float, design: Design, family: Family = PAIR) -> Power:
    """The chance that a true gain has p < 0.05 in its own direction under a design; 0 where that is never judged.

    The gain is that of the folds which run, as for the verdict, so that its variance between folds adds nothing. The
    estimate is normal; the error that it is divided by is drawn as `spread_of` computes it. The chance is the mean over
    what the finished runs leave open: the variance of the estimate has a chi-squared distribution whose degrees of
    freedom follow from its parts (Satterthwaite 1946). family: the comparisons among which the gain is judged.
    """
    if not design.judged:
        return Power(0.0, 0.0, 0.0)
    ran, per_video = squares.design, sum(1 / k for k in design.videos) / design.folds**2
    of_videos = (squares.video + squares.interaction / design.seeds) * per_video
    of_seeds = squares.seed / design.seeds / design.folds
    variance = of_videos + of_seeds
    if variance <= 0:
        return Power(*(float(gain != 0),) * 3)
    # Of the whole mean square of seeds: one that is no larger than the interaction in it leaves as much open.
    unsure_seeds = squares.of_seeds / design.seeds / design.folds
    unsure = of_videos**2 / squares.free_videos + unsure_seeds**2 / (ran.folds * (ran.seeds - 1))
    df = max(squares.contrasts * variance**2 / unsure, 1.0)
    error, critical = _drawn_errors(squares, design, family)

    def chance(scale: float | Floats) -> float:
        # Half the variances are twice the squared gain.
        return float(stats.norm.sf((critical * error - abs(gain) * np.sqrt(scale)) / math.sqrt(variance)).mean())

    low, high = (chance(float(stats.chi2.ppf(q, df)) / df) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Power(chance(_chi_squared(np.random.default_rng(1).standard_normal(DRAWS), df)), low, high)


def _drawn_errors(squares: MeanSquares, design: Design, family: Family) -> tuple[Floats, Floats]:
    """Standard errors of a gain under a design, and the t statistic that each asks for: float64 [draws].

    Mean squares of a crossed design are independent and have chi-squared distributions. The verdict takes the degrees
    of freedom of videos from their kurtosis (`tail`), which heavy tails make too many (`known`).
    """
    count, seeds, videos = design.folds, design.seeds, sum(design.videos)
    per_video = sum(1 / k for k in design.videos) / count**2
    free = max((videos - count) * squares.tail, 1.0)
    mean_videos = float(stats.hmean(design.videos))
    z = np.random.default_rng(0).standard_normal((3, DRAWS))  # the same for all designs, so that more is never worse
    drawn = max((videos - count) * squares.known, 1.0)
    of_videos = (squares.video + squares.interaction / seeds) * per_video * _chi_squared(z[0], drawn)
    own = (squares.seed + squares.interaction / mean_videos) / seeds / count
    of_seeds = own * _chi_squared(z[1], count * (seeds - 1))
    both = squares.interaction * per_video / seeds * _chi_squared(z[2], (videos - count) * (seeds - 1))
    more = np.maximum(of_seeds - both, 0.0)
    squared: Floats = np.maximum(of_videos + more, ROUNDING**2)
    df = squared**2 / np.maximum(of_videos**2 / free + more**2 / (count * (seeds - 1)), ROUNDING**4)
    return np.sqrt(squared), stats.t.isf(ALPHA / family.comparisons / 2, np.maximum(df, 1.0))


def _chi_squared(z: Floats, df: float) -> Floats:
    """Chi-squared values over their degrees of freedom, from normal ones (Wilson and Hilferty 1931)."""
    values: Floats = np.maximum(1 - 2 / (9 * df) + z * math.sqrt(2 / (9 * df)), 0.0) ** 3
    return values


def fewest(chance: Callable[[int], float], start: int) -> int | None:
    """The smallest number from `start` on with which the power is `TARGET`; None where not even `MOST` have it."""
    if chance(MOST) < TARGET:
        return None
    low, high = start - 1, start
    while chance(high) < TARGET:
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= TARGET else (middle, high)
    return high


def smallest_gain(squares: MeanSquares, design: Design, family: Family = PAIR) -> float | None:
    """The gain that a design sees with a power of `TARGET`, to 1e-4; None where not even one of 1 is seen."""
    steps = fewest(lambda step: power_of(squares, step * 1e-4, design, family).chance, 1) if design.judged else None
    return None if steps is None else steps * 1e-4
