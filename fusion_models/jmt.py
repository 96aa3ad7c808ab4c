"""JMT: joint multimodal transformer (Waligora et al., ETS-LIVIA): our reading.

A joint token J = FC([X_a ; X_v]) joins the two modalities; each of the three is encoded by itself and queries the
other two, and the six results are concatenated and mapped. Departs from the cited work: sizes; positions are added.
Read: the abstract of arXiv 2403.10488 and the published code of the form without J.

Legend: B batch, L frames, D features of one modality, Z features of the readout.
"""

from itertools import permutations

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.transformer import Encoder, MultiHead, TransformerParams, attention_context
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import Notes, System, Trajectory, Widths, concatenated


class JointTransformer(nn.Module):
    """Z = FC([MHA(E_m, E_n) for each ordered pair of audio, visual, joint]), E_m = Encoder_m(X_m)."""

    def __init__(self, params: TransformerParams, widths: Widths) -> None:
        super().__init__()
        joint_width = sum(widths.values())
        self.joint = nn.Linear(joint_width, joint_width)
        tokens = {**widths, "joint": joint_width}
        self.encoders = nn.ModuleDict({m: Encoder(d, params) for m, d in tokens.items()})
        self.width = params.heads * params.head_width
        self.cross = nn.ModuleDict(
            {
                f"{m}_{n}": MultiHead(
                    self.width, self.width, heads=params.heads, head_width=params.head_width, causal=params.causal
                )
                for m, n in permutations(tokens, 2)
            }
        )
        self.out = nn.Linear(self.width * len(self.cross), self.width)

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x width."""
        x, mask_BL = trajectory.x[-1], trajectory.mask_BL
        tokens = {**x, "joint": self.joint(concatenated(x))}  # J = FC([X_a ; X_v])
        encoded = {m: self.encoders[m](x_BLD, mask_BL, notes, m) for m, x_BLD in tokens.items()}
        crossed = [
            self.cross[f"{m}_{n}"](encoded[m], encoded[n], mask_BL, notes, (m, n)) for m, n in permutations(tokens, 2)
        ]
        z_BLZ: Tensor = self.out(torch.cat(crossed, dim=-1)) * mask_BL.unsqueeze(-1)  # Z = FC([C_mn])
        return z_BLZ


JMT = register(
    System(
        name="jmt",
        title="Joint multimodal transformer",
        source="our reading of Waligora 2024",
        equations="""\
J = FC([X_a ; X_v])                                       our reading
E_m = Encoder_m(X_m), m in a, v, j                        our reading  X_j = J
C_mn = MHA(Q = E_m, KV = E_n), m != n                     our reading  six of them
Z = FC([C_mn])                                            our reading""",
        bibtex=citation("waligora2024joint"),
        params=TransformerParams,
        readout=lambda params, widths, steps: JointTransformer(params, widths),
        context=attention_context,
    )
)
