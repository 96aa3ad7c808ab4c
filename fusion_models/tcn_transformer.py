"""A TCN per modality, then a transformer encoder on the concatenation (Zhou et al., ABAW5): our reading.

The TCN here is part of the fusion; the encoder of a recipe comes before it. Read: sec. 3 of arXiv 2303.08356.
"""

from pydantic import Field
from torch import nn

from crossfold.fusion_models.blocks.recursion import Recursion
from crossfold.fusion_models.blocks.temporal import TCN
from crossfold.fusion_models.blocks.transformer import EncoderReadout, TransformerParams, attention_context
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import Features, Modal, Notes, System, Widths, combined, part
from crossfold.platform.core.base_model import MOST_LEVELS, MOST_WIDTH, FrozenModel
from crossfold.platform.core.recipe import Temporal


class TCNParams(FrozenModel):
    """Sizes of the TCNs inside the fusion."""

    tcn_levels: int = Field(2, ge=1, le=MOST_LEVELS)
    """Levels of each TCN before the transformer; level i has dilation 2^i."""
    tcn_kernel: int = Field(5, ge=2, le=MOST_WIDTH)
    """Taps of each convolution."""
    tcn_dropout: float = Field(0.1, ge=0, lt=1)
    """After each convolution."""


class ModalTCN(nn.Module):
    """X_m^(1) = TCN_m(X_m), causal, of the width of the modality."""

    def __init__(self, params: TCNParams, widths: Widths) -> None:
        super().__init__()
        levels, kernel, dropout = params.tcn_levels, params.tcn_kernel, params.tcn_dropout
        sizes = {m: Temporal(width=d, levels=levels, kernel=kernel, dropout=dropout) for m, d in widths.items()}
        self.tcns = nn.ModuleDict({m: TCN(widths[m], size) for m, size in sizes.items()})

    def forward(self, features: Features, notes: Notes | None = None) -> Modal:
        """One B x L x d_m a modality."""
        return {m: self.tcns[m](x) * features.mask_BL.unsqueeze(-1) for m, x in features.x.items()}


TCN_TRANSFORMER = register(
    System(
        name="tcn_transformer",
        title="TCN per modality, then a transformer",
        source="our reading of Zhou 2023",
        equations="""\
X_m^(1) = TCN_m(X_m)                                      our reading
Z = Encoder([X_a^(1) ; X_v^(1)])                          our reading""",
        bibtex=citation("zhou2023leveraging"),
        params=combined("TCNTransformerParams", TCNParams, TransformerParams),
        attend=lambda params, widths, frames: Recursion(lambda: ModalTCN(part(TCNParams, params), widths), 1),
        readout=lambda params, widths, steps: EncoderReadout(part(TransformerParams, params), widths),
        context=attention_context,
    )
)
