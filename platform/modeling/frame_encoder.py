"""Backbones inside the graph: raw frames -> features, chunk by chunk, with groups of layers that are unfrozen in turn.

Legend: B batch, L frames, N real frames, F the shape of one raw frame, W features of a backbone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crossfold.fusion_models.backbones.catalogue import Backbone, unfreeze
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.modeling.inputs import find_backbone
from crossfold.platform.modeling.pretrained import load_backbone

NORMS = (nn.modules.batchnorm._BatchNorm,)


class FrameEncoder(nn.Module):
    """A backbone over the frames of windows: B x L x F, as stored -> B x L x W.

    Frames pass it `chunk` at a time, and where it trains, activations of a chunk are computed again for the backward
    pass, so memory holds one chunk however long the window is. Batch normalisation keeps the statistics that came with
    pretrained weights, also in released groups: 3600 frames of twelve faces give no useful statistics, and they
    would depend on the chunk. Without pretrained weights there are none to keep; then they are learned from each chunk,
    and nothing is computed twice.
    """

    def __init__(self, backbone: Backbone, chunk: int, *, pretrained: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.chunk = chunk
        self.pretrained = pretrained
        self.net = backbone.build()
        self.groups: int | None = 0
        """Groups that learn; None: all layers, those of no group too."""
        self.train_released(False)

    @property
    def width(self) -> int:
        """W."""
        return self.backbone.width

    def train_released(self, training: bool) -> None:
        """Freezes all but the released groups; call it after `model.train()`, which undoes that."""
        unfreeze(self.backbone, self.net, self.groups, training=training)
        for module in self.net.modules():
            if self.pretrained and isinstance(module, NORMS):
                module.eval()

    def forward(self, x_BLF: Tensor, mask_BL: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """B x L x W, zero where padded. `seeds`: one per window, of its random crop and flip; None: centre crop."""
        passed = [
            self._pass(piece)
            for window, frames_NF in enumerate(x[real] for x, real in zip(x_BLF, mask_BL, strict=True))
            if len(frames_NF)
            for piece in torch.split(self._prepared(frames_NF, seeds[window] if seeds else None), self.chunk)
        ]
        features_NW = torch.cat(passed) if passed else x_BLF.new_zeros(0, self.width, dtype=torch.float32)
        encoded_BLW = features_NW.new_zeros(*mask_BL.shape, self.width)
        # Padded frames never pass the backbone, which is where the time goes.
        encoded_BLW[mask_BL] = features_NW
        return encoded_BLW

    def _prepared(self, frames_NF: Tensor, seed: int | None) -> Tensor:
        # On the CPU, wherever the frames are: the same crops on any device.
        generator = torch.Generator().manual_seed(seed or 0)
        prepared = self.backbone.prepare(frames_NF.unsqueeze(0), training=seed is not None, generator=generator)[0]
        # What the weights are kept in: a test may widen them.
        return prepared.to(next(self.net.parameters()).dtype)

    def _pass(self, x_NF: Tensor) -> Tensor:
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in self.net.parameters())
        if learning and self.pretrained:
            y_NW: Tensor = checkpoint(self.net, x_NF, use_reentrant=False)
        else:
            with torch.set_grad_enabled(learning):
                y_NW = self.net(x_NF)
        return y_NW


def frame_encoders(recipe: Recipe, modalities: Sequence[str]) -> dict[str, FrameEncoder]:
    """The backbones of those modalities that a recipe gives one. Weights come from torch's current generator."""
    return {
        m: FrameEncoder(
            find_backbone(recipe.backbones[m], m), recipe.backbone_chunk, pretrained=recipe.weights == "pretrained"
        )
        for m in modalities
        if m in recipe.backbones
    }


def load_weights(encoders: Mapping[str, FrameEncoder], recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Fills the backbones with their published weights; what was loaded, by modality.

    Raises `UserError` naming file and place if one is missing. A backbone that has none is trained from scratch.
    """
    if recipe.weights == "random":
        return {}
    used = {m: load_backbone(encoder.backbone, encoder.net, folder) for m, encoder in encoders.items()}
    return {m: facts for m, facts in used.items() if facts is not None}


def release(encoders: Mapping[str, FrameEncoder], recipe: Recipe, groups: int) -> None:
    """Unfreezes the first `groups` groups of layers of the backbones that the recipe fine-tunes (E8)."""
    modalities = recipe.thaw.modalities
    for m, encoder in encoders.items():
        learns = modalities is None or m in modalities
        encoder.groups = (None if recipe.thaw.at_once else groups) if learns else 0
        encoder.train_released(True)
