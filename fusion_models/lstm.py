"""LSTM fusion: concatenated features to an LSTM, then fully connected layers (004 Tab. II).

Departs from print: sizes are not printed. The release declares 512 units in 2 layers with dropout 0.5; the default of
64 suits the small features of the embedded corpus.

Legend: B batch, L frames, Z features of the readout.
"""

from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.blocks.recurrent import Recurrent
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import WHOLE_PAST, Notes, System, Trajectory, Widths, concatenated
from crossfold.platform.core.base_model import MOST_LAYERS, MOST_WIDTH, FrozenModel


class LSTMParams(FrozenModel):
    """Sizes of the LSTM."""

    hidden: int = Field(64, ge=1, le=MOST_WIDTH)
    """512 as released."""
    lstm_layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Layers of the LSTM."""
    lstm_dropout: float = Field(0.5, ge=0, lt=1)
    """Between the layers."""


class RecurrentReadout(nn.Module):
    """Z = LSTM([X_a ; X_v]) : B x L x hidden."""

    def __init__(self, params: LSTMParams, widths: Widths) -> None:
        super().__init__()
        self.recurrent = Recurrent(
            sum(widths.values()), params.hidden, layers=params.lstm_layers, dropout=params.lstm_dropout
        )
        self.width = self.recurrent.width

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x hidden."""
        z_BLZ: Tensor = self.recurrent(concatenated(trajectory.x[-1]), trajectory.mask_BL)  # 004 Tab. II
        return z_BLZ


LSTM = register(
    System(
        name="lstm",
        title="LSTM on concatenated features",
        source="004 Tab. II",
        equations="Z = LSTM([X_a ; X_v])",
        bibtex=citation("praveen2021ca"),
        params=LSTMParams,
        readout=lambda params, widths, steps: RecurrentReadout(params, widths),
        context=lambda params: WHOLE_PAST,
    )
)
