"""CA: cross-attention between audio and visual (004 eqs 1-5; 000 sec 3B).

Departs from print: [A8] both maps are normalised column-wise over the L frames, at T_ca = 1.
"""

from crossfold.fusion_models.blocks.cross_attention import CrossAttention, CrossAttentionParams
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import Recursion
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import System

EQUATIONS = """\
Z_c = X_a' W X_v                                          004 eq 1     W : d_a x d_v, Z_c : L x L
A_a = softmax_i(Z_c / T_ca), A_v = softmax_i(Z_c' / T_ca) 004 eq 2     column-wise both
Xh_m = X_m A_m                                            004 eq 3     L x d_m
X_att,m = tanh(X_m + Xh_m)                                004 eqs 4-5  000: without tanh"""

CA = register(
    System(
        name="ca",
        title="Cross-attention",
        source="004 eqs 1-5",
        equations=f"{EQUATIONS}\nZ = [X_att,a ; X_att,v]",
        bibtex=citation("praveen2021ca"),
        params=CrossAttentionParams,
        attend=lambda params, widths, frames: Recursion(lambda: CrossAttention(params, widths), 1),
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
    )
)
