"""Leader-follower attention: the modalities of one frame attend to each other, and vision leads (Zhang et al.).

This is our reading of arXiv 2107.01175 and of its published successor with text (facts in spec 1.15). Departs from the
release: weights start as torch's, not as ones; TCN widths and the batch norms behind the TCNs belong to the recipe.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.blocks.transformer import attention
from crossfold.fusion_models.catalogue import register
from crossfold.fusion_models.system import Notes, System, Trajectory, Unattended, Widths, note
from crossfold.platform.config import Strict

BIBTEX = """\
@inproceedings{zhang2021continuous,
  title     = {Continuous Emotion Recognition with Audio-visual Leader-follower Attentive Fusion},
  author    = {Zhang, Su and Ding, Yi and Wei, Ziquan and Guan, Cuntai},
  booktitle = {IEEE/CVF International Conference on Computer Vision Workshops (ICCVW)},
  pages     = {3567--3574},
  year      = {2021}
}"""


class LeaderFollowerParams(Strict):
    """Sizes as released, and the modalities; vision is always among them, since it leads."""

    modalities: Literal["audio+visual", "visual+text", "audio+visual+text"] = "audio+visual"
    heads: int = Field(2, ge=1)
    head_width: int = Field(16, ge=1)
    follower_dropout: float = Field(0.1, ge=0, lt=1)


class LeaderFollower(nn.Module):
    """Z = [X_v ; LayerNorm(Dropout(W_o F + b))], F = [softmax(Q K' / sqrt(E)) V + V] over the modalities of a frame.

    W_q,m, W_k,m, W_v,m : d_m x HE, W_o : nHE x nHE, n modalities.
    """

    def __init__(self, params: LeaderFollowerParams, widths: Widths) -> None:
        super().__init__()
        inner, self.heads = params.heads * params.head_width, params.heads
        self.qkv = nn.ModuleDict({m: nn.Linear(d, 3 * inner) for m, d in widths.items()})
        follower = inner * len(widths)
        self.out = nn.Sequential(
            nn.Linear(follower, follower), nn.Dropout(params.follower_dropout), nn.LayerNorm(follower)
        )
        self.width = widths["visual"] + follower

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x (d_v + nHE). Frames do not see each other."""
        x, mask_BL1 = trajectory.x[-1], trajectory.mask_BL.unsqueeze(-1)
        batch, frames = trajectory.mask_BL.shape
        # One small sequence a frame: B x L frames become the batch N, the modalities the sequence.
        tokens = torch.stack([self.qkv[m](x_BLD) for m, x_BLD in x.items()], dim=2)
        heads_NHnE = tokens.reshape(batch * frames, len(x), self.heads, -1).transpose(1, 2)
        q, k, v = heads_NHnE.chunk(3, dim=-1)
        all_seen = torch.ones(batch * frames, len(x), len(x), dtype=torch.bool, device=mask_BL1.device)
        read, weights = attention(q, k, v, all_seen)
        note(notes, "attention.modalities", weights.reshape(batch, frames, *weights.shape[1:]))
        follower = self.out((read + v).transpose(1, 2).reshape(batch, frames, -1))
        return torch.cat([x["visual"], follower * mask_BL1], dim=-1)


LEADER_FOLLOWER = register(
    System(
        name="leader_follower",
        title="Leader-follower attention",
        source="our reading of Zhang 2021 (spec 1.15)",
        equations="""\
Q_m, K_m, V_m = Linear_m(X_m)                             release  per frame, 2 heads of 16
F = [softmax_n(Q K' / sqrt(E)) V + V]                     release  over the modalities of the frame
Z = [X_v ; LayerNorm(Dropout(Linear(F)))]                 release  vision leads""",
        bibtex=BIBTEX,
        modalities=("audio", "visual"),
        params=LeaderFollowerParams,
        attend=lambda params, widths, frames: Unattended(),
        readout=lambda params, widths, steps: LeaderFollower(params, widths),
        context=lambda params: 0,
    )
)
