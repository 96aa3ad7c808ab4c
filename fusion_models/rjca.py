"""RJCA: joint cross-attention applied recursively (001 eqs 1-8; 003 eqs 1-9).

Departs from print: [A5] W_j, W_c and the FC of J are own per iteration (only W_h is printed with a superscript);
[A14] fusion only, the LSTMs of the cited RJCA are encoder choices of a recipe; [A3] L is fixed by the L x L weights.
"""

from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import JOINT_PARTS, RELEASED_JOINT, recursive_joint_attention
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import System, combined

RECURSION = """\
J^(t) = FC^(t)([X_a^(t-1) ; X_v^(t-1)])                   001 sec 3.2  L x d
C_m^(t) = tanh(X_m^(t-1)' W_jm^(t) J^(t) / sqrt(d))       001 eqs 1-2  W_jm : d_m x d, C_m : L x L
H_m^(t) = ReLU(X_m^(t-1) W_cm^(t) C_m^(t))                001 eqs 3-4  W_cm : L x L
X_m^(t) = H_m^(t) W_hm^(t) + X_m^(t-1), t = 1..M          001 eqs 7-8  W_hm : L x L"""

RELEASED = (*RELEASED_JOINT, ("iterations", 1))
"""G2d: the released RJCA does not recur."""

RJCA = register(
    System(
        name="rjca",
        title="Recursive joint cross-attention",
        source="001 eqs 1-8",
        equations=f"{RECURSION}\nZ = [X_a^(M) ; X_v^(M)]",
        bibtex=citation("praveen2023rjca"),
        params=combined("RJCAParams", *JOINT_PARTS, released=RELEASED),
        released=RELEASED,
        attend=recursive_joint_attention,
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
        space={"iterations": {"int": [1, 4]}},
    )
)
