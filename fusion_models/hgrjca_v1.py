"""HGRJCA of the first report, there named "GRJCA" (003 eqs 1-15).

[B11] The gates of hgrjca on another joint block: J = concat, feature axis, W_h from plain Xavier as 003 says.
Departs from print: [A2] 003's shapes read as rows, W_hv : d x d_v; [B6] G_a^(f) for audio, printed G_v;
[B7] G^(f) has no equation, and reads the ungated X^(M) as the public code of the second version does.
"""

from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.hgrjca import PARTS, hierarchical_attention, hierarchical_readout
from crossfold.fusion_models.system import System, combined

HGRJCA_V1 = register(
    System(
        name="hgrjca_v1",
        title="Hierarchical gated RJCA of the first report (there: GRJCA)",
        source="003 eqs 1-15",
        equations="""\
J^(t) = [X_a^(t-1) ; X_v^(t-1)]                           003 eq 1       L x d, no FC
C_m^(t) = tanh(X_m^(t-1)' W_jm^(t) J^(t) / sqrt(d))       003 eqs 2-3    W_jm : L x L, C_m : d_m x d
H_m^(t) = ReLU(X_m^(t-1) W_cm^(t) C_m^(t))                003 eqs 4-5    W_cm : d_m x d_m
X_m^(t) = H_m^(t) W_hm^(t) + X_m^(t-1), t = 1..M          003 eqs 6-9    W_hm : d x d_m
G_m^(t) = softmax_k(X_m^(t) W_gl,m^(t) / T)               003 eqs 10-11  W_gl,m : d_m x 2
X_g,m^(t) = ReLU(X_m^(t-1) * G_m^(t)[0] + X_m^(t) * G_m^(t)[1])          003 eqs 12-13
G_m^(f) = softmax_k(X_m^(M) W_f,m / T)                    release (B7)
X_f,m = ReLU(sum_t X_g,m^(t) * G_m^(f)[t]), t = 1..M      003 eqs 14-15
Z = [X_f,a ; X_f,v]""",
        bibtex=citation("praveen2025grjcav1"),
        params=combined("HGRJCAv1Params", *PARTS, axis="feature", joint="concat", gain=1.0),
        attend=hierarchical_attention,
        readout=hierarchical_readout,
        revision=2,
        space={"iterations": {"int": [1, 4]}, "temperature": {"log": [0.03, 3.0]}},
    )
)
