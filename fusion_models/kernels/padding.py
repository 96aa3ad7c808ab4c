"""Zeros before and after the frames of a window.

Legend: L frames, B batch, I features.
"""

from torch import Tensor


def padded(x_LBI: Tensor, before: int, after: int) -> Tensor:
    """(before + L + after) x B x I. Torch's own writes zeros everywhere first, and then the frames over them."""
    frames = len(x_LBI)
    result_LBI = x_LBI.new_empty(before + frames + after, *x_LBI.shape[1:])
    result_LBI[:before].zero_()
    result_LBI[before : before + frames] = x_LBI
    result_LBI[before + frames :].zero_()
    return result_LBI
