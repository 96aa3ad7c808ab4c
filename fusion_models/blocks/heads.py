"""From Z to one value per frame.

Legend: B batch, L frames, N real frames of a batch, Z features of the readout, H hidden features.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.blocks.frame_norm import FrameNorm
from crossfold.fusion_models.blocks.recurrent import RecurrentMix
from crossfold.fusion_models.system import widened
from crossfold.platform.core.recipe import Head

ACTIVATIONS = {"leaky_relu": nn.LeakyReLU, "relu": nn.ReLU, "tanh": nn.Tanh}


def recurrent_mix(inputs: int, params: Head) -> RecurrentMix:
    """The BiLSTM that a recipe puts before the hidden layers."""
    hidden = params.recurrent_width or params.hidden
    return RecurrentMix(inputs, hidden, layers=params.recurrent_layers, form=params.recurrent_form)


class MLPHead(nn.Module):
    """Hidden layers with dropout, a linear map, and tanh where labels live in [-1, 1] (release of 002; E12).

    With `recurrent`, a BiLSTM of its own comes first, unless the heads of all targets share one.
    """

    def __init__(self, inputs: int, params: Head) -> None:
        """`inputs`: the width of Z, or of the shared BiLSTM."""
        super().__init__()
        self.mix = recurrent_mix(inputs, params) if params.recurrent and not params.recurrent_shared else None
        widths = [
            self.mix.width if self.mix else inputs,
            *(max(params.hidden // 2**i, 1) for i in range(params.layers)),
        ]
        layers: list[nn.Module] = [Dropout(params.input_dropout)] if params.input_dropout else []
        for before, after in pairwise(widths):
            norm = [FrameNorm(after)] if params.batch_norm and not any(isinstance(x, FrameNorm) for x in layers) else []
            layers += [nn.Linear(before, after), *norm, ACTIVATIONS[params.activation](), Dropout(params.dropout)]
        output = nn.Tanh() if params.output == "tanh" else nn.Identity()
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1), output)

    def forward(self, z_BLZ: Tensor, mask_BL: Tensor) -> Tensor:
        """y : B x L."""
        if self.mix is not None:
            z_BLZ = self.mix(z_BLZ, mask_BL)
        *hidden, last, output = self.layers
        for layer in hidden:
            z_BLZ = layer(z_BLZ, mask_BL) if isinstance(layer, FrameNorm) else layer(z_BLZ)
        # A narrow prediction would be one of few values; the map to it is small.
        with torch.autocast(z_BLZ.device.type, enabled=False):
            y_BL: Tensor = output(last(widened(z_BLZ))).squeeze(-1)
        return y_BL
