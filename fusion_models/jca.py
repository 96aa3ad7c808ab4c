"""JCA: joint cross-attention, one iteration (001 eqs 1-6; 003 eqs 1-7).

Departs from print: [A7] 001 and 002 call one recursion "the same as joint cross-attention", so `jca` is one JCB;
the additive map of the first release is another system. [A3] L is fixed by the L x L weights.
"""

from crossfold.fusion_models.blocks.joint_attention import JointAttentionParams
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import RELEASED_JOINT, InputParams, single_joint_attention
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import ModalityParams, System, combined

EQUATIONS = """\
J = FC([X_a ; X_v])                                       001 sec 3.2  L x d
C_m = tanh(X_m' W_jm J / sqrt(d))                         001 eqs 1-2  W_jm : d_m x d, C_m : L x L
H_m = ReLU(X_m W_cm C_m)                                  001 eqs 3-4  W_cm : L x L
X_att,m = H_m W_hm + X_m                                  001 eqs 5-6  W_hm : L x L
Z = [X_att,a ; X_att,v]"""

JCA = register(
    System(
        name="jca",
        title="Joint cross-attention",
        source="001 eqs 1-6",
        equations=EQUATIONS,
        bibtex=citation("praveen2022jca"),
        params=combined("JCAParams", JointAttentionParams, ModalityParams, InputParams, released=RELEASED_JOINT),
        released=RELEASED_JOINT,
        attend=single_joint_attention,
        readout=lambda params, widths, steps: LastReadout(widths),
        yields_pairs=True,
    )
)
