"""A dilated convolution over time with fewer products than its equation has: Winograd's minimal filtering.

K taps give M results of a row of M + K - 1 frames. Read as polynomials, both are fixed by their values at M + K - 1
points, and values multiply one by one: 8 products for 4 results of 5 taps, where the equation has 20. Each product is
here one of matrices over all windows. Sources: Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray,
arXiv:1509.09308, for convolutional networks.

Legend: L frames, B batch, I input features, D features of the layer, K taps, M results of a tile, P points (M + K - 1),
T tiles, F values of `dilation` frames of all windows (dilation x B x I or D), N rows of all tiles (T x dilation x B).
Frames that lie `dilation` apart are a row; so a tile is M blocks of `dilation` frames, which are contiguous.

The results are those of the equation up to rounding: a later frame of its tile changes the last bits of a result,
though it has no part in it.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from crossfold.fusion_models.kernels.padding import padded

RESULTS = 4
"""Of a tile. More would need fewer products, and points whose powers differ more, so that more is rounded."""
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
"""And infinity: the usual ones, whose powers round least."""
MOST_TAPS = len(POINTS) + 2 - RESULTS


class _Matrices(NamedTuple):
    """y = to_results ((to_points W) * (to_values x)), of one row."""

    to_values_PP: Tensor
    to_points_PK: Tensor
    to_results_MP: Tensor


@lru_cache
def _matrices(taps: int, dtype: torch.dtype) -> _Matrices:
    """Of as many points as the taps need. Exact fractions until the last step.

    A polynomial below degree P is sum_p value_p prod_{q != p} (z - q) / (p - q), plus prod_q (z - q) times its value at
    infinity, the coefficient of the highest power (Lagrange). That gives the product of two polynomials from the
    products of their values; a convolution is its transpose, where the coefficients above meet the frames.
    """
    points = [Fraction(point) for point in POINTS[: RESULTS + taps - 2]]
    values, scales = [], []
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        values.append([*_with_roots(others), Fraction(0)])
        scales.append(math.prod((point - other for other in others), start=Fraction(1)))
    to_values = [*values, _with_roots(points)]
    to_points = [[point**k / scale for k in range(taps)] for point, scale in zip(points, scales, strict=True)]
    to_points.append([Fraction(int(k == taps - 1)) for k in range(taps)])
    to_results = [[point**m for point in points] + [Fraction(int(m == RESULTS - 1))] for m in range(RESULTS)]

    def tensor(rows: list[list[Fraction]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([[float(value) for value in row] for row in rows], dtype=dtype)

    # bfloat16 holds the other two exactly, not the thirds of this one.
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    return _Matrices(tensor(to_values, dtype), tensor(to_points, wide), tensor(to_results, dtype))


def _with_roots(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of prod (z - root), the lowest first."""
    found = [Fraction(1)]
    for root in roots:
        found = [
            before - root * same for before, same in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)
        ]
    return found


def covered(frames: int, dilation: int) -> int:
    """The frames of the tiles that these ones need."""
    return _tiles(frames, dilation) * RESULTS * dilation


def _tiles(frames: int, dilation: int) -> int:
    return -(-frames // (RESULTS * dilation))


def convolution(x_LBI: Tensor, w_KID: Tensor, b_D: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """b + sum_k x[l - (K - 1 - k) dilation] W_k : L x B x D, with zeros before the first frame; and the values of x.

    Those are P x N x I, about twice as large as x, and all that `gradients` needs of it.
    """
    taps, inputs, width = w_KID.shape
    frames, batch, _ = x_LBI.shape
    _, to_points_PK, to_results_MP = _matrices(taps, x_LBI.dtype)
    v_PNI = _values(x_LBI, taps, dilation)
    u_PID = _product(to_points_PK, w_KID).view(-1, inputs, width)
    m_PTF = torch.bmm(v_PNI, u_PID).view(len(u_PID), -1, dilation * batch * width)
    tiles = m_PTF.shape[1]
    y_TMF = torch.bmm(to_results_MP.expand(tiles, -1, -1), m_PTF.transpose(0, 1))
    return y_TMF.view(-1, batch, width)[:frames].add_(b_D), v_PNI


def gradients(
    v_PNI: Tensor, w_KID: Tensor, grad_LBD: Tensor, dilation: int, *, of_input: bool
) -> tuple[Tensor | None, Tensor]:
    """Of x : L x B x I, or None, and of W : K x I x D. Each step of `convolution`, transposed."""
    taps, inputs, width = w_KID.shape
    frames, batch, _ = grad_LBD.shape
    to_values_PP, to_points_PK, to_results_MP = _matrices(taps, v_PNI.dtype)
    points, tiles = len(to_points_PK), _tiles(frames, dilation)
    spare = covered(frames, dilation) - frames
    grad_TMF = padded(grad_LBD, 0, spare).view(tiles, RESULTS, -1)
    m_PTF = grad_LBD.new_empty(points, tiles, grad_TMF.shape[2])
    for tile in range(tiles):
        torch.mm(to_results_MP.t(), grad_TMF[tile], out=m_PTF[:, tile])
    m_PND = m_PTF.view(points, -1, width)
    u_grad_PID = torch.bmm(v_PNI.transpose(1, 2), m_PND)
    to_w_KID = _product(to_points_PK.t(), u_grad_PID).view_as(w_KID)
    if not of_input:
        return None, to_w_KID
    u_PID = _product(to_points_PK, w_KID).view(points, inputs, width)
    v_PTF = torch.bmm(m_PND, u_PID.transpose(1, 2)).view(points, tiles, -1)
    # Neighbouring tiles share K - 1 blocks of frames, whose gradients add up.
    to_x_F = grad_LBD.new_zeros(tiles * RESULTS + taps - 1, v_PTF.shape[2])
    for tile in range(tiles):
        blocks = to_x_F[tile * RESULTS :][:points]
        torch.addmm(blocks, to_values_PP.t(), v_PTF[:, tile], out=blocks)
    past = (taps - 1) * dilation
    return to_x_F.view(-1, batch, inputs)[past : past + frames], to_w_KID


def _product(matrix: Tensor, of: Tensor) -> Tensor:
    """The matrix times the rows of a tensor, in the type of the matrix; the result has that of the tensor."""
    return (matrix @ of.flatten(1).to(matrix.dtype)).to(of.dtype)


def _values(x_LBI: Tensor, taps: int, dilation: int) -> Tensor:
    """P x N x I : the values of each tile's frames at the points."""
    frames, _, inputs = x_LBI.shape
    to_values_PP = _matrices(taps, x_LBI.dtype).to_values_PP
    points, tiles = len(to_values_PP), _tiles(frames, dilation)
    past, spare = (taps - 1) * dilation, covered(frames, dilation) - frames
    x_F = padded(x_LBI, past, spare).view(tiles * RESULTS + taps - 1, -1)
    v_PTF = x_LBI.new_empty(points, tiles, x_F.shape[1])
    for tile in range(tiles):
        torch.mm(to_values_PP, x_F[tile * RESULTS :][:points], out=v_PTF[:, tile])
    return v_PTF.view(points, -1, inputs)
