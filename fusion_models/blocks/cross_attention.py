"""Cross-attention of 004: each modality re-weighted over time by its correlation with the other.

Legend: B batch, L (rows i audio, columns j visual) frames, A audio features, V visual features, D either.
"""

import torch
from torch import Tensor, nn

from crossfold.fusion_models.system import Features, Modal, Notes, note


def attention_weights(corr_BLL: Tensor, mask_BL: Tensor, temperature: float) -> Tensor:
    """A[i, j] = softmax over i of corr[i, j] / T : B x L x L    # 004 eq 2.

    [A8] Normalised over i for both modalities, as the text says; the printed denominators run over K.
    Padded frames i get no weight.
    """
    logits_BLL = (corr_BLL / temperature).masked_fill(~mask_BL.unsqueeze(-1), -torch.inf)
    return torch.softmax(logits_BLL, dim=1)


def attend(weights_BLL: Tensor, x_BLD: Tensor) -> Tensor:
    """Xh[j] = sum_i A[i, j] X[i] : B x L x D    # 004 eq 3; 000 eq 1, printed X A with columns."""
    return torch.einsum("bij,bid->bjd", weights_BLL, x_BLD)


class CrossAttention(nn.Module):
    """One cross-attention block between audio and visual (004 eqs 1-5)."""

    steps = 1

    def __init__(self, audio: int, visual: int, *, temperature: float, tanh: bool, dropout: float) -> None:
        super().__init__()
        self.w = nn.Parameter(nn.init.xavier_uniform_(torch.empty(audio, visual)))
        self.temperature = temperature
        self.tanh = tanh
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Features, notes: Notes | None = None) -> list[Modal]:
        """The trajectory [X, X_att]."""
        x_BLA, x_BLV, mask_BL = features.x["audio"], features.x["visual"], features.mask_BL
        corr_BLL = torch.einsum("bia,av,bjv->bij", x_BLA, self.w, x_BLV)  # Z = X_a' W X_v  # 004 eq 1
        weights_a_BLL = attention_weights(corr_BLL, mask_BL, self.temperature)
        weights_v_BLL = attention_weights(corr_BLL.transpose(1, 2), mask_BL, self.temperature)
        note(notes, "attention.audio", weights_a_BLL)
        note(notes, "attention.visual", weights_v_BLL)
        attended = {
            "audio": self._residual(x_BLA, attend(weights_a_BLL, x_BLA)),
            "visual": self._residual(x_BLV, attend(weights_v_BLL, x_BLV)),
        }
        return [features.x, {m: x * mask_BL.unsqueeze(-1) for m, x in attended.items()}]

    def _residual(self, x_BLD: Tensor, map_BLD: Tensor) -> Tensor:
        # X_att = X + Xh (000 sec 3B), or tanh(X + Xh) (004 eqs 4-5)
        attended_BLD = torch.tanh(x_BLD + map_BLD) if self.tanh else x_BLD + map_BLD
        dropped: Tensor = self.dropout(attended_BLD)
        return dropped
