"""Scores of videos drawn from a known population, so that statistics can be compared with the truth.

Only the moments of a video are drawn, never its frames: label means and the level of noise differ between videos, hard
videos are hard for all systems, and one in four frames is independent of its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossfold.platform.core.metrics import Moments, ccc_of
from crossfold.reports.stats.runs import Run

MODELS = ("even", "heavy-tailed lengths", "one dominating subject")
LABELS, BIAS, NOISE, SLOPE = 0.6, 0.4, 0.8, 0.8
"""Deviation of label means between videos, of the bias of a system on a video, of noise; and how predictions scale."""
UNEQUAL = 0.3
"""Deviation of the logarithm of the noise between videos, and once more between videos of one system."""
LABEL_UNEQUAL = 0.15


@dataclass(frozen=True)
class Videos:
    """What all systems share, for `times` independent data sets: arrays [times, videos]."""

    frames: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    bias: np.ndarray
    hard: np.ndarray

    @property
    def independent(self):
        """Frames that are independent of each other."""
        return np.maximum(self.frames // 4, 3)


def frames_of(rng, times, count, model):
    """Frames of each video. In the last model one subject has 30 % of all frames."""
    if model == MODELS[1]:
        return np.clip(np.exp(rng.normal(0, 1, (times, count))) * 40, 8, 600).astype(int)
    frames = np.full((times, count), 60)
    if model == MODELS[2]:
        frames[:, 0] = round(0.3 / 0.7 * 60 * (count - 1))
    return frames


def draw_videos(rng, times, count, model="even"):
    """Labels of `count` videos, and how hard each of them is."""
    frames = frames_of(rng, times, count, model)
    independent = np.maximum(frames // 4, 3)
    spread = np.exp(LABEL_UNEQUAL * rng.standard_normal((times, count)))
    mean = LABELS * rng.standard_normal((times, count)) + spread * rng.standard_normal((times, count)) / np.sqrt(
        independent
    )
    square = spread**2 * rng.chisquare(independent - 1) * frames / independent
    hard = np.exp(UNEQUAL * rng.standard_normal((times, count)))
    return Videos(frames, mean, square, rng.standard_normal((times, count)), hard)


def draw_system(rng, videos, seeds=1, slope=SLOPE, seed_spread=0.0, seed_bias=0.0):
    """Moments of the predictions of one system, one `Moments` a seed.

    slope: how predictions scale with labels. seed_spread: deviation of the slope between seeds. seed_bias: deviation of
    the bias between seeds of one video.
    """
    shape, n = videos.frames.shape, videos.frames
    bias = BIAS * (0.8 * videos.bias + 0.6 * rng.standard_normal(shape))
    noise = NOISE * videos.hard * np.exp(UNEQUAL * rng.standard_normal(shape))
    ratio = n / videos.independent
    found = []
    for _ in range(seeds):
        own = slope + seed_spread * rng.standard_normal((shape[0], 1))
        mean = own * videos.mean + bias + seed_bias * rng.standard_normal(shape)
        mean = mean + noise * rng.standard_normal(shape) / np.sqrt(videos.independent)
        crossed = noise * np.sqrt(videos.square * ratio) * rng.standard_normal(shape)
        errors = np.maximum(
            noise**2 * rng.chisquare(videos.independent - 1) * ratio, crossed**2 / videos.square
        )  # the second is what Cauchy and Schwarz ask for
        sxy = own * videos.square + crossed
        sxx = own**2 * videos.square + 2 * own * crossed + errors
        found.append(Moments(n.astype(float), mean, videos.mean, sxx, videos.square, sxy))
    return found


def true_ccc(slope=SLOPE, seed_spread=0.0, seed_bias=0.0):
    """CCC over infinitely many videos, and seeds."""
    label = LABELS**2 + np.exp(2 * LABEL_UNEQUAL**2)
    noise = NOISE**2 * np.exp(4 * UNEQUAL**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    slopes = slope + seed_spread * nodes
    own = slopes**2 * label + BIAS**2 + noise + seed_bias**2
    return float(np.average(2 * slopes * label / (own + label), weights=weights))


def runs_of_data_set(found: Sequence[Moments], at: int, fold: int = 0) -> list[Run]:
    """The runs of one system on one of the data sets, one a seed."""
    runs = []
    for seed, moments in enumerate(found):
        one = Moments(*(getattr(moments, name)[at] for name in ("n", "mean_x", "mean_y", "sxx", "syy", "sxy")))
        names = tuple(f"v{video}" for video in range(len(one.n)))
        runs.append(Run(fold, seed, float(ccc_of(_pooled(one))), names, one))
    return runs


def _pooled(one: Moments) -> Moments:
    total = one.n.sum()
    x, y = (one.n * one.mean_x).sum() / total, (one.n * one.mean_y).sum() / total
    dx, dy = one.mean_x - x, one.mean_y - y
    squares = ((one.sxx + one.n * dx * dx).sum(), (one.syy + one.n * dy * dy).sum(), (one.sxy + one.n * dx * dy).sum())
    return Moments(total, x, y, *squares)
