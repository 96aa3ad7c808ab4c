"""One iteration of joint cross-attention, the building block of jca, rjca, grjca, hgrjca and rjcma.

Legend: B batch, L (also i, k, l) frames of a window, D (also e) features of one modality, J joint features,
K hidden units of the additive form.

Released code uses the feature axis for systems printed with the time axis, see [A1]. Both are here; they are
different models: on the time axis C compares frames with frames, on the feature axis channels with channels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.blocks.attention_maps import JOINT, note_map
from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.blocks.time_weights import FixedWeights, Kind, time_weights
from crossfold.fusion_models.system import Features, Modal, Notes, Widths, concatenated
from crossfold.platform.core.base_model import MOST_COUNT, MOST_WIDTH, FrozenModel


class JointAttentionParams(FrozenModel):
    """Choices of the joint block, each with the resolution of `decisions.md` as default."""

    axis: Literal["time", "feature"] = "time"
    """A1: `time` as printed in 001 and 002, `feature` for 003 and as released."""
    joint: Literal["fc", "concat"] = "fc"
    """A4: J = FC(concat) in 001 and 002, J = concat in 003."""
    gain: float = Field(0.01, gt=0)
    """Gain of the Xavier initialisation of W_h (a choice; 001 and 002 print none, 003 says Xavier, which is 1).
    H sums over L frames, so plain Xavier multiplies the features by about sqrt(L) per iteration before training
    starts, and three iterations do not recover; a small gain starts near the identity."""
    weights: Kind = "full"
    """A3: `full` as printed, L x L, for one window length. `lowrank` and `relative` are Crossfold's, for any length."""
    rank: int = Field(16, ge=1, le=MOST_WIDTH)
    """Cosines of the `lowrank` weights."""
    reach: int = Field(32, ge=1, le=MOST_COUNT)
    """Frames that the `relative` weights see on either side."""
    attention_bias: bool = False
    """A bias after each of W_j, W_c and W_h, as released (G8); not printed. It is zero before training."""
    score_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on C, as released (G2a); not printed."""
    squash: bool = False
    """A tanh before the ReLU of H, as released (G2a); not printed."""
    attended_relu: bool = False
    """A ReLU on H W_h before the residual, as released (G2a); not printed."""
    attended_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on H W_h: 0.5 in 003's text, 0.6 as released (G2a)."""


class Released(nn.Module):
    """The dropouts and nonlinearities that released code adds to the printed lines (G2a); by default the identity."""

    def __init__(self, params: JointAttentionParams) -> None:
        super().__init__()
        self.score = Dropout(params.score_dropout)
        self.squash = nn.Tanh() if params.squash else nn.Identity()
        relu = nn.ReLU() if params.attended_relu else nn.Identity()
        self.attended = nn.Sequential(relu, Dropout(params.attended_dropout))


class Linear(NamedTuple):
    """The weight of a linear map, and its bias, which belongs to the space of the second letter of the weight."""

    w: Tensor
    b: Tensor | None
    """None: the map has no bias, as printed."""


@dataclass(frozen=True)
class Shared:
    """What the modalities of a window share in one step."""

    joint_BLJ: Tensor
    mask_BL1: Tensor
    scale: Tensor | float
    """Of a sum over all frames, where weights fit any number of them."""
    released: Released


Step = Callable[[Tensor, Shared, list[Linear]], tuple[Tensor, Tensor]]
"""(X_m, what is shared, linear maps of the modality) -> (X_att,m, C_m)."""


