"""HGRJCA: a gate at every iteration and one above them (001 eqs 14-20).

Departs from print: [B6] G_a^(f) for audio, printed G_v; [B7] G^(f) has no equation, and reads the ungated X^(M) as the
public code of 001 does; [B8] the gates are a side branch of the recursion. `variant: released` is that code (G7).
"""

from functools import partial

from torch import nn

from crossfold.fusion_models.blocks.gates import GatedBlock, GateParams
from crossfold.fusion_models.blocks.readout import FinalGate, HierarchicalGate, HierarchyParams
from crossfold.fusion_models.blocks.recursion import JOINT_PARTS, RELEASED_JOINT, recursive_joint_attention
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.rjca import RECURSION
from crossfold.fusion_models.system import System, Widths, combined, part
from crossfold.platform.core.base_model import FrozenModel

PARTS = (*JOINT_PARTS, GateParams, HierarchyParams)
GATES = """\
G_m^(t) = softmax_k(X_m^(t) W_gl,m^(t) / T)               001 eqs 14-16  W_gl,m : d_m x 2, T = 0.1
X_g,m^(t) = ReLU(X_m^(t-1) * G_m^(t)[0] + X_m^(t) * G_m^(t)[1])          001 eqs 17-18
G_m^(f) = softmax_k(X_m^(M) W_f,m / T)                    release (B7)   W_f,m : d_m x M
X_f,m = ReLU(sum_t X_g,m^(t) * G_m^(f)[t]), t = 1..M      001 eqs 19-20
Z = [X_f,a ; X_f,v]"""

RELEASED = (
    *RELEASED_JOINT,
    ("iterations", 2),
    ("gate_bias", True),
    ("stage_gate", "all_before"),
    ("final_gate_input", "attended"),
)
"""G7: the gate of stage 2 has the three columns X^(0), X^(1), X^(2), not the printed pair."""


def hierarchical_attention(params: FrozenModel, widths: Widths, frames: int) -> nn.Module:
    """M iterations of joint cross-attention, gated inside the recursion with `feedback` only."""
    if not part(HierarchyParams, params).feedback:
        return recursive_joint_attention(params, widths, frames)
    gated = partial(GatedBlock, params=part(GateParams, params), widths=widths)
    return recursive_joint_attention(params, widths, frames, around=gated)


def hierarchical_readout(params: FrozenModel, widths: Widths, steps: int) -> nn.Module:
    """Both levels of gates, or the high-level one where `feedback` has the others in the recursion."""
    gates, hierarchy = part(GateParams, params), part(HierarchyParams, params)
    kind = FinalGate if hierarchy.feedback else HierarchicalGate
    return kind(gates, hierarchy, widths, steps)


HGRJCA = register(
    System(
        name="hgrjca",
        title="Hierarchical gated recursive joint cross-attention",
        source="001 eqs 14-20",
        equations=f"{RECURSION}\n{GATES}",
        bibtex=citation("praveen2025grjca"),
        params=combined("HGRJCAParams", *PARTS, released=RELEASED),
        released=RELEASED,
        attend=hierarchical_attention,
        readout=hierarchical_readout,
        revision=2,
        space={"iterations": {"int": [1, 4]}, "temperature": {"log": [0.03, 3.0]}},
    )
)
