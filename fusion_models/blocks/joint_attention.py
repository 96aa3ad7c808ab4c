"""One iteration of joint cross-attention, the building block of jca, rjca, grjca, hgrjca and rjcma.

Legend: B batch, L (also i, k, l) frames of a window, D (also e) features of one modality, J joint features.

Released code uses the feature axis for systems printed with the time axis, see [A1]. Both are here; they are
different models: on the time axis C compares frames with frames, on the feature axis channels with channels.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.system import Features, Modal, Notes, Widths, concatenated, note
from crossfold.platform.config import Strict

Axis = Literal["time", "feature"]


def time_axis_step(x_BLD: Tensor, joint_BLJ: Tensor, w_j: Tensor, w_c: Tensor, w_h: Tensor) -> tuple[Tensor, Tensor]:
    """Attended features B x L x D and correlation B x L x L of one modality.

    w_j : D x J, w_c : L x L, w_h : L x L. The papers' columns are our rows: their L is our L, their d our J.
    """
    root = math.sqrt(joint_BLJ.shape[-1])
    # C = tanh(X' W_j J / sqrt(d))                            001 eqs 1-2; 002 eqs 2-4
    corr_BLL = torch.tanh(torch.einsum("bid,dj,bkj->bik", x_BLD, w_j, joint_BLJ) / root)
    # H = ReLU(X W_c C)                                       001 eqs 3-4; 002 eqs 5-7
    h_BLD = torch.relu(torch.einsum("li,bld,bik->bkd", w_c, x_BLD, corr_BLL))
    # X_att = H W_h + X                                       001 eqs 5-8; 002 eqs 8-13
    attended_BLD = torch.einsum("kl,bkd->bld", w_h, h_BLD) + x_BLD
    return attended_BLD, corr_BLL


def feature_axis_step(x_BLD: Tensor, joint_BLJ: Tensor, w_j: Tensor, w_c: Tensor, w_h: Tensor) -> tuple[Tensor, Tensor]:
    """Attended features B x L x D and correlation B x D x J of one modality.

    w_j : L x L, w_c : D x D, w_h : J x D (A2: read as rows, all of 003 fits but J's printed shape).
    """
    root = math.sqrt(joint_BLJ.shape[-1])
    # C = tanh(X' W_j J / sqrt(d))                            003 eqs 2-3
    corr_BDJ = torch.tanh(torch.einsum("bld,lk,bkj->bdj", x_BLD, w_j, joint_BLJ) / root)
    # H = ReLU(X W_c C)                                       003 eqs 4-5
    h_BLJ = torch.relu(torch.einsum("ble,ed,bdj->blj", x_BLD, w_c, corr_BDJ))
    # X_att = H W_h + X                                       003 eqs 6-9
    attended_BLD = torch.einsum("blj,jd->bld", h_BLJ, w_h) + x_BLD
    return attended_BLD, corr_BDJ


class JointAttentionParams(Strict):
    """Choices of the joint block, each with the resolution of `decisions.md` as default."""

    axis: Axis = "time"
    """A1: `time` as printed in 001 and 002, `feature` for 003 and as released."""
    joint: Literal["fc", "concat"] = "fc"
    """A4: J = FC(concat) in 001 and 002, J = concat in 003."""
    gain: float = Field(0.01, gt=0)
    """Gain of the Xavier initialisation of W_h (our choice; 001 and 002 print none, 003 says Xavier, which is 1).
    H sums over L frames, so plain Xavier multiplies the features by about sqrt(L) per iteration before training
    starts, and three iterations do not recover; a small gain starts near the identity."""


class JointAttention(nn.Module):
    """JCB: every modality attends to the joint representation J of all of them (spec 1.7)."""

    def __init__(self, params: JointAttentionParams, widths: Widths, frames: int) -> None:
        super().__init__()
        joint_width = sum(widths.values())
        self.step = time_axis_step if params.axis == "time" else feature_axis_step
        self.fc = nn.Linear(joint_width, joint_width) if params.joint == "fc" else nn.Identity()
        shapes = {
            m: ((d, joint_width), (frames, frames), (frames, frames))
            if params.axis == "time"
            else ((frames, frames), (d, d), (joint_width, d))
            for m, d in widths.items()
        }
        self.w_j = nn.ParameterDict({m: _xavier(shape[0]) for m, shape in shapes.items()})
        self.w_c = nn.ParameterDict({m: _xavier(shape[1]) for m, shape in shapes.items()})
        self.w_h = nn.ParameterDict({m: _xavier(shape[2], params.gain) for m, shape in shapes.items()})
        self.frames = frames

    def forward(self, features: Features, notes: Notes | None = None) -> Modal:
        """Attended features, one B x L x d_m a modality. L must be the length the block was built for (A3)."""
        mask_BL1 = features.mask_BL.unsqueeze(-1)
        if mask_BL1.shape[1] != self.frames:
            raise ValueError(
                f"window of {mask_BL1.shape[1]} frames, but the L x L weights were built for L = {self.frames} (A3)"
            )
        # J = FC([X_a ; X_v ; X_t])                            001 sec 3.2; 002 eq 1; 003 eq 1 without FC
        joint_BLJ = self.fc(concatenated(features.x)) * mask_BL1
        attended: Modal = {}
        for m, x_BLD in features.x.items():
            stepped_BLD, corr = self.step(x_BLD, joint_BLJ, self.w_j[m], self.w_c[m], self.w_h[m])
            attended[m] = stepped_BLD * mask_BL1
            note(notes, f"correlation.{m}", corr)
        return attended


def _xavier(shape: tuple[int, int], gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape), gain))
