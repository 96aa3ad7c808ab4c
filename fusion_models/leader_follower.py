"""Leader-follower attention: the modalities of one frame attend to each other, and vision leads (Zhang et al.).

This is our reading of arXiv 2107.01175 and of its published successor with text. Departs from the
release: weights start as torch's, not as ones; TCN widths and the batch norms behind the TCNs belong to the recipe.

Legend: B batch, L frames, N = B x L frames of a batch, M modalities of a frame, D features of one modality, H heads,
E features of a head, I those of query, key and value side by side, F follower features.
"""

from itertools import product
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.blocks.attention_maps import note_map
from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.blocks.transformer import attention
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import Notes, System, Trajectory, Widths
from crossfold.platform.core.base_model import MOST_WIDTH, FrozenModel


class LeaderFollowerParams(FrozenModel):
    """Sizes as released, and the modalities; vision is always among them, since it leads."""

    modalities: Literal["audio+visual", "visual+text", "audio+visual+text"] = "audio+visual"
    """Which enter the fusion; the visual one leads."""
    heads: int = Field(2, ge=1, le=MOST_WIDTH)
    """Attention heads."""
    head_width: int = Field(16, ge=1, le=MOST_WIDTH)
    """Width of each head."""
    follower_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout after the linear map of the followers."""


class LeaderFollower(nn.Module):
    """Z = [X_v ; LayerNorm(Dropout(W_o F + b))], F = [softmax(Q K' / sqrt(E)) V + V] over the modalities of a frame.

    W_q,m, W_k,m, W_v,m : d_m x HE, W_o : MHE x MHE.
    """

    def __init__(self, params: LeaderFollowerParams, widths: Widths) -> None:
        super().__init__()
        inner, self.heads = params.heads * params.head_width, params.heads
        self.qkv = nn.ModuleDict({m: nn.Linear(d, 3 * inner) for m, d in widths.items()})
        follower = inner * len(widths)
        self.out = nn.Sequential(
            nn.Linear(follower, follower), Dropout(params.follower_dropout), nn.LayerNorm(follower)
        )
        self.width = widths["visual"] + follower

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x (d_v + MHE). Frames do not see each other."""
        x, mask_BL1 = trajectory.x[-1], trajectory.mask_BL.unsqueeze(-1)
        batch, frames = trajectory.mask_BL.shape
        # One small sequence a frame: B x L frames become the batch N, the M modalities the sequence.
        tokens_BLMI = torch.stack([self.qkv[m](x_BLD) for m, x_BLD in x.items()], dim=2)
        tokens_NHMI = tokens_BLMI.reshape(batch * frames, len(x), self.heads, -1).transpose(1, 2)
        q_NHME, k_NHME, v_NHME = tokens_NHMI.chunk(3, dim=-1)
        seen_NMM = torch.ones(batch * frames, len(x), len(x), dtype=torch.bool, device=mask_BL1.device)
        read_NHME, weights_NHMM = attention(q_NHME, k_NHME, v_NHME, seen_NMM)
        for query, key in product(range(len(x)), repeat=2) if notes is not None else ():
            names = list(x)[query], list(x)[key]
            note_map(notes, "modal_attention", names, weights_NHMM[:, :, query, key].reshape(batch, frames, -1))
        # F = [softmax(Q K' / sqrt(E)) V + V], follower = LayerNorm(Dropout(W_o F + b))    release
        follower_BLF = self.out((read_NHME + v_NHME).transpose(1, 2).reshape(batch, frames, -1))
        return torch.cat([x["visual"], follower_BLF * mask_BL1], dim=-1)


LEADER_FOLLOWER = register(
    System(
        name="leader_follower",
        title="Leader-follower attention",
        source="our reading of Zhang 2021",
        equations="""\
Q_m, K_m, V_m = Linear_m(X_m)                             release  per frame, 2 heads of 16
F = [softmax_n(Q K' / sqrt(E)) V + V]                     release  over the modalities of the frame
Z = [X_v ; LayerNorm(Dropout(Linear(F)))]                 release  vision leads""",
        bibtex=citation("zhang2021continuous"),
        params=LeaderFollowerParams,
        readout=lambda params, widths, steps: LeaderFollower(params, widths),
        context=lambda params: 0,
    )
)
