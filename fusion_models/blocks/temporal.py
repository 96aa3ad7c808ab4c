"""Encoders of one modality over time, before fusion: B x L x D_in -> X_m : B x L x d_m.

Legend: B batch, L frames, I input features, D features of the modality.
"""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from crossfold.platform.config import Temporal


class Projection(nn.Module):
    """No temporal context: a linear map to the width of the fusion."""

    def __init__(self, inputs: int, params: Temporal) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, params.width)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x_BLI: Tensor) -> Tensor:
        """X_m : B x L x d_m."""
        x_BLD: Tensor = self.dropout(self.linear(x_BLI))
        return x_BLD


class CausalLevel(nn.Module):
    """One residual level of the TCN: a causal dilated convolution with weight norm, ReLU and dropout.

    Frame l sees frames l, l - dilation, ..., l - (kernel - 1) dilation, and zeros before the window.
    """

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.conv = weight_norm(nn.Conv1d(inputs, width, kernel, dilation=dilation))
        self.skip = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BIL: Tensor) -> Tensor:
        """B x width x L."""
        h_BDL = self.conv(nn.functional.pad(x_BIL, (self.past, 0)))
        y_BDL: Tensor = nn.functional.relu(self.dropout(nn.functional.relu(h_BDL)) + self.skip(x_BIL))
        return y_BDL


class TCN(nn.Module):
    """Temporal convolutional network (002 and 001: "TCN" per modality; sizes as released, spec 3.3).

    Level i has dilation 2^i; with kernel k and n levels a frame sees (k - 1)(2^n - 1) frames of the past.
    Ends in a linear map, so that X_m is signed like the features the fusion equations assume.
    """

    def __init__(self, inputs: int, params: Temporal) -> None:
        super().__init__()
        self.levels = nn.Sequential(
            *(
                CausalLevel(inputs if i == 0 else params.width, params.width, params.kernel, 2**i, params.dropout)
                for i in range(params.levels)
            )
        )
        self.out = nn.Linear(params.width, params.width)

    def forward(self, x_BLI: Tensor) -> Tensor:
        """X_m : B x L x d_m."""
        x_BLD: Tensor = self.out(self.levels(x_BLI.transpose(1, 2)).transpose(1, 2))
        return x_BLD


def temporal_encoder(inputs: int, params: Temporal) -> nn.Module:
    """The encoder a recipe asks for."""
    return TCN(inputs, params) if params.kind == "tcn" else Projection(inputs, params)
