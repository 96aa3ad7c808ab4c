"""From Z to one value per frame (spec 1.17).

Legend: B batch, L frames, Z features of the readout.
"""

from torch import Tensor, nn

from crossfold.platform.config import Head


class MLPHead(nn.Module):
    """Linear, LeakyReLU, dropout, linear, and tanh where labels live in [-1, 1] (release of 002; E12)."""

    def __init__(self, inputs: int, params: Head) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, params.hidden),
            nn.LeakyReLU(),
            nn.Dropout(params.dropout),
            nn.Linear(params.hidden, 1),
            nn.Tanh() if params.output == "tanh" else nn.Identity(),
        )

    def forward(self, z_BLZ: Tensor) -> Tensor:
        """y : B x L."""
        y_BL: Tensor = self.layers(z_BLZ).squeeze(-1)
        return y_BL
