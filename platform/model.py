"""The whole model: an encoder a modality, a fusion system, a head a target.

Legend: B batch, L frames, I input features of one modality, Z features of the readout, T targets.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.heads import MLPHead
from crossfold.fusion_models.blocks.temporal import temporal_encoder
from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features, Fusion, Notes
from crossfold.platform.config import Recipe
from crossfold.platform.contracts import Cell


class EmotionModel(nn.Module):
    """Encoded modalities -> fusion -> y : B x L x T."""

    def __init__(self, inputs: Mapping[str, int], fusion: Fusion, recipe: Recipe, targets: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: temporal_encoder(inputs[m], recipe.temporal) for m in fusion.modalities})
        self.fusion = fusion
        self.heads = nn.ModuleList(MLPHead(fusion.width, recipe.head) for _ in range(targets))

    def forward(self, x: Mapping[str, Tensor], mask_BL: Tensor, notes: Notes | None = None) -> Tensor:
        """y : B x L x T from x[m] : B x L x I_m; padded frames influence no real one."""
        mask_BL1 = mask_BL.unsqueeze(-1)
        encoded = {m: encoder(x[m] * mask_BL1) for m, encoder in self.encoders.items()}
        z_BLZ = self.fusion(Features.masked(encoded, mask_BL), notes)
        return torch.stack([head(z_BLZ) for head in self.heads], dim=-1)


def build_model(cell: Cell, inputs: Mapping[str, int]) -> EmotionModel:
    """The model of a cell for these feature widths. Weights come from torch's current generator."""
    system = find_system(cell.system)
    params = system.params.parse(cell.params, f"parameters of {cell.system}")
    widths = dict.fromkeys(system.modalities, cell.recipe.temporal.width)
    fusion = system.build(params, widths, cell.recipe.window)
    return EmotionModel(inputs, fusion, cell.recipe, len(cell.targets))
