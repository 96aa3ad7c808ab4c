"""CA: cross-attention between audio and visual (004 eqs 1-5; 000 sec 3B).

Departs from print: [A8] both maps are normalised column-wise over the L frames, at T_ca = 1.
"""

from typing import Literal

from pydantic import Field

from crossfold.fusion_models.baselines import BIBTEX
from crossfold.fusion_models.blocks.cross_attention import CrossAttention
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.catalogue import register
from crossfold.fusion_models.system import System
from crossfold.platform.config import Strict


class CAParams(Strict):
    """Choices of CA."""

    residual: Literal["tanh", "sum"] = "tanh"
    """A9: tanh(X + Xh) in 004, X + Xh in 000."""
    attention_temperature: float = Field(1.0, gt=0)
    """A8: T_ca of 004 eq 2 has no printed value; released code uses 1."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the attended features; 004 says 0.5 for RECOLA."""


CA = register(
    System(
        name="ca",
        title="Cross-attention",
        source="004 eqs 1-5",
        equations="""\
Z_c = X_a' W X_v                                          004 eq 1     W : d_a x d_v, Z_c : L x L
A_a = softmax_i(Z_c / T_ca), A_v = softmax_i(Z_c' / T_ca) 004 eq 2     column-wise both
Xh_m = X_m A_m                                            004 eq 3     L x d_m
X_att,m = tanh(X_m + Xh_m)                                004 eqs 4-5  000: without tanh
Z = [X_att,a ; X_att,v]""",
        bibtex=BIBTEX,
        modalities=("audio", "visual"),
        params=CAParams,
        attend=lambda params, widths, frames: CrossAttention(
            widths["audio"],
            widths["visual"],
            temperature=params.attention_temperature,
            tanh=params.residual == "tanh",
            dropout=params.attention_dropout,
        ),
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
    )
)
