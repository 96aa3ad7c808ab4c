"""The whole model: backbones where the recipe has any, an encoder per modality, a fusion system, a head per
target.

Legend: B batch, L frames, I input features of one modality, F the shape of a raw frame, Z features of the readout,
T targets.
"""

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.heads import MLPHead
from crossfold.fusion_models.blocks.temporal import temporal_context, temporal_encoder
from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features, Fusion, Notes
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.modeling.frame_encoder import FrameEncoder, frame_encoders


class EmotionModel(nn.Module):
    """Frames or features -> encoded modalities -> fusion -> y : B x L x T."""

    def __init__(
        self,
        inputs: Mapping[str, int],
        fusion: Fusion,
        recipe: Recipe,
        targets: int,
        frames: Mapping[str, FrameEncoder] | None = None,
    ) -> None:
        """`inputs`: I of each modality; `frames`: the backbones of those that come as raw frames."""
        super().__init__()
        self.frames: Mapping[str, FrameEncoder] = nn.ModuleDict(dict(frames or {}))  # type: ignore[assignment]
        self.encoders = nn.ModuleDict({m: temporal_encoder(inputs[m], recipe.temporal, m) for m in fusion.modalities})
        self.fusion = fusion
        self.heads = nn.ModuleList(MLPHead(fusion.width, recipe.head) for _ in range(targets))
        self._narrow = recipe.precision == "bf16"

    def forward(
        self, x: Mapping[str, Tensor], mask_BL: Tensor, notes: Notes | None = None, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """y : B x L x T from x[m] : B x L x I_m, or B x L x F as stored; padded frames influence no real one.

        seeds: one per window, of the random crops in training; None: none.
        """
        # Padding must not reach real frames through a convolution.
        mask_BL1 = mask_BL.unsqueeze(-1)
        with torch.autocast(mask_BL.device.type, torch.bfloat16) if self._narrow else contextlib.nullcontext():
            features = {m: self.frames[m](x[m], mask_BL, seeds) if m in self.frames else x[m] for m in self.encoders}
            encoded = {m: encoder(features[m] * mask_BL1, mask_BL) for m, encoder in self.encoders.items()}
            z_BLZ = self.fusion(Features.masked(encoded, mask_BL), notes)
            y_BLT = torch.stack([head(z_BLZ, mask_BL) for head in self.heads], dim=-1)
        # Losses and scores are computed in float32.
        return y_BLT.float() if self._narrow else y_BLT


def build_model(cell: Cell, inputs: Mapping[str, int]) -> EmotionModel:
    """The model of a cell for these widths of its inputs. Weights come from torch's current generator."""
    system = find_system(cell.system)
    params = _params(cell)
    modalities = system.modalities_for(params)
    frames = frame_encoders(cell.recipe, modalities)
    temporal = cell.recipe.temporal
    widths = {m: inputs[m] if temporal.kind == "identity" else temporal.width_of(m) for m in modalities}
    fusion = system.build(params, widths, cell.recipe.window)
    return EmotionModel(inputs, fusion, cell.recipe, len(cell.targets), frames)


class Stream:
    """Predicts frames as they come; together they equal the prediction of the window that begins with the first.

    Of the past it keeps what a prediction depends on, and no more: none for frame-wise models, the reach of a TCN,
    everything for LSTMs and causal attention, which then cost more with every frame.
    """

    def __init__(self, cell: Cell, model: EmotionModel) -> None:
        """`model`: that of the cell, trained. Raises `UserError` if its predictions depend on future frames."""
        fusion = find_system(cell.system).context(_params(cell))
        encoder = temporal_context(cell.recipe.temporal)
        if cell.recipe.backbones or cell.recipe.clip.frames > 1:
            raise UserError(
                "streams take features, and give one prediction per frame", "use a recipe without backbones and clips"
            )
        if fusion is None or encoder is None or cell.recipe.head.recurrent:
            culprit = f"encoder {cell.recipe.temporal.kind}" if encoder is None else f"system {cell.system}"
            if cell.recipe.head.recurrent:
                culprit = "the BiLSTM of the head"
            raise UserError(
                f"{culprit} sees future frames, so it cannot predict a stream",
                "encoders none, tcn and lstm are causal; of the systems concat, unimodal_*, lstm and leader_follower, "
                "and the transformers with causal=true",
            )
        self.context = fusion + encoder
        self._model = model.eval()
        self._past: dict[str, Tensor] = {}

    @torch.no_grad()
    def push(self, x: Mapping[str, Tensor]) -> Tensor:
        """y : B x N x T of the N new frames x[m] : B x N x I_m."""
        known = {m: torch.cat([self._past[m], new], dim=1) if self._past else new for m, new in x.items()}
        first = next(iter(known.values()))
        frames, fresh = first.shape[1], next(iter(x.values())).shape[1]
        y_BLT: Tensor = self._model(known, torch.ones_like(first[..., 0], dtype=torch.bool))
        # `context` is infinite for an LSTM.
        kept = int(min(frames, self.context))
        self._past = {m: values[:, frames - kept :] for m, values in known.items()}
        return y_BLT[:, frames - fresh :]


def modalities_of(cell: Cell) -> tuple[str, ...]:
    """The modalities that the system of a cell takes under its parameters."""
    return find_system(cell.system).modalities_for(_params(cell))


def _params(cell: Cell) -> FrozenModel:
    return find_system(cell.system).params.parse(cell.params, f"parameters of {cell.system}")
