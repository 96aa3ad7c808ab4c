"""How far the rank of a system moves when other videos of the same kind, and other seeds, had been drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossfold.platform.core.metrics import Moments, ccc_of
from crossfold.reports.stats.intervals import LEVEL, MIN_VIDEOS
from crossfold.reports.stats.runs import FIELDS, Floats, Run, restrict_to_common_runs

DRAWS = 400
"""Draws of the bootstrap: the ends of a range are ranks, which more draws hardly move."""


@dataclass(frozen=True)
class RankRange:
    """Ranks of one system; 1 is the best."""

    rank: int
    """Of the mean over folds of the mean over seeds, in the mean over targets."""
    low: int
    high: int
    """The ends of the range that holds 95% of the draws."""


def rank_ranges(systems: Mapping[str, Sequence[Sequence[Run]]], draws: int = DRAWS) -> dict[str, RankRange]:
    """System -> its ranks, by a bootstrap that draws videos and seeds within each fold, the same for all systems.

    systems: one group of runs per target each. Over the folds and seeds that all have; empty with fewer than two
    systems, without such runs, and where a fold reports fewer than `MIN_VIDEOS`. Folds are no sample of anything, so
    they are kept. Ranges of ranks by simulation: Goldstein and Spiegelhalter 1996. The same runs give the same ranges.
    """
    names = list(systems)
    groups = restrict_to_common_runs([group for name in names for group in systems[name]])
    if len(names) < 2 or not groups or not groups[0]:
        return {}
    targets = len(groups) // len(names)
    rng = np.random.default_rng(0)
    folds = sorted({run.fold for run in groups[0]})
    observed, drawn = np.zeros(len(names)), np.zeros((len(names), draws))
    for fold in folds:
        inside = [[run for run in group if run.fold == fold] for group in groups]
        seeds, videos = len(inside[0]), len(inside[0][0].videos)
        if videos < MIN_VIDEOS:
            return {}
        weights = rng.multinomial(videos, np.full(videos, 1 / videos), size=draws).T.astype(np.float64)
        shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).T / seeds
        for at, runs in enumerate(inside):
            observed[at // targets] += float(np.mean([run.ccc for run in runs]))
            drawn[at // targets] += (_drawn_ccc(runs, weights) * shares).sum(axis=0)
    ranks = 1 + (-drawn).argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    places = 1 + (-observed).argsort(kind="stable").argsort(kind="stable")
    ends = np.quantile(ranks, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1, method="inverted_cdf")
    return {
        name: RankRange(int(place), int(low), int(high))
        for name, place, low, high in zip(names, places, *ends, strict=True)
    }


def _drawn_ccc(runs: Sequence[Run], weights: Floats) -> Floats:
    """CCC of each run with each video as often as drawn: float64 [runs, draws]. weights: [videos, draws]."""
    n, x, y, sxx, syy, sxy = (np.stack([getattr(run.moments, name) for run in runs]) for name in FIELDS)
    shift_x, shift_y = x.mean(), y.mean()  # so that nothing cancels
    x, y = x - shift_x, y - shift_y
    parts = np.stack([n, n * x, n * y, sxx + n * x * x, syy + n * y * y, sxy + n * x * y])
    # One small product a run: BLAS shares large ones between threads, which wait for each other on a busy machine, and
    # a report of 10,000 cells then spent 28 s here instead of 0.3 s.
    count, of_x, of_y, of_xx, of_yy, of_xy = (parts.swapaxes(0, 1) @ weights).swapaxes(0, 1)
    count = np.where(count > 0, count, 1)  # a draw of videos without a label of this target
    x, y = of_x / count, of_y / count
    centred = (of_xx - count * x * x, of_yy - count * y * y, of_xy - count * x * y)
    ccc: Floats = ccc_of(Moments(count, x + shift_x, y + shift_y, *centred))
    return ccc
