"""Weights between the frames of a window: one number per pair (as printed), or one of two length-free forms.

Legend: L frames of the window at hand, N frames of the window the block was built for, R rank or reach.

The papers' L x L weights fit one window length only (A3). `lowrank` and `relative` are in no paper: they train on N
frames and run on any number, so that a whole video can be predicted in one pass.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["full", "lowrank", "relative"]


class FixedWeights(nn.Module):
    """A plain weight matrix; where it spans frames, it was made for one number of them (A3)."""

    def __init__(self, rows: int, columns: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.w = nn.Parameter(torch.empty(rows, columns))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, times the gain."""
        nn.init.xavier_uniform_(self.w, self.gain)

    def forward(self, frames: int) -> Tensor:
        """rows x columns, for any number of frames."""
        return self.w


class LowRankWeights(nn.Module):
    """W = P M P' : L x L, with P : L x R the first R cosines over the window and M : R x R learnt.

    Smooth in both frames, and stretched with the window: on any L it is the same operator on functions of time.
    """

    def __init__(self, frames: int, rank: int, gain: float) -> None:
        super().__init__()
        kept = min(rank, frames)
        self.gain = gain
        self.m = nn.Parameter(torch.empty(kept, kept))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, times the gain."""
        nn.init.xavier_uniform_(self.m, self.gain)

    def forward(self, frames: int) -> Tensor:
        """L x L."""
        order_R = torch.arange(len(self.m), device=self.m.device, dtype=self.m.dtype)
        time_L = (torch.arange(frames, device=self.m.device, dtype=self.m.dtype) + 0.5) / frames
        cosines_LR = torch.cos(math.pi * time_L[:, None] * order_R) * math.sqrt(2 / frames)
        return cosines_LR @ self.m @ cosines_LR.T


class RelativeWeights(nn.Module):
    """W[i, k] = r[i - k] for |i - k| <= R, else 0 : L x L, with r of 2R + 1 numbers learnt.

    The weight of a frame depends on its distance, not on its place in the window.
    """

    def __init__(self, frames: int, reach: int, gain: float) -> None:
        super().__init__()
        self.reach = min(reach, frames - 1)
        self.gain = gain
        self.r = nn.Parameter(torch.empty(2 * self.reach + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform, with the variance that Xavier gives a row of as many entries, times the gain."""
        bound = self.gain * math.sqrt(3 / len(self.r))
        nn.init.uniform_(self.r, -bound, bound)

    def forward(self, frames: int) -> Tensor:
        """L x L."""
        at_L = torch.arange(frames, device=self.r.device)
        offset_LL = at_L[:, None] - at_L
        taken_LL = self.r[offset_LL.clamp(-self.reach, self.reach) + self.reach]
        return taken_LL * (offset_LL.abs() <= self.reach)


def time_weights(kind: Kind, frames: int, *, rank: int, reach: int, gain: float) -> nn.Module:
    """Weights between frames of the asked kind; called with a number of frames they give L x L."""
    if kind == "lowrank":
        return LowRankWeights(frames, rank, gain)
    return RelativeWeights(frames, reach, gain) if kind == "relative" else FixedWeights(frames, frames, gain)
