"""Keep masks of dropout that cost a quarter of a draw a value.

Torch's own draws a number of 32 or 64 bits for each value on the CPU, which there takes longer than the activation and
the matrix product of a narrow layer together.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEVELS = 65536
"""Of 16 bits: a probability is met to within half of one of them."""


def kept_share(p: float) -> float:
    """The share of the values that `keep_mask` keeps on average: 1 - p in units of 2^-16, at least one."""
    return max(round((1 - p) * LEVELS), 1) / LEVELS


def keep_mask(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """1 where a value is kept and 0 where it is dropped, in the type and on the device of `like`.

    Four values share a draw of 64 bits from torch's current generator of that device.
    """
    size = math.prod(shape)
    drawn = torch.empty((size + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    bits = drawn.view(torch.int16)[:size].view(*shape)
    dropped = round((1 - kept_share(p)) * LEVELS)
    first = dropped - LEVELS // 2  # 16 bits with a sign begin at -2^15
    return torch.ge(bits, first, out=torch.empty(*shape, dtype=like.dtype, device=like.device))
