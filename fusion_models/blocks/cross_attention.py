"""Cross-attention of 004: each modality re-weighted over time by its correlation with the other.

Departs from print: [A8] both maps are normalised column-wise over the L frames.

Legend: B batch, L (rows i audio, columns j visual) frames, A audio features, V visual features, D either.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.blocks.attention_maps import note_map
from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.system import Features, Modal, Notes, Widths, is_whole, zeroed
from crossfold.platform.core.base_model import FrozenModel


def attention_weights(corr_BLL: Tensor, mask_BL: Tensor, temperature: float) -> Tensor:
    """A[i, j] = softmax over i of corr[i, j] / T : B x L x L (004 eq 2).

    [A8] Normalised over i for both modalities, as the text says; the printed denominators run over K.
    Padded frames i get no weight.
    """
    logits_BLL = corr_BLL / temperature
    if not is_whole(mask_BL):
        logits_BLL = logits_BLL.masked_fill(~mask_BL.unsqueeze(-1), -torch.inf)
    return torch.softmax(logits_BLL, dim=1)  # 004 eq 2


def attend(weights_BLL: Tensor, x_BLD: Tensor) -> Tensor:
    """Xh[j] = sum_i A[i, j] X[i] : B x L x D; printed as X A, with frames as columns."""
    return torch.einsum("bij,bid->bjd", weights_BLL, x_BLD)  # 004 eq 3; 000 eq 1


class CrossAttentionParams(FrozenModel):
    """Choices of CA."""

    residual: Literal["tanh", "sum"] = "tanh"
    """A9: tanh(X + Xh) in 004, X + Xh in 000."""
    attention_temperature: float = Field(1.0, gt=0)
    """A8: T_ca of 004 eq 2 has no printed value; released code uses 1."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the attended features; 004 says 0.5 for RECOLA."""


class CrossAttention(nn.Module):
    """One cross-attention block between audio and visual (004 eqs 1-5). w : A x V."""

    def __init__(self, params: CrossAttentionParams, widths: Widths) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(widths["audio"], widths["visual"]))
        self.temperature = params.attention_temperature
        self.tanh = params.residual == "tanh"
        self.dropout = Dropout(params.attention_dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, as 004 prints."""
        nn.init.xavier_uniform_(self.w)

    def forward(self, features: Features, notes: Notes | None = None, skips: Sequence[Modal] = ()) -> Modal:
        """X_att. `skips`: earlier features that are added to the residual."""
        x_BLA, x_BLV, mask_BL = features.x["audio"], features.x["visual"], features.mask_BL
        corr_BLL = torch.einsum("bia,av,bjv->bij", x_BLA, self.w, x_BLV)  # Z = X_a' W X_v, 004 eq 1
        attended: Modal = {}
        for m, other, logits_BLL in (("audio", "visual", corr_BLL), ("visual", "audio", corr_BLL.transpose(1, 2))):
            weights_BLL = attention_weights(logits_BLL, mask_BL, self.temperature)
            # A[i, j] reads frame i for the output at frame j, which the other modality chose: rows i are the keys.
            note_map(notes, "cross_attention", (other, m), weights_BLL.transpose(1, 2))
            summed_BLD = features.x[m] + attend(weights_BLL, features.x[m])  # X + Xh, 000 sec 3B
            for skip in skips:
                summed_BLD = summed_BLD + skip[m]
            attended_BLD = torch.tanh(summed_BLD) if self.tanh else summed_BLD  # 004 eqs 4-5
            attended[m] = zeroed(self.dropout(attended_BLD), mask_BL)
        return attended
