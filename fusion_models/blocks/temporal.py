"""Encoders of one modality over time, before fusion: B x L x D_in -> X_m : B x L x d_m.

Legend: B batch, L frames, I input features, D features of the modality.
"""

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.recurrent import Recurrent
from crossfold.fusion_models.system import WHOLE_PAST
from crossfold.platform.core.recipe import Temporal


class Projection(nn.Module):
    """No temporal context: a linear map to the width of the fusion."""

    def __init__(self, inputs: int, params: Temporal) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, params.width)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m."""
        x_BLD: Tensor = self.dropout(self.linear(x_BLI))
        return x_BLD


class Untouched(nn.Module):
    """Features enter the fusion as they are (004: "directly fed"); d_m is their width."""

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x I."""
        return x_BLI


class WeightNormConv(nn.Module):
    """A dilated convolution whose kernels are g v / |v|. Torch's parametrization of the same cannot be pickled."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        plain = nn.Conv1d(inputs, width, kernel)
        self.v, self.bias, self.dilation = plain.weight, plain.bias, dilation
        self.g = nn.Parameter(torch.linalg.vector_norm(self.v.detach(), dim=(1, 2), keepdim=True))

    def forward(self, x_BIL: Tensor) -> Tensor:
        """B x width x (L less what the kernel reaches over)."""
        # W = g v / |v| (Salimans and Kingma 2016)
        kernels = self.v * (self.g / torch.linalg.vector_norm(self.v, dim=(1, 2), keepdim=True))
        return nn.functional.conv1d(x_BIL, kernels, self.bias, dilation=self.dilation)


class CausalLevel(nn.Module):
    """One residual level of the TCN: a causal dilated convolution with weight norm, ReLU and dropout.

    Frame l sees frames l, l - dilation, ..., l - (kernel - 1) dilation, and zeros before the window.
    """

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.conv = WeightNormConv(inputs, width, kernel, dilation)
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

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m."""
        x_BLD: Tensor = self.out(self.levels(x_BLI.transpose(1, 2)).transpose(1, 2))
        return x_BLD


class RecurrentEncoder(nn.Module):
    """An LSTM in one or both directions, and a linear map to the width of the fusion (A14)."""

    def __init__(self, inputs: int, params: Temporal) -> None:
        super().__init__()
        both = params.kind == "bilstm"
        self.recurrent = Recurrent(
            inputs, params.width, layers=params.levels, dropout=params.dropout, bidirectional=both
        )
        self.out = nn.Linear(self.recurrent.width, params.width)

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m. All frames are real where there is no mask."""
        real_BL = torch.ones_like(x_BLI[..., 0], dtype=torch.bool) if mask_BL is None else mask_BL
        x_BLD: Tensor = self.out(self.recurrent(x_BLI, real_BL))
        return x_BLD


def temporal_encoder(inputs: int, params: Temporal, modality: str = "") -> nn.Module:
    """The encoder a recipe asks for, as wide as it says for this modality."""
    if params.kind == "identity":
        return Untouched()
    params = params.model_copy(update={"width": params.width_of(modality)})
    kinds = {"none": Projection, "tcn": TCN, "lstm": RecurrentEncoder, "bilstm": RecurrentEncoder}
    encoder: nn.Module = kinds[params.kind](inputs, params)
    return encoder


def temporal_context(params: Temporal) -> float | None:
    """Past frames that an encoded frame depends on; None if it sees future ones too."""
    reach = (params.kernel - 1) * (2**params.levels - 1)
    return {"identity": 0.0, "none": 0.0, "tcn": float(reach), "lstm": WHOLE_PAST, "bilstm": None}[params.kind]
