"""GRJCA: one gate over the features of all iterations of RJCA (001 eqs 9-13).

Departs from print: [B4] the gate reads the last iteration, as the equations say; [B5] the summand of eqs 12-13 is
X_att^(t), with X^(0) the input. With one iteration this is jca+dca (B13). `variant: released` is the public code (G7).
"""

from crossfold.fusion_models.blocks.gates import GateParams
from crossfold.fusion_models.blocks.readout import FlatGate, FlatGateParams
from crossfold.fusion_models.blocks.recursion import JOINT_PARTS, RELEASED_JOINT, recursive_joint_attention
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.rjca import RECURSION
from crossfold.fusion_models.system import System, combined, part

RELEASED = (*RELEASED_JOINT, ("iterations", 2), ("gate_bias", True))
"""G7: one softmax over X^(0), X^(1), X^(2), whose logits come from X^(2), as printed for M = 2."""

GRJCA = register(
    System(
        name="grjca",
        title="Gated recursive joint cross-attention",
        source="001 eqs 9-13",
        equations=f"""\
{RECURSION}
W_go,m = X_m^(M) W_gl,m                                   001 eqs 9-10  W_gl,m : d_m x (M + 1)
G_m = softmax_k(W_go,m / T)                               001 eq 11     L x (M + 1), T = 0.1
X_g,m = ReLU(sum_t X_m^(t) * G_m[t]), t = 0..M            001 eqs 12-13
Z = [X_g,a ; X_g,v]""",
        bibtex=citation("praveen2025grjca"),
        params=combined("GRJCAParams", *JOINT_PARTS, GateParams, FlatGateParams, released=RELEASED),
        released=RELEASED,
        attend=recursive_joint_attention,
        readout=lambda params, widths, steps: FlatGate(
            part(GateParams, params), part(FlatGateParams, params), widths, steps
        ),
        space={"iterations": {"int": [1, 4]}, "temperature": {"log": [0.03, 3.0]}},
    )
)