def time_axis_step(x_BLD: Tensor, shared: Shared, maps: list[Linear]) -> tuple[Tensor, Tensor]:
    """Attended features B x L x D and correlation B x L x L of one modality.

    w_j : D x J, w_c : L x L, w_h : L x L. The papers write frames as columns, this code as rows: their X' is x_BLD.
    """
    w_j, w_c, w_h = maps
    root = math.sqrt(shared.joint_BLJ.shape[-1])
    # C = tanh(X' W_j J / sqrt(d))
    key_BLJ = _plus(torch.einsum("bid,dj->bij", x_BLD, w_j.w), w_j.b)
    corr_BLL = torch.tanh(torch.einsum("bij,bkj->bik", key_BLJ, shared.joint_BLJ) / root)  # 001 eqs 1-2; 002 eqs 2-4
    if w_j.b is not None:
        corr_BLL = corr_BLL * shared.mask_BL1  # a bias gives padded frames i a correlation, too
    # H = ReLU(X W_c C)
    value_BDL = _plus(torch.einsum("li,bld->bdi", w_c.w, x_BLD), w_c.b)
    summed_BLD = torch.einsum("bdi,bik->bkd", value_BDL, shared.released.score(corr_BLL)) * shared.scale
    h_BLD = torch.relu(shared.released.squash(summed_BLD))  # 001 eqs 3-4; 002 eqs 5-7
    # X_att = H W_h + X
    change_BDL = _plus(torch.einsum("kl,bkd->bdl", w_h.w, h_BLD), w_h.b)
    attended_BLD = shared.released.attended(change_BDL.transpose(1, 2)) + x_BLD  # 001 eqs 5-8; 002 eqs 8-13
    return attended_BLD, corr_BLL


def feature_axis_step(x_BLD: Tensor, shared: Shared, maps: list[Linear]) -> tuple[Tensor, Tensor]:
    """Attended features B x L x D and correlation B x D x J of one modality.

    w_j : L x L, w_c : D x D, w_h : J x D (A2: read as rows, all of 003 fits but J's printed shape).
    """
    w_j, w_c, w_h = maps
    corr_BDJ = _channel_correlation(x_BLD, shared, w_j)
    # H = ReLU(X W_c C)
    value_BLD = _plus(torch.einsum("ble,ed->bld", x_BLD, w_c.w), w_c.b)
    summed_BLJ = torch.einsum("bld,bdj->blj", value_BLD, shared.released.score(corr_BDJ))
    h_BLJ = torch.relu(shared.released.squash(summed_BLJ))  # 003 eqs 4-5
    # X_att = H W_h + X
    change_BLD = _plus(torch.einsum("blj,jd->bld", h_BLJ, w_h.w), w_h.b)
    return shared.released.attended(change_BLD) + x_BLD, corr_BDJ  # 003 eqs 6-9


def additive_step(x_BLD: Tensor, shared: Shared, maps: list[Linear]) -> tuple[Tensor, Tensor]:
    """Attended features B x L x D and correlation B x D x J of one modality, with an additive map [A7].

    w_j : L x L, w_x : L x K, w_c : J x K, w_h : K x L.
    """
    w_j, w_x, w_c, w_h = maps
    released = shared.released
    corr_BDJ = _channel_correlation(x_BLD, shared, w_j)
    # H = ReLU(W_a X + W_c C)
    of_x_BDK = _plus(torch.einsum("bld,lk->bdk", x_BLD, w_x.w), w_x.b)
    of_corr_BDK = _plus(torch.einsum("bdj,jk->bdk", released.score(corr_BDJ), w_c.w), w_c.b)
    h_BDK = torch.relu(released.squash(of_x_BDK + of_corr_BDK))  # first released JCA (A7)
    # X_att = W_h H + X
    change_BDL = _plus(torch.einsum("bdk,kl->bdl", h_BDK, w_h.w), w_h.b)
    attended_BLD = released.attended(change_BDL.transpose(1, 2)) + x_BLD  # first released JCA (A7)
    return attended_BLD, corr_BDJ


def _channel_correlation(x_BLD: Tensor, shared: Shared, w_j: Linear) -> Tensor:
    # C = tanh(X' W_j J / sqrt(d))
    key_BDL = _plus(torch.einsum("bld,lk->bdk", x_BLD, w_j.w), w_j.b)
    summed_BDJ = torch.einsum("bdk,bkj->bdj", key_BDL, shared.joint_BLJ) * shared.scale
    return torch.tanh(summed_BDJ / math.sqrt(shared.joint_BLJ.shape[-1]))  # 003 eqs 2-3


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


