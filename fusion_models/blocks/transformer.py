"""Scaled dot-product attention and the transformer block around it, with masks.

Legend: B batch, L (also q) frames of the queries, K (also k) frames of the memory, H heads, E features of a head,
D features of the queries, M features of the memory, I features of all heads, Z features of the readout.
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from crossfold.fusion_models.blocks.attention_maps import JOINT, note_map
from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.system import WHOLE_PAST, Notes, Trajectory, Widths, concatenated, zeroed
from crossfold.platform.core.base_model import MOST_LAYERS, MOST_WIDTH, FrozenModel


class TransformerParams(FrozenModel):
    """Sizes of a transformer; no paper prints them for these systems, so the defaults are choices."""

    heads: int = Field(4, ge=1, le=MOST_WIDTH)
    """Attention heads of a layer."""
    head_width: int = Field(16, ge=1, le=MOST_WIDTH)
    """E; the width inside is heads x head_width."""
    feedforward: int = Field(128, ge=1, le=MOST_WIDTH)
    """Width of the hidden layer of each feed-forward part."""
    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Layers of each transformer."""
    transformer_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout inside the transformer layers."""
    causal: bool = False
    """Frames see the past only, so that predictions can be streamed; in no paper."""


def attention_context(params: TransformerParams) -> float | None:
    """Past frames that a row depends on (see `System.context`)."""
    return WHOLE_PAST if params.causal else None


def attention(q_BHLE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, seen_BLK: Tensor) -> tuple[Tensor, Tensor]:
    """softmax_k(Q K' / sqrt(E)) V : B x H x L x E, and the weights B x H x L x K. Unseen frames get no weight."""
    logits_BHLK = torch.einsum("bhqe,bhke->bhqk", q_BHLE, k_BHKE) / math.sqrt(q_BHLE.shape[-1])
    weights_BHLK = torch.softmax(logits_BHLK.masked_fill(~seen_BLK.unsqueeze(1), -torch.inf), dim=-1)  # Vaswani eq 1
    return torch.einsum("bhqk,bhke->bhqe", weights_BHLK, v_BHKE), weights_BHLK


class MultiHead(nn.Module):
    """[head_1 ; ... ; head_H] W_o, head_h = softmax(Q_h K_h' / sqrt(E)) V_h.

    W_q : D x HE, W_k and W_v : M x HE, W_o : HE x D. A bias on K cancels in the softmax, so K has none.
    """

    def __init__(
        self, width: int, memory: int, *, heads: int, head_width: int, causal: bool = False, project: bool = True
    ) -> None:
        """`project`: whether there is W_o; without, the result has heads x head_width features."""
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.causal = causal
        self.q = nn.Linear(width, inner)
        self.k = nn.Linear(memory, inner, bias=False)
        self.v = nn.Linear(memory, inner)
        self.o = nn.Linear(inner, width) if project else nn.Identity()

    def forward(
        self, x_BLD: Tensor, memory_BKM: Tensor, mask_BK: Tensor, notes: Notes | None, axes: tuple[str, ...]
    ) -> Tensor:
        """B x L x D. `mask_BK`: the real frames of the memory; `axes`: (query, key) names, for the notes."""
        queries, frames = x_BLD.shape[1], memory_BKM.shape[1]
        seen_BLK = mask_BK.unsqueeze(1).expand(-1, queries, -1)
        if self.causal:
            seen_BLK = seen_BLK & torch.ones(queries, frames, dtype=torch.bool, device=mask_BK.device).tril()
        q_BHLE, k_BHKE = self._split(self.q(x_BLD)), self._split(self.k(memory_BKM))
        v_BHKE = self._split(self.v(memory_BKM))
        read_BHLE, weights_BHLK = attention(q_BHLE, k_BHKE, v_BHKE, seen_BLK)
        note_map(notes, "dot_attention", axes, weights_BHLK)
        out_BLD: Tensor = self.o(read_BHLE.transpose(1, 2).flatten(2))
        return out_BLD

    def _split(self, x_BLI: Tensor) -> Tensor:
        return x_BLI.reshape(*x_BLI.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Y = LayerNorm(X + MHA(X, memory)), LayerNorm(Y + FFN(Y)), FFN = Linear, GELU, Linear."""

    def __init__(self, width: int, memory: int, params: TransformerParams) -> None:
        super().__init__()
        self.attention = MultiHead(
            width, memory, heads=params.heads, head_width=params.head_width, causal=params.causal
        )
        self.feedforward = nn.Sequential(
            nn.Linear(width, params.feedforward), nn.GELU(), nn.Linear(params.feedforward, width)
        )
        self.norms = nn.ModuleList((nn.LayerNorm(width), nn.LayerNorm(width)))
        self.dropout = Dropout(params.transformer_dropout)

    def forward(
        self, x_BLD: Tensor, memory_BKM: Tensor, mask_BK: Tensor, notes: Notes | None, axes: tuple[str, ...]
    ) -> Tensor:
        """B x L x D."""
        y_BLD = self.norms[0](x_BLD + self.dropout(self.attention(x_BLD, memory_BKM, mask_BK, notes, axes)))
        z_BLD: Tensor = self.norms[1](y_BLD + self.dropout(self.feedforward(y_BLD)))
        return z_BLD


class Encoder(nn.Module):
    """A linear map to heads x head_width, sinusoidal positions, and layers of self-attention blocks."""

    def __init__(self, inputs: int, params: TransformerParams) -> None:
        super().__init__()
        self.width = params.heads * params.head_width
        self.input = nn.Linear(inputs, self.width)
        self.blocks = nn.ModuleList(Block(self.width, self.width, params) for _ in range(params.layers))

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, notes: Notes | None = None, of: str = JOINT) -> Tensor:
        """B x L x width, zero on padded frames; `of`: the name of the features, for the notes."""
        h_BLD = self.input(x_BLD) + positions(x_BLD.shape[1], self.width, x_BLD)
        for layer, block in enumerate(self.blocks, start=1):
            h_BLD = block(h_BLD, h_BLD, mask_BL, notes, (of, of, str(layer)))
        return zeroed(h_BLD, mask_BL)


class EncoderReadout(nn.Module):
    """Z = Encoder([X_a ; X_v]) : B x L x width."""

    def __init__(self, params: TransformerParams, widths: Widths) -> None:
        super().__init__()
        self.encoder = Encoder(sum(widths.values()), params)
        self.width = self.encoder.width

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x width."""
        z_BLZ: Tensor = self.encoder(concatenated(trajectory.x[-1]), trajectory.mask_BL, notes)
        return z_BLZ


def positions(frames: int, width: int, like: Tensor) -> Tensor:
    """sin and cos of the frame number at wavelengths 2 pi to 20000 pi : L x D (Vaswani 2017), for any L."""
    at_L1 = torch.arange(frames, device=like.device, dtype=like.dtype).unsqueeze(1)
    column_D = torch.arange(width, device=like.device)
    angle_LD = at_L1 * torch.exp(-math.log(10000.0) * (column_D // 2 * 2).to(like.dtype) / width)
    return torch.where(column_D % 2 == 0, torch.sin(angle_LD), torch.cos(angle_LD))
