"""The concordance correlation coefficient, computed in one place, for loss and for score.

The arithmetic is written once over whatever array it is given: NumPy for reports, torch for training.
Estimator (E3): population moments throughout, covariance and both variances over N, so that a perfect
prediction scores exactly 1.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=Any)


ROUNDING = 2.0**-50
"""Spread below this share of the mean is rounding of float64, not spread."""


@dataclass(frozen=True)
class Moments:
    """Count, means and centred sums of (prediction x, label y); enough for CCC, PCC and RMSE.

    Each field is a float, or an array with one entry per group. Centred sums merge without cancellation
    (Chan et al.), so any chunking gives the same value to rounding.
    """

    n: Any
    mean_x: Any
    mean_y: Any
    sxx: Any
    syy: Any
    sxy: Any

    def __add__(self, other: "Moments") -> "Moments":
        n = self.n + other.n
        safe = n + (n == 0)
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.n * other.n / safe
        return Moments(
            n,
            self.mean_x + dx * other.n / safe,
            self.mean_y + dy * other.n / safe,
            self.sxx + other.sxx + dx * dx * weight,
            self.syy + other.syy + dy * dy * weight,
            self.sxy + other.sxy + dx * dy * weight,
        )


def _wide(x: Any) -> Any:
    """Float64, in the library the array came from."""
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def moments(x: Array, y: Array, mask: Array, axis: int = -1) -> Moments:
    """Moments of the frames where `mask` is true, along `axis`, in float64.

    x, y, mask: arrays of one shape, of one library. What stands under a false mask is never read into a
    sum, so it may be anything finite.
    """
    m = _wide(mask)
    x, y = _wide(x), _wide(y)
    n = m.sum(axis)
    safe = n + (n == 0)
    mean_x, mean_y = (x * m).sum(axis) / safe, (y * m).sum(axis) / safe
    shape = list(x.shape)
    shape[axis] = 1
    cx, cy = (x - mean_x.reshape(shape)) * m, (y - mean_y.reshape(shape)) * m
    sxx, syy, sxy = (cx * cx).sum(axis), (cy * cy).sum(axis), (cx * cy).sum(axis)
    # The mean of equal numbers may round; what that leaves is no spread.
    floor_x, floor_y = n * (ROUNDING * mean_x) ** 2, n * (ROUNDING * mean_y) ** 2
    sxx, syy, sxy = sxx * (sxx > floor_x), syy * (syy > floor_y), sxy * (sxx > floor_x) * (syy > floor_y)
    return Moments(n, mean_x, mean_y, sxx, syy, sxy)


def ccc_of(m: Moments) -> Any:
    """CCC = 2 cov(x,y) / (var x + var y + (mean x - mean y)^2)    # 004 eq 7, 002 eq 15, 001 eq 21.

    Two constants have no concordance to speak of: the value is defined as 0 there, as it is for one
    constant against anything that varies.
    """
    gap = m.mean_x - m.mean_y
    denominator = m.sxx + m.syy + m.n * gap * gap
    return 2 * m.sxy / (denominator + (denominator == 0))


def ccc(x: Array, y: Array, mask: Array, axis: int = -1) -> Any:
    """CCC of the unmasked frames along `axis`: in [-1, 1], differentiable where `x` is a torch tensor."""
    return ccc_of(moments(x, y, mask, axis))


def pcc_of(m: Moments) -> Any:
    """Pearson correlation; 0 where either side is constant."""
    denominator = (m.sxx * m.syy) ** 0.5
    return m.sxy / (denominator + (denominator == 0))


def rmse_of(m: Moments) -> Any:
    """Root of the mean squared difference, in label units; 0 frames give 0."""
    gap = m.mean_x - m.mean_y
    squares = m.sxx + m.syy - 2 * m.sxy
    safe = m.n + (m.n == 0)
    # Rounding may leave a perfect prediction a hair below zero.
    mean_square = (squares * (squares > 0)) / safe + gap * gap
    return mean_square**0.5


def ccc_without_each(m: Moments) -> tuple[Any, Any]:
    """CCC of all groups together [...], and of the rest without each of them [groups, ...]: the jackknife's values.

    m: fields are float64 [groups, ...]. Without its only group nothing is left, and the value is 0.
    """
    n, mean_x, mean_y, sxx, syy, sxy = m.n, m.mean_x, m.mean_y, m.sxx, m.syy, m.sxy
    # Means are shifted first, so that nothing cancels.
    shift_x, shift_y = np.average(mean_x, axis=0, weights=n), np.average(mean_y, axis=0, weights=n)
    x, y = mean_x - shift_x, mean_y - shift_y
    sums = np.stack([n, n * x, n * y, sxx + n * x * x, syy + n * y * y, sxy + n * x * y])
    total = sums.sum(axis=1, keepdims=True)
    return _of_sums(total, shift_x, shift_y)[0], _of_sums(total - sums, shift_x, shift_y)


def _of_sums(sums: Any, shift_x: Any, shift_y: Any) -> Any:
    n, of_x, of_y, of_xx, of_yy, of_xy = sums
    safe = np.where(n > 0, n, 1)
    x, y = of_x / safe, of_y / safe
    centred = (of_xx - n * x * x, of_yy - n * y * y, of_xy - n * x * y)
    return ccc_of(Moments(n, x + shift_x, y + shift_y, *centred))
