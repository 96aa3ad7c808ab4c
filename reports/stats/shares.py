"""How much of a possible gain a system takes, and how gains change with a dose; with the intervals of `intervals`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossfold.reports.stats.intervals import ROUNDING, Gain, Interval, changes_of, mean_of, spread_of, t_quantile
from crossfold.reports.stats.runs import Run, restrict_to_common_runs

Groups = Sequence[Sequence[Run]]
"""One group of runs for each target."""


@dataclass(frozen=True)
class Share:
    """The share of the way from a lower score to a higher one: 0 at the lower, 1 at the higher."""

    mean: float
    interval: Interval | None


def share_of_way(system: Groups, low: Groups, high: Groups) -> Share | None:
    """How far a system is on the way from `low` to `high`, in mean CCC over targets.

    The ends are scored on the same videos, folds and seeds. None without a common run, and where the way is no longer
    than rounding. The interval is the jackknife's of the linearised ratio (delta method), so that what moves system and
    ends alike, such as an easy video, is no part of it.
    """
    common = restrict_to_common_runs([*system, *low, *high])
    if not common or not common[0]:
        return None
    count = len(system)
    taken = changes_of(common[:count], common[count : 2 * count])
    possible = changes_of(common[2 * count :], common[count : 2 * count])
    way = mean_of(possible)
    if way < ROUNDING:
        return None
    mean = mean_of(taken) / way
    linear = [
        ((changes - mean * way_changes) / way, (scores - mean * way_scores) / way)
        for (changes, scores), (way_changes, way_scores) in zip(taken, possible, strict=True)
    ]
    spread = spread_of(linear)
    if spread is None:
        return Share(mean, None)
    half = t_quantile(spread.df) * spread.error
    return Share(mean, Interval(mean - half, mean + half))


def slope_of_gains(doses: Sequence[float], pairs: Sequence[tuple[Groups, Groups]]) -> Gain | None:
    """The least-squares slope of the gain of one system over another against the dose, with its test.

    pairs: for each dose the runs of both systems, on the same videos, folds and seeds at all doses. None where they are
    not the same, and with fewer than two doses. The slope is a sum of gains with known weights, so its uncertainty is
    that of one statistic of the videos and seeds, which the gains at all doses have in common.
    """
    if len(set(doses)) < 2:
        return None
    centred = np.asarray(doses, np.float64) - np.mean(doses)
    weights = centred / (centred**2).sum()
    found = []
    for better, base in pairs:
        common = restrict_to_common_runs([*better, *base])
        found.append((common[: len(better)], common[len(better) :]))
    keys = {tuple((run.fold, run.seed, run.videos) for run in better[0]) for better, _ in found if better}
    if len(keys) != 1 or not next(iter(keys)):
        return None
    by_dose = [changes_of(better, base) for better, base in found]
    folds = [
        (
            sum(w * c for w, (c, _) in zip(weights, fold, strict=True)),
            sum(w * s for w, (_, s) in zip(weights, fold, strict=True)),
        )
        for fold in zip(*by_dose, strict=True)
    ]
    return Gain(
        mean=mean_of(folds),
        spread=spread_of(folds),
        n=sum(len(scores) for _, scores in folds),
        differences=tuple(float(score) for _, scores in folds for score in scores),
    )
