"""From a trajectory [X^(0), ..., X^(M)] to Z: the last features, or gates between the iterations.

Legend: B batch, L frames, D features of one modality, K gate columns, Z features of all modalities.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.system import Modal, Notes, Widths, concatenated, note
from crossfold.platform.config import Strict


def gate(x_BLD: Tensor, w_DK: Tensor, temperature: float) -> Tensor:
    """G = softmax over columns of X W / T : B x L x K    # 000 eqs 2-3; 001 eqs 9-11, 14-16.

    [B1] X W in rows; [B3] the softmax runs over the K columns of each frame.
    """
    return torch.softmax(x_BLD @ w_DK / temperature, dim=-1)


def mix(gate_BLK: Tensor, candidates: list[Tensor], *, relu: bool) -> Tensor:
    """X_g = ReLU(sum_k G_k * X_k) : B x L x D    # 000 eqs 4-5; 001 eqs 12-13, 17-18."""
    stacked_BLDK = torch.stack(candidates, dim=-1)
    mixed_BLD = torch.einsum("blk,bldk->bld", gate_BLK, stacked_BLDK)
    return torch.relu(mixed_BLD) if relu else mixed_BLD


class GateParams(Strict):
    """Choices of a dynamic gate."""

    temperature: float = Field(0.1, gt=0)
    """B9: T = 0.1 as printed; a smaller T sharpens the choice."""
    relu: bool = True
    """B10: printed. It removes every negative feature value, so a gate wide open is not the base model."""


class LastReadout(nn.Module):
    """Z = [X_a^(M) ; X_v^(M)]: RJCA, RJCMA, and every system without a gate."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.width = sum(widths.values())

    def forward(self, trajectory: list[Modal], notes: Notes | None = None) -> Tensor:
        """Z : B x L x sum of d_m."""
        return concatenated(trajectory[-1])


class PairGate(nn.Module):
    """DCA on any base: unattended X^(0) against attended X^(M), per frame and modality (000 eqs 2-5).

    [B2] Column 0 is unattended, column 1 attended.
    """

    def __init__(self, params: GateParams, widths: Widths) -> None:
        super().__init__()
        self.params = params
        self.w = nn.ParameterDict({m: _gate_weights(d, 2) for m, d in widths.items()})
        self.width = sum(widths.values())

    def forward(self, trajectory: list[Modal], notes: Notes | None = None) -> Tensor:
        """Z = [X_g,a ; X_g,v] : B x L x sum of d_m."""
        unattended, attended = trajectory[0], trajectory[-1]
        gated: Modal = {}
        for m, x_BLD in attended.items():
            gate_BLK = gate(x_BLD, self.w[m], self.params.temperature)  # 000 eqs 2-3
            gated[m] = mix(gate_BLK, [unattended[m], x_BLD], relu=self.params.relu)  # 000 eqs 4-5
            note(notes, f"gate.{m}", gate_BLK)
        return concatenated(gated)


def _gate_weights(width: int, columns: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, columns)))
