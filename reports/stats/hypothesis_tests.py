"""Which differences are real: one correction for all comparisons, equivalence, groups. Distributions are SciPy's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy import stats

MARGIN = 0.005
"""Gains smaller than this are within what seeds alone make (B13): two systems closer than that are the same."""
ALPHA = 0.05


@dataclass(frozen=True)
class Family:
    """All comparisons that are judged together: every pair of some systems, on each of some targets.

    The chance that a report claims any difference between equal systems is to stay at `ALPHA`.
    """

    systems: int = 2
    targets: int = 1

    def p(self, t: float, df: float) -> float:
        """p of a paired t statistic, corrected by Bonferroni for all pairs on all targets.

        Tukey's range would assume one error for all pairs: with a jackknife error for each it rejects equal systems too
        often (docs/statistics.md).
        """
        return min(1.0, self.comparisons * 2 * float(stats.t.sf(abs(t), df)))

    @property
    def comparisons(self) -> int:
        """All pairs on all targets."""
        return self.systems * (self.systems - 1) // 2 * self.targets


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between the printed and the measured order of n rows."""

    tau: float
    p: float
    n: int


def paired_effect(differences: Sequence[float]) -> float | None:
    """Cohen's d of paired values: their mean over their standard deviation (n - 1); None where they do not vary."""
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return None
    return float(values.mean() / values.std(ddof=1))


def equivalence(mean: float, error: float, df: float, margin: float = MARGIN) -> float:
    """p of two one-sided t tests (TOST, Schuirmann 1987) that the true difference lies outside -margin..margin.

    mean, error, df: a difference with its standard error and degrees of freedom. Small p: the two systems are
    indistinguishable within `margin`. Without any spread they are equivalent for certain (0) or not at all (1).
    """
    if margin <= 0:
        raise ValueError(f"margin = {margin}: give a positive one")
    if error < 1e-12:  # the t statistic would be a division by zero
        return 0.0 if abs(mean) < margin else 1.0
    return float(stats.t.sf((margin - abs(mean)) / error, df))


def groups_of(names: Sequence[str], apart: Callable[[str, str], bool]) -> tuple[tuple[str, ...], ...]:
    """The largest sets of two or more names of which no two are apart, in the order of `names`.

    Two names are in a common group exactly where they are not apart, so groups may overlap.
    """
    alike = nx.Graph([(a, b) for at, a in enumerate(names) for b in names[at + 1 :] if not apart(a, b)])
    place = {name: at for at, name in enumerate(names)}
    cliques = (tuple(sorted(clique, key=place.__getitem__)) for clique in nx.find_cliques(alike))
    return tuple(sorted(cliques, key=lambda group: [place[name] for name in group]))


def rank_agreement(printed: Sequence[float], measured: Sequence[float]) -> Agreement | None:
    """Kendall's tau-b of two orders of the same rows; None with fewer than three, or where all are equal."""
    if len(printed) < 3:
        return None
    result = stats.kendalltau(printed, measured)
    return (
        None if np.isnan(result.statistic) else Agreement(float(result.statistic), float(result.pvalue), len(printed))
    )
