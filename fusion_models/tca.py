"""TCA: transformer cross-attention in both directions, then self-attention (000 Tab. 1): our reading [A13].

000 re-ran the cited system (Parthasarathy SLT'21) without equations. Each modality queries the other in one
transformer block, B x L x d_m; the concatenated outputs pass a self-attention layer. `+dca` gates between X_m and
the block outputs, before the concatenation. Read: 000 sec. 2 and 4, 004 sec. II, 002 sec. 2.

Legend: B batch, L frames, Z features of the readout.
"""

from torch import Tensor, nn

from crossfold.fusion_models.blocks.attention_maps import JOINT
from crossfold.fusion_models.blocks.recursion import Recursion
from crossfold.fusion_models.blocks.transformer import Block, TransformerParams, attention_context
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import Features, Modal, Notes, System, Trajectory, Widths, concatenated


class CrossBlocks(nn.Module):
    """X_att,m = Block(Q = X_m, KV = X_n), n the other modality."""

    def __init__(self, params: TransformerParams, widths: Widths) -> None:
        super().__init__()
        self.other = {"audio": "visual", "visual": "audio"}
        self.blocks = nn.ModuleDict({m: Block(d, widths[self.other[m]], params) for m, d in widths.items()})

    def forward(self, features: Features, notes: Notes | None = None) -> Modal:
        """Attended features, one B x L x d_m a modality."""
        x, mask_BL = features.x, features.mask_BL
        return {
            m: self.blocks[m](x[m], x[n], mask_BL, notes, (m, n)) * mask_BL.unsqueeze(-1) for m, n in self.other.items()
        }


class SelfReadout(nn.Module):
    """Z = Encoder([X_att,a ; X_att,v]): layers of self-attention blocks."""

    def __init__(self, params: TransformerParams, widths: Widths) -> None:
        super().__init__()
        self.width = sum(widths.values())
        self.blocks = nn.ModuleList(Block(self.width, self.width, params) for _ in range(params.layers))

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x (d_a + d_v)."""
        z_BLZ = concatenated(trajectory.x[-1])
        for layer, block in enumerate(self.blocks, start=1):
            z_BLZ = block(z_BLZ, z_BLZ, trajectory.mask_BL, notes, (JOINT, JOINT, str(layer)))
        return z_BLZ * trajectory.mask_BL.unsqueeze(-1)


TCA = register(
    System(
        name="tca",
        title="Transformer cross-attention",
        source="our reading of 000 Tab. 1 (Parthasarathy 2021)",
        equations="""\
X_att,a = Block(Q = X_a, KV = X_v)                        our reading (A13)
X_att,v = Block(Q = X_v, KV = X_a)                        Block = LayerNorm(x + MHA), LayerNorm(x + FFN)
Z = Block^layers([X_att,a ; X_att,v])                     self-attention""",
        bibtex=citation("parthasarathy2021detecting"),
        params=TransformerParams,
        attend=lambda params, widths, frames: Recursion(lambda: CrossBlocks(params, widths), 1),
        readout=lambda params, widths, steps: SelfReadout(params, widths),
        yields_pairs=True,
        context=attention_context,
    )
)