@dataclass(frozen=True)
class Form:
    """One form of the block: the space of each weight in the letters of the legend, and the step that uses them."""

    spaces: Mapping[str, str]
    step: Step
    correlation: str
    """The kind of map of C: between frames, or between channels."""


FORMS = {
    "time": Form({"w_j": "DJ", "w_c": "LL", "w_h": "LL"}, time_axis_step, "joint_correlation"),
    "feature": Form({"w_j": "LL", "w_c": "DD", "w_h": "JD"}, feature_axis_step, "channel_correlation"),
    "additive": Form({"w_j": "LL", "w_x": "LK", "w_c": "JK", "w_h": "KL"}, additive_step, "channel_correlation"),
}


class JointAttention(nn.Module):
    """JCB: every modality attends to the joint representation J of all of them."""

    def __init__(
        self, params: JointAttentionParams, widths: Widths, frames: int, *, additive: int | None = None
    ) -> None:
        """`additive`: K of the additive form, which takes the place of the axis."""
        super().__init__()
        joint_width = sum(widths.values())
        self.form = FORMS["additive" if additive else params.axis]
        self.fc = nn.Linear(joint_width, joint_width) if params.joint == "fc" else nn.Identity()
        self.released = Released(params)
        self.frames = frames
        self.length_free = params.weights != "full"
        sizes = {"J": joint_width, "L": frames, "K": additive or 0}

        def weight(name: str, width: int) -> nn.Module:
            space, gain = self.form.spaces[name], params.gain if name == "w_h" else 1.0
            if space == "LL":
                return time_weights(params.weights, frames, rank=params.rank, reach=params.reach, gain=gain)
            rows, columns = ({**sizes, "D": width}[letter] for letter in space)
            return FixedWeights(rows, columns, gain)

        def bias(name: str, width: int) -> nn.Parameter:
            # Of weights that fit any number of frames, the bias over frames is one number for all of them.
            space = {**sizes, "D": width, "L": 1 if self.length_free else frames}
            return nn.Parameter(torch.zeros(space[self.form.spaces[name][1]]))

        self.w = nn.ModuleDict(
            {name: nn.ModuleDict({m: weight(name, d) for m, d in widths.items()}) for name in self.form.spaces}
        )
        biased = self.form.spaces if params.attention_bias else ()
        self.b = nn.ModuleDict(
            {name: nn.ParameterDict({m: bias(name, d) for m, d in widths.items()}) for name in biased}
        )

    def maps_of(self, modality: str, frames: int) -> list[Linear]:
        """The linear maps of one modality for a window of so many frames, in the order of `form.spaces`."""
        return [
            Linear(group[modality](frames), self.b[name][modality] if name in self.b else None)  # type: ignore[index]
            for name, group in self.w.items()
        ]

    def forward(self, features: Features, notes: Notes | None = None) -> Modal:
        """Attended features, one B x L x d_m a modality. Full weights need the L the block was built for (A3)."""
        mask_BL1 = features.mask_BL.unsqueeze(-1)
        frames = mask_BL1.shape[1]
        scale: Tensor | float = 1.0
        if self.length_free:
            # A sum over all frames grows with their number, so it is scaled to that of the trained length.
            scale = self.frames / mask_BL1.sum(dim=1, keepdim=True).clamp(min=1)
        elif frames != self.frames:
            raise ValueError(
                f"window of {frames} frames, but the L x L weights were built for L = {self.frames} (A3); "
                "weights=relative and weights=lowrank run on any length"
            )
        # J = FC([X_a ; X_v ; X_t]); 003 has no FC
        joint_BLJ = self.fc(concatenated(features.x)) * mask_BL1  # 001 sec 3.2; 002 eq 1; 003 eq 1
        shared = Shared(joint_BLJ, mask_BL1, scale, self.released)
        attended: Modal = {}
        for m, x_BLD in features.x.items():
            stepped_BLD, corr = self.form.step(x_BLD, shared, self.maps_of(m, frames))
            attended[m] = stepped_BLD * mask_BL1
            # H[k] sums over the frames (or channels) i of the modality with C[i, k]: rows i are the keys.
            note_map(notes, self.form.correlation, (JOINT, m), corr.transpose(1, 2))
        return attended
