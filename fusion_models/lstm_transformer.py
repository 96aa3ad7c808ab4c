"""LSTM and transformer encoders on concatenated features (Meng et al., ABAW3): our reading.

The cited work encodes the concatenated features by an LSTM or by a transformer encoder and averages an ensemble of
both. Here both run side by side in one model, Z = [LSTM ; encoder], and the head weighs them. Read: sec. 3 of
arXiv 2203.13032 and the rows of 000-002.
"""

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.transformer import EncoderReadout, TransformerParams
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.lstm import LSTMParams, RecurrentReadout
from crossfold.fusion_models.system import WHOLE_PAST, Notes, System, Trajectory, Widths, combined, part
from crossfold.platform.core.base_model import FrozenModel


class SideBySide(nn.Module):
    """Z = [LSTM(S) ; Encoder(S)], S = [X_a ; X_v]."""

    def __init__(self, params: FrozenModel, widths: Widths) -> None:
        super().__init__()
        self.recurrent = RecurrentReadout(part(LSTMParams, params), widths)
        self.encoder = EncoderReadout(part(TransformerParams, params), widths)
        self.width = self.recurrent.width + self.encoder.width

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x (hidden + width)."""
        return torch.cat([self.recurrent(trajectory, notes), self.encoder(trajectory, notes)], dim=-1)


LSTM_TRANSFORMER = register(
    System(
        name="lstm_transformer",
        title="LSTM and transformer side by side",
        source="our reading of Meng 2022",
        equations="""\
S = [X_a ; X_v]                                           our reading
Z = [LSTM(S) ; Encoder(S)]                                our reading  the cited work averages models of either""",
        bibtex=citation("meng2022multimodal"),
        params=combined("LSTMTransformerParams", LSTMParams, TransformerParams),
        readout=lambda params, widths, steps: SideBySide(params, widths),
        context=lambda params: WHOLE_PAST if params.causal else None,
    )
)
