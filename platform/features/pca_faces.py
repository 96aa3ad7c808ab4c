"""A light face encoder: fixed edges and grey levels, then principal components of the training frames of one fold.

It needs no weights from elsewhere and fits in seconds, for corpora and machines where a backbone is too much.
It uses no label's value, so that folds inside a training part, or clips held out of it to choose an epoch, leak
nothing either; it uses no frame of the clips that its fold reports.

T frames, F measurements of a face, D widths of the code.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

WIDTH = 64
"""D, numbers per face."""
FIT_FRAMES = 60_000
"""Frames of the whole corpus that take part in fitting, at most; neighbouring frames of a video hardly differ."""
_GREY = 16
_CELLS = 8
_BINS = 8
_CHUNK = 64
"""Faces that are measured together: what they need stays in the cache of a core."""

VISUAL_FRONT_END = {
    "kind": "edges-grey-pca",
    "version": 1,
    "width": WIDTH,
    "fit_frames": FIT_FRAMES,
    "grey": _GREY,
    "cells": _CELLS,
    "bins": _BINS,
}
"""Everything the codes depend on besides the crops, for the store's manifest."""

GREY_F = _GREY * _GREY
MEASURES = GREY_F + _CELLS * _CELLS * _BINS
"""F: grey levels first, then edges."""


@dataclass
class Moments:
    """Sums over frames from which mean and covariance follow; of separate frames they add up."""

    count: int
    total: np.ndarray
    """float64 [F]."""
    scatter: np.ndarray
    """float64 [F, F], not centred."""

    @classmethod
    def of(cls, measures: np.ndarray) -> "Moments":
        """Sums over measures [T, F]."""
        wide = measures.astype(np.float64)
        return cls(len(wide), wide.sum(0), wide.T @ wide)

    @classmethod
    def none(cls) -> "Moments":
        """Sums over no frame."""
        return cls(0, np.zeros(MEASURES), np.zeros((MEASURES, MEASURES)))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.scatter + other.scatter)


@dataclass(frozen=True)
class LightEncoder:
    """`code = (measures - mean) @ axes`."""

    mean: np.ndarray
    """float32 [F]."""
    axes: np.ndarray
    """float32 [F, D]."""

    @classmethod
    def fit(cls, moments: Iterable[Moments]) -> "LightEncoder":
        """Principal axes of the frames summed up in `moments`; signs are fixed, surplus axes are zero."""
        sums = sum(moments, Moments.none())
        mean = sums.total / max(sums.count, 1)
        covariance = sums.scatter / max(sums.count, 1)
        covariance -= np.outer(mean, mean)
        # Grey levels and edges weigh the same: each group is scaled to a total variance of one.
        spread = np.maximum(np.diag(covariance), 0)
        scale = np.empty(MEASURES)
        for group in (slice(None, GREY_F), slice(GREY_F, None)):
            scale[group] = 1 / np.sqrt(max(spread[group].sum(), 1e-12))
        covariance *= np.outer(scale, scale)
        largest = [MEASURES - WIDTH, MEASURES - 1]
        values, axes = scipy.linalg.eigh(covariance, subset_by_index=largest, overwrite_a=True)
        values, axes = values[::-1], axes[:, ::-1]
        strongest = axes[np.abs(axes).argmax(0), np.arange(WIDTH)]
        axes = axes * np.where(strongest < 0, -1, 1)
        axes[:, values < 1e-9] = 0
        return cls(mean.astype(np.float32), (scale[:, None] * axes).astype(np.float32))

    def encode(self, measures: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Codes float32 [T, D] of measures [T, F]; zero where bool [T] `present` says there is no face."""
        codes: np.ndarray = (measures - self.mean) @ self.axes
        codes[~present] = 0
        return codes


def measure(faces: np.ndarray) -> np.ndarray:
    """uint8 [T, 48, 48] -> float32 [T, F]: block means of grey, and histograms of edge direction per cell."""
    chunks = [_measure(faces[begin : begin + _CHUNK]) for begin in range(0, len(faces), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, MEASURES), np.float32)


def _measure(faces: np.ndarray) -> np.ndarray:
    count, side = len(faces), faces.shape[1]
    # [across, down, T]: what is added up lies far apart in memory, and numbers of many faces next to each other, so
    # each step goes through memory in order. Every number is computed in the order in which it always was.
    image = np.array(faces.T, np.float32, order="C")
    image /= 255
    grey = _blocks(image, _GREY)
    down, across = np.empty_like(image), np.empty_like(image)
    _slope(image.swapaxes(0, 1), down.swapaxes(0, 1))
    _slope(image, across)
    strength = np.hypot(down, across, out=image)
    turn = _half_turn(np.arctan2(down, across, out=down))
    turn *= _BINS / np.pi
    edges = np.empty((count, _CELLS, _CELLS, _BINS), np.float32)
    share, none = across, np.zeros_like(across)
    for direction in range(_BINS):
        if direction:
            np.abs(np.subtract(turn, direction, out=share), out=share)
        else:  # which lies between the last direction and the second
            np.minimum(turn, np.subtract(_BINS, turn, out=share), out=share)
        np.maximum(np.subtract(1, share, out=share), none, out=share)
        share *= strength
        edges[..., direction] = _blocks(share, _CELLS)
    # As brightness and contrast change, so do all edges of a face: their pattern stays.
    edges = np.sqrt(edges / (edges.sum((1, 2, 3), keepdims=True) + 1e-3 * side))
    return np.concatenate([grey.reshape(count, -1), edges.reshape(count, -1)], axis=1)


def _slope(image: np.ndarray, out: np.ndarray) -> None:
    """`np.gradient` along the first axis, the same values."""
    np.subtract(image[2:], image[:-2], out=out[1:-1])
    out[1:-1] *= 0.5
    np.subtract(image[1], image[0], out=out[0])
    np.subtract(image[-1], image[-2], out=out[-1])


def _half_turn(angle: np.ndarray) -> np.ndarray:
    """`angle % np.pi` in the place of float32 within [-pi, pi], the same values; NumPy's remainder takes far longer."""
    pi = np.float32(np.pi)
    angle[angle == pi] = 0
    angle += (angle < 0) * pi
    return angle


def _blocks(image: np.ndarray, parts: int) -> np.ndarray:
    """Means of [side, side, T] over parts x parts equal blocks: [T, parts, parts], first and second axis swapped."""
    side, _, count = image.shape
    step = side // parts
    # In the order of `np.mean` of [T, side, side], so to the same bits.
    columns = image.reshape(parts, step, side, count)
    rows = columns[:, 0].copy()
    for place in range(1, step):
        rows += columns[:, place]
    cells = rows.reshape(parts, parts, step, count)
    sums = cells[:, :, 0].copy()
    for place in range(1, step):
        sums += cells[:, :, place]
    means: np.ndarray = (sums / np.float32(step * step)).T
    return means


def fitting_stride(frames: Sequence[int]) -> int:
    """Every how many-th frame takes part in fitting, for clips of these lengths."""
    return max(1, -(-sum(frames) // FIT_FRAMES))
