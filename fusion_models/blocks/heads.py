"""From Z to one value per frame (spec 1.17).

Legend: B batch, L frames, N real frames of a batch, Z features of the readout, H hidden features.
"""

from itertools import pairwise

from torch import Tensor, nn

from crossfold.fusion_models.blocks.recurrent import Recurrent
from crossfold.platform.core.recipe import Head

ACTIVATIONS = {"leaky_relu": nn.LeakyReLU, "relu": nn.ReLU, "tanh": nn.Tanh}


class RecurrentMix(nn.Module):
    """Z' = (BiLSTM(Z) + W Z) / |BiLSTM(Z) + W Z| : B x L x H, as released with 000 (G2c)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.recurrent = Recurrent(inputs, max(hidden // 2, 1), bidirectional=True)
        self.width = self.recurrent.width
        self.residual = nn.Linear(inputs, self.width)

    def forward(self, z_BLZ: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x H."""
        return nn.functional.normalize(self.recurrent(z_BLZ, mask_BL) + self.residual(z_BLZ), dim=-1)  # G2c


class FrameNorm(nn.Module):
    """Batch normalisation over the real frames of a batch; padding has no part in it (release of 002)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, h_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x H."""
        real_NH = h_BLH[mask_BL]
        # The batch statistics of a single frame are undefined, and torch raises an error for them.
        normed_NH = self.norm(real_NH) if len(real_NH) > 1 or not self.training else real_NH
        y_BLH = h_BLH.new_zeros(h_BLH.shape, dtype=normed_NH.dtype)
        y_BLH[mask_BL] = normed_NH
        return y_BLH


class MLPHead(nn.Module):
    """Hidden layers with dropout, a linear map, and tanh where labels live in [-1, 1] (release of 002; E12)."""

    def __init__(self, inputs: int, params: Head) -> None:
        super().__init__()
        self.mix = RecurrentMix(inputs, params.recurrent_width or params.hidden) if params.recurrent else None
        widths = [
            self.mix.width if self.mix else inputs,
            *(max(params.hidden // 2**i, 1) for i in range(params.layers)),
        ]
        layers: list[nn.Module] = [nn.Dropout(params.input_dropout)] if params.input_dropout else []
        for before, after in pairwise(widths):
            norm = [FrameNorm(after)] if params.batch_norm and not any(isinstance(x, FrameNorm) for x in layers) else []
            layers += [nn.Linear(before, after), *norm, ACTIVATIONS[params.activation](), nn.Dropout(params.dropout)]
        output = nn.Tanh() if params.output == "tanh" else nn.Identity()
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1), output)

    def forward(self, z_BLZ: Tensor, mask_BL: Tensor) -> Tensor:
        """y : B x L."""
        if self.mix is not None:
            z_BLZ = self.mix(z_BLZ, mask_BL)
        for layer in self.layers:
            z_BLZ = layer(z_BLZ, mask_BL) if isinstance(layer, FrameNorm) else layer(z_BLZ)
        y_BL: Tensor = z_BLZ.squeeze(-1)
        return y_BL
