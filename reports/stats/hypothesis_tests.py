"""Effect sizes, equivalence, and ranks of many systems. Every distribution comes from a library.

Differences are paired: one value per fold and seed, the score of one system minus that of another on the same videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

MARGIN = 0.005
"""Gains smaller than this are within what seeds alone make (B13): two systems closer than that are the same."""
ALPHA = 0.05


@dataclass(frozen=True)
class Ranks:
    """Many systems on the same blocks (fold x seed x target), by rank: 1 is the best."""

    mean: pd.Series
    """System -> mean rank, the best first."""
    blocks: int
    statistic: float
    p: float
    """Friedman's test that all systems are alike."""
    critical_difference: float
    """Nemenyi: mean ranks closer than this are not distinguishable at `ALPHA`."""
    groups: tuple[tuple[str, ...], ...]
    """Largest runs of systems, in order of rank, of which none is distinguishable from another; two or more each."""


def paired_effect(differences: Sequence[float]) -> float | None:
    """Cohen's d of paired values: their mean over their standard deviation (n - 1); None where they do not vary."""
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return None
    return float(values.mean() / values.std(ddof=1))


def equivalence(differences: Sequence[float], margin: float = MARGIN) -> float | None:
    """p of two one-sided t tests (TOST) that the mean difference lies outside -margin..margin.

    Small p: the two systems are indistinguishable within `margin`. None with fewer than two values. Values that do not
    vary are equivalent for certain (0) or not at all (1).
    """
    values = np.asarray(differences, np.float64)
    if margin <= 0:
        raise ValueError(f"margin = {margin}: give a positive one")
    if len(values) < 2:
        return None
    if np.ptp(values) < 1e-12:  # the t statistic would be a division by zero
        return 0.0 if abs(values.mean()) < margin else 1.0
    return float(DescrStatsW(values).ttost_mean(-margin, margin)[0])


def rank_systems(scores: pd.DataFrame) -> Ranks | None:
    """Friedman's test, and the critical difference of mean ranks by Nemenyi's (Demšar 2006).

    scores: one row per block, one column per system, higher is better; rows with a gap are left out. None with
    fewer than three systems or two complete blocks.
    """
    complete = scores.dropna()
    blocks, systems = complete.shape
    if blocks < 2 or systems < 3:
        return None
    # SciPy divides by zero where all systems are equal in every block; nothing differs then.
    alike = bool((complete.nunique(axis=1) == 1).all())
    statistic, p = (0.0, 1.0) if alike else stats.friedmanchisquare(*(complete[name] for name in complete))
    mean = complete.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    # q_alpha of Nemenyi's test: the studentized range for infinite degrees of freedom, over the root of two.
    width = stats.studentized_range.ppf(1 - ALPHA, systems, np.inf) / np.sqrt(2)
    critical = float(width * np.sqrt(systems * (systems + 1) / (6 * blocks)))
    return Ranks(
        mean=mean,
        blocks=blocks,
        statistic=float(statistic),
        p=float(p),
        critical_difference=critical,
        groups=_groups(mean, critical),
    )


def _groups(mean: pd.Series, critical: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of neighbours in rank that lie within the critical difference."""
    names, ranks = [str(name) for name in mean.index], mean.to_numpy()
    found: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = int(np.searchsorted(ranks, ranks[start] + critical, side="right"))
        if end - start > 1 and (not found or end > found[-1][1]):
            found.append((start, end))
    return tuple(tuple(names[start:end]) for start, end in found)
