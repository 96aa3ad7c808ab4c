"""Gates: a weight of each candidate feature set, for each frame and modality.

Legend: B batch, L frames, D features of one modality, K candidates (the columns of a gate).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.system import Features, Modal, Notes, Widths, note, widened
from crossfold.platform.core.base_model import FrozenModel


def gate(logits_BLK: Tensor, temperature: float) -> Tensor:
    """G = softmax over columns of Y / T : B x L x K. [B3] The softmax runs over the K columns of each frame."""
    return torch.softmax(widened(logits_BLK) / temperature, dim=-1)  # 000 eq 3; 001 eqs 11, 16; 003 eq 11


def mix(gate_BLK: Tensor, candidates: Sequence[Tensor], *, relu: bool) -> Tensor:
    """X_g = ReLU(sum_k G_k * X_k) : B x L x D."""
    gate_BLK = gate_BLK.to(candidates[0].dtype)
    mixed_BLD = gate_BLK[..., :1] * candidates[0]
    for k in range(1, len(candidates)):
        mixed_BLD = torch.addcmul(mixed_BLD, gate_BLK[..., k : k + 1], candidates[k])
    return torch.relu(mixed_BLD) if relu else mixed_BLD  # 000 eqs 4-5; 001 eqs 12-13, 17-20; 003 eqs 12-15


class GateParams(FrozenModel):
    """Choices of a dynamic gate."""

    temperature: float = Field(0.1, gt=0)
    """B9: T = 0.1 as printed; a smaller T sharpens the choice."""
    relu: bool = True
    """B10: as printed. It removes every negative value, so an open gate does not give the base model."""
    gate_bias: bool = False
    """A bias on the gate logits, as released (G2d); not printed."""


class ModalGate(nn.Module):
    """X_g,m = ReLU(sum_k softmax_k(X_m W_gl,m / T) * X_k,m), with weights of its own per modality.

    W_gl,m : D x K; D is the width of what the gate reads. [B1] X W in rows.
    """

    def __init__(self, params: GateParams, widths: Widths, columns: int) -> None:
        super().__init__()
        self.params = params
        self.w = nn.ParameterDict({m: nn.Parameter(torch.empty(d, columns)) for m, d in widths.items()})
        biased = widths if params.gate_bias else {}
        self.bias = nn.ParameterDict({m: nn.Parameter(torch.zeros(columns)) for m in biased})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier; biases stay zero."""
        for w_DK in self.w.values():
            nn.init.xavier_uniform_(w_DK)

    def forward(self, read: Sequence[Modal], candidates: Sequence[Modal], notes: Notes | None, name: str) -> Modal:
        """Gated features. `read`: the features behind the logits, one set for all columns or one a column."""
        gated: Modal = {}
        for m in candidates[0]:  # canonical order; a ParameterDict sorts its names
            w_DK = self.w[m]
            if len(read) == 1:
                logits_BLK = read[0][m] @ w_DK  # 000 eq 2; 001 eqs 9-10, 14-15; 003 eq 10
            else:
                logits_BLK = torch.stack([x[m] @ w_D for x, w_D in zip(read, w_DK.unbind(dim=1), strict=True)], dim=-1)
            if m in self.bias:
                logits_BLK = logits_BLK + self.bias[m]
            gate_BLK = gate(logits_BLK, self.params.temperature)
            gated[m] = mix(gate_BLK, [x[m] for x in candidates], relu=self.params.relu)
            note(notes, f"{name}.{m}", gate_BLK)
        return gated


class GatedBlock(nn.Module):
    """A block whose output is gated against its input, so that the recursion goes on from gated features (B8)."""

    roles: ClassVar = {"block": ""}

    def __init__(self, block: nn.Module, params: GateParams, widths: Widths) -> None:
        super().__init__()
        self.block = block
        self.gate = ModalGate(params, widths, 2)

    def forward(self, features: Features, notes: Notes | None = None) -> Modal:
        """X_g^(t), gated between the input and the output of the block (001 eqs 14-18)."""
        attended = self.block(features, notes)
        gated: Modal = self.gate([attended], [features.x, attended], notes, "gate")
        return gated
