"""Self-attention baseline (004 Tab. II, which cites Tzirakis 2021 and prints nothing): our reading [A15].

Per modality one scaled dot-product layer with a residual, then concatenation: intra-modal only, which is the
contrast that 004 draws. W_q, W_k, W_v : d_m x d_m. Read: 004 sec. IV-C and the abstract of the cited work.

Legend: B batch, L frames, D features of one modality.
"""

from torch import nn

from crossfold.fusion_models.baselines import NoParams
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.blocks.recursion import Recursion
from crossfold.fusion_models.blocks.transformer import MultiHead
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import Features, Modal, Notes, System, Widths


class SelfAttention(nn.Module):
    """X_att,m = X_m + softmax_j(Q_m K_m' / sqrt(d_m)) V_m, one head, no output map."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {m: MultiHead(d, d, heads=1, head_width=d, project=False) for m, d in widths.items()}
        )

    def forward(self, features: Features, notes: Notes | None = None) -> Modal:
        """Attended features, one B x L x d_m a modality."""
        mask_BL = features.mask_BL
        # X_att,m = X_m + softmax(Q K' / sqrt(d_m)) V
        return {
            m: (x + self.heads[m](x, x, mask_BL, notes, (m, m))) * mask_BL.unsqueeze(-1) for m, x in features.x.items()
        }


SELF_ATTENTION = register(
    System(
        name="self_attention",
        title="Self-attention per modality",
        source="our reading of 004 Tab. II (Tzirakis 2021)",
        equations="""\
X_att,m = X_m + softmax_j(Q_m K_m' / sqrt(d_m)) V_m       our reading (A15)  Q, K, V = Linear(d_m -> d_m)
Z = [X_att,a ; X_att,v]""",
        bibtex=citation("tzirakis2021end"),
        params=NoParams,
        attend=lambda params, widths, frames: Recursion(lambda: SelfAttention(widths), 1),
        readout=lambda params, widths, steps: LastReadout(widths),
    )
)
