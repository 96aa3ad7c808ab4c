"""Encoders of one modality over time, before fusion: B x L x D_in -> X_m : B x L x d_m.

Legend: B batch, L frames, I input features, D features of the modality, K taps of a kernel.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.blocks.frame_norm import FrameNorm
from crossfold.fusion_models.blocks.recurrent import Recurrent, RecurrentMix
from crossfold.fusion_models.kernels.causal_conv import causal_layer
from crossfold.fusion_models.kernels.weight_norm import normed_kernels
from crossfold.fusion_models.system import WHOLE_PAST
from crossfold.platform.core.recipe import Temporal


class Projection(nn.Module):
    """No temporal context: a linear map to the width of the fusion."""

    def __init__(self, inputs: int, params: Temporal, modality: str = "") -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, params.width_of(modality))
        self.dropout = Dropout(params.dropout)

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m."""
        x_BLD: Tensor = self.dropout(self.linear(x_BLI))
        return x_BLD


class Untouched(nn.Module):
    """Features enter the fusion as they are (004: "directly fed"); d_m is their width."""

    def __init__(self, inputs: int, params: Temporal, modality: str = "") -> None:
        super().__init__()

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x I."""
        return x_BLI


class WeightNormConv(nn.Module):
    """A dilated convolution whose kernels are g v / |v|. Torch's parametrization of the same cannot be pickled."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.shape = inputs, width, kernel
        self.dilation = dilation
        self.v = nn.Parameter(torch.empty(width, inputs, kernel))
        self.bias = nn.Parameter(torch.empty(width))
        self.g = nn.Parameter(torch.empty(width, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch's convolution; the length of each kernel is g."""
        plain = nn.Conv1d(*self.shape)
        with torch.no_grad():
            self.v.copy_(plain.weight)
            self.bias.copy_(plain.bias)  # type: ignore[arg-type]
            self.g.copy_(torch.linalg.vector_norm(self.v, dim=(1, 2), keepdim=True))

    def forward(self, x_LBI: Tensor, *, slope: float, p: float) -> Tensor:
        """L x B x width, after the activation and dropout."""
        w_KID = normed_kernels(self.v, self.g)  # W = g v / |v| (Salimans and Kingma 2016)
        return causal_layer(x_LBI, w_KID, self.bias, dilation=self.dilation, slope=slope, p=p)


SLOPES = {"relu": 0.0, "leaky_relu": 0.01}
"""What each activation multiplies negative values by; 0.01 is torch's, which released code uses."""


class CausalLevel(nn.Module):
    """One residual level of the TCN: causal dilated convolutions with weight norm, an activation and dropout each.

    A convolution shows frame l the frames l, l - dilation, ..., l - (kernel - 1) dilation, and zeros before the window.
    """

    def __init__(self, inputs: int, width: int, dilation: int, params: Temporal) -> None:
        super().__init__()
        self.conv = WeightNormConv(inputs, width, params.kernel, dilation)
        self.further = nn.ModuleList(
            WeightNormConv(width, width, params.kernel, dilation) for _ in range(params.convolutions - 1)
        )
        self.skip = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()
        self.slope = SLOPES[params.activation]
        self.dropout = Dropout(params.dropout)

    def forward(self, x_LBI: Tensor) -> Tensor:
        """L x B x width."""
        h_LBD = x_LBI
        for conv in (self.conv, *self.further):
            h_LBD = conv(h_LBD, slope=self.slope, p=self.dropout.rate)
        if isinstance(self.skip, nn.Identity):
            y_LBD = h_LBD + x_LBI
        else:
            # In place: the gradient of a linear map needs its input only.
            y_LBD = nn.functional.linear(x_LBI, self.skip.weight[:, :, 0], self.skip.bias).add_(h_LBD)
        return nn.functional.leaky_relu_(y_LBD, self.slope) if self.slope else y_LBD.relu_()


class TCN(nn.Module):
    """Temporal convolutional network (002 and 001: "TCN" per modality; sizes as released).

    Level i has dilation 2^i; with kernel k and n levels of c convolutions a frame sees c (k - 1)(2^n - 1) frames of the
    past. Ends in a linear map, so that X_m is signed like the features the fusion equations assume; released code has
    batch normalisation instead (G8).
    """

    def __init__(self, inputs: int, params: Temporal, modality: str = "") -> None:
        super().__init__()
        widths = (inputs, *params.channels_of(modality))
        self.levels = nn.Sequential(
            *(CausalLevel(before, after, 2**i, params) for i, (before, after) in enumerate(pairwise(widths)))
        )
        self.out = nn.Linear(widths[-1], widths[-1]) if params.output_linear else nn.Identity()

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m."""
        # The frames come first, in one copy for the convolution and the map around it.
        x_BLD: Tensor = self.out(self.levels(x_BLI.transpose(0, 1).contiguous()).transpose(0, 1))
        return x_BLD


class RecurrentEncoder(nn.Module):
    """An LSTM in one or both directions, and a linear map to the width of the fusion (A14), or a `RecurrentMix`."""

    def __init__(self, inputs: int, params: Temporal, modality: str = "") -> None:
        super().__init__()
        width, layers, dropout = params.width_of(modality), params.levels, params.dropout
        self.recurrent: nn.Module
        self.out: nn.Module
        if params.recurrent_form == "concat":
            self.recurrent = RecurrentMix(inputs, width, layers=layers, dropout=dropout, form="concat")
            self.out = nn.Identity()
        else:
            both = params.kind == "bilstm"
            self.recurrent = Recurrent(inputs, width, layers=layers, dropout=dropout, bidirectional=both)
            self.out = nn.Linear(self.recurrent.width, width)

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m. All frames are real where there is no mask."""
        x_BLD: Tensor = self.out(self.recurrent(x_BLI, _real(x_BLI, mask_BL)))
        return x_BLD


class Normed(nn.Module):
    """An encoder between norms: features of length one enter it (G2c), batch normalisation follows it (G8)."""

    def __init__(self, encoder: nn.Module, width: int, params: Temporal) -> None:
        super().__init__()
        self.encoder = encoder
        self.unit_inputs = params.input_norm == "l2"
        self.norm = FrameNorm(width) if params.batch_norm else None

    def forward(self, x_BLI: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """X_m : B x L x d_m. All frames are real where there is no mask."""
        if self.unit_inputs:
            x_BLI = nn.functional.normalize(x_BLI, dim=-1)
        x_BLD: Tensor = self.encoder(x_BLI, mask_BL)
        return x_BLD if self.norm is None else self.norm(x_BLD, _real(x_BLI, mask_BL))


def _real(x_BLI: Tensor, mask_BL: Tensor | None) -> Tensor:
    return torch.ones_like(x_BLI[..., 0], dtype=torch.bool) if mask_BL is None else mask_BL


KINDS: Mapping[str, Callable[[int, Temporal, str], nn.Module]] = {
    "identity": Untouched,
    "none": Projection,
    "tcn": TCN,
    "lstm": RecurrentEncoder,
    "bilstm": RecurrentEncoder,
}


def temporal_encoder(inputs: int, params: Temporal, modality: str = "") -> nn.Module:
    """The encoder a recipe asks for, as wide as it says for this modality."""
    encoder = KINDS[params.kind](inputs, params, modality)
    if params.input_norm == "none" and not params.batch_norm:
        return encoder
    return Normed(encoder, encoded_width(inputs, params, modality), params)


def encoded_width(inputs: int, params: Temporal, modality: str) -> int:
    """d_m : the width of what the encoder of a modality gives."""
    return inputs if params.kind == "identity" else params.width_of(modality)


def temporal_context(params: Temporal) -> float | None:
    """Past frames that an encoded frame depends on; None if it sees future ones too."""
    levels = max([params.levels, *map(len, params.channels.values())])
    reach = params.convolutions * (params.kernel - 1) * (2**levels - 1)
    return {"identity": 0.0, "none": 0.0, "tcn": float(reach), "lstm": WHOLE_PAST, "bilstm": None}[params.kind]
