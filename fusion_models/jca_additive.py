"""JCA with an additive attention map, as first released (our reading of the cited CVPRW'22 paper and its code) [A7].

C_m compares channels, W_jm : L x L, C_m : d_m x d. H_m = ReLU(W_am X_m + W_cm C_m) with W_am : L x K, W_cm : d x K,
and X_att,m = W_hm H_m + X_m with W_hm : K x L; the release has K = 32. None of the five papers prints it.
"""

from typing import Literal

from pydantic import Field

from crossfold.fusion_models.blocks.joint_attention import JointAttention, JointAttentionParams
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import Recursion
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import ModalityParams, System, combined
from crossfold.platform.core.base_model import MOST_WIDTH, FrozenModel


class AdditiveParams(FrozenModel):
    """Choices of the additive form."""

    hidden: int = Field(32, ge=1, le=MOST_WIDTH)
    """K, as released."""
    joint: Literal["fc", "concat"] = "concat"
    """A4; the first JCA has the plain concatenation."""
    gain: float = Field(0.01, gt=0)
    """Gain of the Xavier initialisation of W_h, as in `jca`."""
    attention_bias: bool = False
    """A bias after each of W_j, W_a, W_c and W_h; not in the cited paper. It is zero before training."""


JCA_ADDITIVE = register(
    System(
        name="jca_additive",
        title="Joint cross-attention, additive map",
        source="our reading of the first JCA (A7)",
        equations="""\
J = [X_a ; X_v]                                           first JCA (A7)  L x d
C_m = tanh(X_m' W_jm J / sqrt(d))                         first JCA (A7)  W_jm : L x L, C_m : d_m x d
H_m = ReLU(W_am X_m + W_cm C_m)                           first JCA (A7)  W_am : L x K, W_cm : d x K
X_att,m = W_hm H_m + X_m                                  first JCA (A7)  W_hm : K x L
Z = [X_att,a ; X_att,v]""",
        bibtex=citation("praveen2022jca"),
        params=combined("JCAAdditiveParams", AdditiveParams, ModalityParams),
        attend=lambda params, widths, frames: Recursion(
            lambda: JointAttention(
                JointAttentionParams(joint=params.joint, gain=params.gain, attention_bias=params.attention_bias),
                widths,
                frames,
                additive=params.hidden,
            ),
            1,
        ),
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
    )
)
