"""One iteration of joint cross-attention, the building block of jca, rjca, grjca, hgrjca and rjcma.

Legend: B batch, L (also i, k, l) frames of a window, D (also e) features of one modality, J joint features,
K hidden units of the additive form, or mapped frames.

Inside a step frames come first, so that a map of all frames is one product with contiguous factors.

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
from crossfold.fusion_models.kernels.tanh import tanh_of
from crossfold.fusion_models.system import Features, Modal, Notes, Widths, concatenated, zeroed
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
        self.squash = params.squash
        relu = nn.ReLU() if params.attended_relu else nn.Identity()
        self.attended = nn.Sequential(relu, Dropout(params.attended_dropout))

    def hidden(self, summed: Tensor) -> Tensor:
        """H = ReLU(S), or ReLU(tanh(S)). S is the result of a product or of a sum, and is not needed again."""
        return torch.relu(tanh_of(summed) if self.squash else summed)


class Linear(NamedTuple):
    """The weight of a linear map, and its bias, which belongs to the space of the second letter of the weight."""

    w: Tensor
    b: Tensor | None
    """None: the map has no bias, as printed."""


@dataclass(frozen=True)
class Shared:
    """What the modalities of a window share in one step."""

    joint_LBJ: Tensor
    joint_BLJ: Tensor
    """The same with the windows first."""
    mask_BL: Tensor
    scale_B11: Tensor | None
    """Of a sum over all frames, where weights fit any number of them."""
    released: Released


Step = Callable[[Tensor, Shared, list[Linear]], tuple[Tensor, Tensor]]
"""(X_m, what is shared, linear maps of the modality) -> (X_att,m, C_m)."""


def time_axis_step(x_LBD: Tensor, shared: Shared, maps: list[Linear]) -> tuple[Tensor, Tensor]:
    """Attended features L x B x D and correlation B x L x L of one modality.

    w_j : D x J, w_c : L x L, w_h : L x L. The papers write frames as columns, this code as rows: their X' is x_LBD.
    """
    w_j, w_c, w_h = maps
    root, joint_LBJ, x_BLD = math.sqrt(shared.joint_LBJ.shape[-1]), shared.joint_LBJ, x_LBD.transpose(0, 1)
    # C = tanh(X' W_j J / sqrt(d)), as X' (W_j J): J is at least as wide as X, so this order has fewer products
    query_BDL = nn.functional.linear(joint_LBJ, w_j.w / root).permute(1, 2, 0)
    if w_j.b is None:
        summed_BLL = torch.bmm(x_BLD, query_BDL)
    else:
        summed_BLL = torch.baddbmm((joint_LBJ @ (w_j.b / root)).t().unsqueeze(1), x_BLD, query_BDL)
    corr_BLL = tanh_of(summed_BLL)  # 001 eqs 1-2; 002 eqs 2-4
    if w_j.b is not None:
        corr_BLL = zeroed(corr_BLL, shared.mask_BL)  # a bias gives padded frames i a correlation, too
    # H = ReLU(X W_c C)
    value_BLD = _over_time(x_LBD, w_c).transpose(0, 1)
    summed_BLD = torch.bmm(shared.released.score(corr_BLL).transpose(1, 2), value_BLD)
    h_LBD = shared.released.hidden(_times(summed_BLD, shared.scale_B11)).transpose(0, 1)  # 001 eqs 3-4; 002 eqs 5-7
    # X_att = H W_h + X
    change_LBD = _over_time(h_LBD.contiguous(), w_h)
    return x_LBD + shared.released.attended(change_LBD), corr_BLL  # 001 eqs 5-8; 002 eqs 8-13


def feature_axis_step(x_LBD: Tensor, shared: Shared, maps: list[Linear]) -> tuple[Tensor, Tensor]:
    """Attended features L x B x D and correlation B x D x J of one modality.

    w_j : L x L, w_c : D x D, w_h : J x D (A2: read as rows, all of 003 fits but J's printed shape).
    """
    w_j, w_c, w_h = maps
    corr_BDJ = _channel_correlation(x_LBD, shared, w_j)
    # H = ReLU(X W_c C)
    value_BLD = nn.functional.linear(x_LBD, w_c.w.t(), w_c.b).transpose(0, 1)
    h_BLJ = shared.released.hidden(torch.bmm(value_BLD, shared.released.score(corr_BDJ)))  # 003 eqs 4-5
    # X_att = H W_h + X
    change_BLD = nn.functional.linear(h_BLJ, w_h.w.t(), w_h.b)
    # The frames come first in the sum, too, as they do in its first summand.
    return x_LBD + shared.released.attended(change_BLD).transpose(0, 1), corr_BDJ  # 003 eqs 6-9


def additive_step(x_LBD: Tensor, shared: Shared, maps: list[Linear]) -> tuple[Tensor, Tensor]:
    """Attended features L x B x D and correlation B x D x J of one modality, with an additive map [A7].

    w_j : L x L, w_x : L x K, w_c : J x K, w_h : K x L.
    """
    w_j, w_x, w_c, w_h = maps
    released = shared.released
    corr_BDJ = _channel_correlation(x_LBD, shared, w_j)
    # H = ReLU(W_a X + W_c C)
    of_x_BDK = _over_time(x_LBD, w_x).permute(1, 2, 0)
    of_corr_BDK = nn.functional.linear(released.score(corr_BDJ), w_c.w.t(), w_c.b)
    h_BDK = released.hidden(of_corr_BDK + of_x_BDK)  # first released JCA (A7)
    # X_att = W_h H + X
    change_BDL = nn.functional.linear(h_BDK, w_h.w.t(), w_h.b)
    return x_LBD + released.attended(change_BDL).permute(2, 0, 1), corr_BDJ  # first released JCA (A7)


def _channel_correlation(x_LBD: Tensor, shared: Shared, w_j: Linear) -> Tensor:
    # C = tanh(X' W_j J / sqrt(d))
    root = math.sqrt(shared.joint_LBJ.shape[-1])
    key_LBD = _over_time(x_LBD, Linear(w_j.w / root, None if w_j.b is None else w_j.b / root))
    key_BDL = packed(key_LBD.permute(1, 2, 0))
    summed_BDJ = torch.bmm(key_BDL, shared.joint_BLJ)
    return tanh_of(_times(summed_BDJ, shared.scale_B11))  # 003 eqs 2-3


def _over_time(x_LBD: Tensor, over: Linear) -> Tensor:
    """A map of frames, K x B x D: one product for all windows and features, as the frames come first."""
    mapped_KBD = torch.mm(over.w.t(), x_LBD.flatten(1)).view(-1, *x_LBD.shape[1:])
    return mapped_KBD if over.b is None else mapped_KBD + over.b.to(mapped_KBD.dtype)[:, None, None]


def packed(factor: Tensor) -> Tensor:
    """A factor of products; in bfloat16 a copy of a view, from which the CPU multiplies up to three times quicker."""
    return factor.contiguous() if factor.dtype == torch.bfloat16 else factor


def _times(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


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
        mask_BL = features.mask_BL
        frames = mask_BL.shape[1]
        scale_B11: Tensor | None = None
        if self.length_free:
            # A sum over all frames grows with their number, so it is scaled to that of the trained length.
            scale_B11 = self.frames / mask_BL.sum(dim=1).clamp(min=1)[:, None, None]
        elif frames != self.frames:
            raise ValueError(
                f"window of {frames} frames, but the L x L weights were built for L = {self.frames} (A3); "
                "weights=relative and weights=lowrank run on any length"
            )
        x = {m: x_BLD.transpose(0, 1).contiguous() for m, x_BLD in features.x.items()}
        # J = FC([X_a ; X_v ; X_t]); 003 has no FC
        joint_LBJ = zeroed(self.fc(concatenated(x)), mask_BL.t())  # 001 sec 3.2; 002 eq 1; 003 eq 1
        shared = Shared(joint_LBJ, packed(joint_LBJ.transpose(0, 1)), mask_BL, scale_B11, self.released)
        attended: Modal = {}
        for m, x_LBD in x.items():
            stepped_LBD, corr = self.form.step(x_LBD, shared, self.maps_of(m, frames))
            attended[m] = zeroed(stepped_LBD.transpose(0, 1), mask_BL)
            # H[k] sums over the frames (or channels) i of the modality with C[i, k]: rows i are the keys.
            note_map(notes, self.form.correlation, (JOINT, m), corr.transpose(1, 2))
        return attended
