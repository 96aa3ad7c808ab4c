"""Two stages of cross-attention (004 Tab. III, which cites Lee ICLR'21 and prints nothing): our reading [A12].

Stage 2 takes the attended features of stage 1, with a W of its own. `dense` adds the skips of the cited work,
X^(2) = tanh(X^(0) + X^(1) + Xh^(2)). Read: 004 sec. IV-D and the abstract of the cited work.
"""

from pydantic import Field

from crossfold.fusion_models.blocks.cross_attention import CrossAttention, CrossAttentionParams
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import Recursion
from crossfold.fusion_models.ca import EQUATIONS
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import System, combined, part
from crossfold.platform.core.base_model import MOST_LAYERS, FrozenModel


class StageParams(FrozenModel):
    """Choices of the stages."""

    stages: int = Field(2, ge=1, le=MOST_LAYERS)
    """Cross-attention blocks, one after the other, each with its own weights."""
    dense: bool = False
    """A12: skips from all earlier stages, the form of the cited work."""


CA_2STAGE = register(
    System(
        name="ca_2stage",
        title="Two-stage cross-attention",
        source="our reading of 004 Tab. III (Lee 2021)",
        equations=f"""\
{EQUATIONS}
X^(1) = CA^(1)(X), X^(2) = CA^(2)(X^(1))                  our reading (A12)  own W a stage
dense: X^(2) = tanh(X^(0) + X^(1) + Xh^(2))               the cited work
Z = [X_a^(2) ; X_v^(2)]""",
        bibtex=citation("lee2021cross"),
        params=combined("CA2StageParams", CrossAttentionParams, StageParams),
        attend=lambda params, widths, frames: Recursion(
            lambda: CrossAttention(part(CrossAttentionParams, params), widths), params.stages, dense=params.dense
        ),
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
    )
)
