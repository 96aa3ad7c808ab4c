"""One rating out of several raters' traces, as the owners of RECOLA made theirs for AVEC 2016.

Source: Valstar et al., "AVEC 2016 - Depression, Mood, and Emotion Recognition Workshop and Challenge", and
the owners' script for its gold standard. For one recording and one dimension, with the trace x_r(t) of rater r, its
mean m_r over the recording, and the concordance correlation CCC(r, s) of two raters (all moments over n),

    a_r  = mean over s != r of CCC(r, s)                    agreement of r with the others
    c    = sum_r a_r m_r / sum_r a_r                        level on which all raters are centred
    y(t) = mean over r of (x_r(t) - m_r + c)

So agreement weighs the level, and the shape is the plain mean. It is not the evaluator weighted estimator of Grimm and
Kroschel (2005), which weighs the traces themselves.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GoldStandard:
    """What several raters make together of one recording and one dimension."""

    values: np.ndarray
    """float64 [frames]."""
    agreement: np.ndarray
    """float64 [raters]: a_r."""
    level: float
    """c."""
    weighted: bool
    """False where the raters agree so little that the weights would put c outside their own means: then c is the
    plain mean of the m_r."""


def gold_standard(ratings: np.ndarray) -> GoldStandard:
    """Combines `ratings`, [frames, raters] without gaps, as the module says. One rater alone is taken as is."""
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or not ratings.size:
        raise ValueError(f"ratings of shape {ratings.shape}: need frames x raters, at least one of each")
    means = ratings.mean(0)
    agreement = _agreement(ratings, means)
    total = float(agreement.sum())
    level = float(agreement @ means) / total if total > 0 else np.nan
    # Rounding may put the weighted mean of equal means a bit outside them.
    slack = 1e-9 * (1 + float(np.abs(means).max()))
    weighted = bool(means.min() - slack <= level <= means.max() + slack)
    if not weighted:
        level = float(means.mean())
    return GoldStandard((ratings - means).mean(1) + level, agreement, level, weighted)


def _agreement(ratings: np.ndarray, means: np.ndarray) -> np.ndarray:
    """a_r, float64 [raters]; two traces that are constant and equal agree fully, one rater alone with itself."""
    raters = ratings.shape[1]
    if raters == 1:
        return np.ones(1)
    centred = ratings - means
    covariance = centred.T @ centred / len(ratings)  # over n, as in the owners' script
    variance = np.diag(covariance)
    apart = variance[:, None] + variance[None, :] + (means[:, None] - means[None, :]) ** 2
    pairs = np.divide(2 * covariance, apart, out=np.ones_like(apart), where=apart > 0)
    agreement: np.ndarray = (pairs.sum(1) - np.diag(pairs)) / (raters - 1)
    return agreement
