"""RJCMA: recursive joint cross-modal attention over audio, visual and text (002 eqs 1-14).

RJCA with a third modality: without text it is `rjca`. Departs from print: [A5] own weights per iteration;
[A6] M = 3 as printed, 2 as released. `variant: released` is G4a and G8.
"""

from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import JOINT_PARTS, RELEASED_JOINT, recursive_joint_attention
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import System, combined

RELEASED = (*RELEASED_JOINT, ("input_norm", "none"), ("joint", "concat"), ("iterations", 2))
"""G4a: the code of 002 does not normalise its features, and its FC of J reaches nothing."""

RJCMA = register(
    System(
        name="rjcma",
        title="Recursive joint cross-modal attention",
        source="002 eqs 1-14",
        equations="""\
J^(t) = FC^(t)([X_a^(t-1) ; X_v^(t-1) ; X_t^(t-1)])       002 eq 1       L x d
C_m^(t) = tanh(X_m^(t-1)' W_jm^(t) J^(t) / sqrt(d))       002 eqs 2-4    m in a, v, t; W_jm : d_m x d, C_m : L x L
H_m^(t) = ReLU(X_m^(t-1) W_cm^(t) C_m^(t))                002 eqs 5-7    W_cm : L x L
X_m^(t) = H_m^(t) W_hm^(t) + X_m^(t-1), t = 1..M          002 eqs 8-13   W_hm : L x L
Z = [X_a^(M) ; X_v^(M) ; X_t^(M)]                         002 eq 14""",
        bibtex=citation("praveen2024rjcma"),
        modalities=("audio", "visual", "text"),
        params=combined("RJCMAParams", *JOINT_PARTS, released=RELEASED, modalities="audio+visual+text"),
        attend=recursive_joint_attention,
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
        space={"iterations": {"int": [1, 4]}},
        released=RELEASED,
    )
)
