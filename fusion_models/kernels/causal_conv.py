"""A causal dilated convolution with its activation and dropout, as one function of frames that come first.

Legend: L frames, B batch, N frames of all windows, I input features, D features of the layer, K taps of a kernel,
F features of all taps (K x D).

With the frames first, what tap k sees is one contiguous block, and a convolution is K matrix products that add up in
one place: y[s:] += x[: L - s] W_k, s = (K - 1 - k) dilation. Nothing is padded, copied or stored but the result. On a
CPU, wide layers need fewer products (`winograd.py`), and where only the input is wide, or in bfloat16, oneDNN's
convolution is quicker, which has this layout, too.
"""

from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from crossfold.fusion_models.kernels import winograd
from crossfold.fusion_models.kernels.keep_mask import keep_mask, kept_share
from crossfold.fusion_models.kernels.padding import padded


def causal_layer(x_LBI: Tensor, w_KID: Tensor, b_D: Tensor, *, dilation: int, slope: float, p: float) -> Tensor:
    """dropout_p(act(b + sum_k x[l - (K - 1 - k) dilation] W_k)) : L x B x D, with zeros before the first frame.

    act(h) is h where h > 0, and slope h elsewhere: ReLU at slope 0, else LeakyReLU. p: of the dropout, 0 for none.
    """
    if p:
        # The activation is homogeneous, so what dropout scales by can stand on the weights, where there is less of it.
        w_KID, b_D = w_KID / kept_share(p), b_D / kept_share(p)
    kind = x_LBI.device.type
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
        x_LBI, w_KID, b_D = x_LBI.to(narrow), w_KID.to(narrow), b_D.to(narrow)
    with torch.autocast(kind, enabled=False):
        h_LBD: Tensor = _CausalLayer.apply(x_LBI.contiguous(), w_KID, b_D, dilation, slope, p)
    return h_LBD


class _CausalLayer(torch.autograd.Function):
    """The layer with its gradient. Products name `out`, so that torch's counter of operations sees them."""

    @staticmethod
    def forward(ctx: Any, x_LBI: Tensor, w_KID: Tensor, b_D: Tensor, dilation: int, slope: float, p: float) -> Tensor:
        way = _way(x_LBI, w_KID, dilation)
        if way is Way.WINOGRAD:
            h_LBD = winograd.convolution(x_LBI, w_KID, b_D, dilation)
        elif way is Way.LIBRARY:
            h_LBD = _library_convolution(x_LBI, w_KID, b_D, dilation, past=True)
        else:
            h_LBD = x_LBI.new_empty(*x_LBI.shape[:2], len(b_D))
            for k, seen_NI, to_ND in _taps(x_LBI, h_LBD, len(w_KID), dilation):
                # The last tap sees frame l itself, comes first, and writes every frame.
                torch.addmm(b_D if k == len(w_KID) - 1 else to_ND, seen_NI, w_KID[k], out=to_ND)
        nn.functional.leaky_relu_(h_LBD, slope) if slope else h_LBD.relu_()
        keep_LBD = keep_mask(h_LBD.shape, p, h_LBD) if p else None
        if keep_LBD is not None:
            h_LBD.mul_(keep_LBD)
        # Where ReLU or dropout made a zero there is no gradient; of LeakyReLU the zeros of dropout alone have none.
        ctx.save_for_backward(x_LBI, w_KID, h_LBD, keep_LBD if slope else None)
        ctx.dilation, ctx.slope = dilation, slope
        return h_LBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor | None, ...]:
        x_LBI, w_KID, h_LBD, keep_LBD = ctx.saved_tensors
        if ctx.slope:
            grad_LBD = torch.ops.aten.leaky_relu_backward(grad_LBD, h_LBD, ctx.slope, True)
            if keep_LBD is not None:
                grad_LBD.mul_(keep_LBD)
        else:
            grad_LBD = torch.ops.aten.threshold_backward(grad_LBD, h_LBD, 0)
        grad_LBD = grad_LBD.contiguous()
        to_b_D = grad_LBD.sum(dim=(0, 1))
        if _way(x_LBI, w_KID, ctx.dilation) is Way.WINOGRAD:
            of_input = ctx.needs_input_grad[0]
            to_x_LBI, to_w_KID = winograd.gradients(x_LBI, w_KID, grad_LBD, ctx.dilation, of_input=of_input)
            return to_x_LBI, to_w_KID, to_b_D, None, None, None
        to_x_LBI = _input_gradient(grad_LBD, w_KID, ctx.dilation) if ctx.needs_input_grad[0] else None
        return to_x_LBI, _weight_gradient(x_LBI, w_KID, grad_LBD, ctx.dilation), to_b_D, None, None, None


def _weight_gradient(x_LBI: Tensor, w_KID: Tensor, grad_LBD: Tensor, dilation: int) -> Tensor:
    """K x I x D: of each tap the frames that it sees times those that it adds to."""
    (frames, batch, width), taps = grad_LBD.shape, len(w_KID)
    if _way(x_LBI, w_KID, dilation) is Way.LIBRARY and width < WIDE:
        # The taps next to each other are one product, which reads wide features once.
        of_taps_LBKD = grad_LBD.new_zeros(frames, batch, taps, width)
        for k in range(taps):
            shift = min((taps - 1 - k) * dilation, frames)
            of_taps_LBKD[: frames - shift, :, k] = grad_LBD[shift:]
        to_w_IF = torch.mm(x_LBI.flatten(0, 1).t(), of_taps_LBKD.view(frames * batch, -1))
        return to_w_IF.view(-1, taps, width).transpose(0, 1).contiguous()
    to_w_KID = torch.zeros_like(w_KID)
    for k, seen_NI, from_ND in _taps(x_LBI, grad_LBD, len(w_KID), dilation):
        torch.mm(seen_NI.t(), from_ND, out=to_w_KID[k])
    return to_w_KID


def _input_gradient(grad_LBD: Tensor, w_KID: Tensor, dilation: int) -> Tensor:
    """L x B x I: frame l has reached the frames l + (K - 1 - k) dilation, each through W_k."""
    if _way(grad_LBD, w_KID, dilation) is Way.LIBRARY:
        return _library_convolution(grad_LBD, w_KID.flip(0).transpose(1, 2), None, dilation, past=False)
    last = len(w_KID) - 1
    to_x_LBI = grad_LBD.new_empty(*grad_LBD.shape[:2], w_KID.shape[1])
    for k, to_NI, from_ND in _taps(to_x_LBI, grad_LBD, len(w_KID), dilation):
        if k == last:
            torch.mm(from_ND, w_KID[k].t(), out=to_NI)
        else:
            torch.addmm(to_NI, from_ND, w_KID[k].t(), out=to_NI)
    return to_x_LBI


def _taps(x_LBI: Tensor, h_LBD: Tensor, taps: int, dilation: int) -> list[tuple[int, Tensor, Tensor]]:
    """(k, the frames that tap k sees, the frames that it adds to) : N x I and N x D, of the taps that see any."""
    frames = len(x_LBI)
    reached = ((k, (taps - 1 - k) * dilation) for k in reversed(range(taps)))
    return [(k, x_LBI[: frames - s].flatten(0, 1), h_LBD[s:].flatten(0, 1)) for k, s in reached if s < frames]


class Way(Enum):
    """How a layer convolves."""

    TAPS = auto()
    """A product for each tap: on a GPU, and where there are few features."""
    WINOGRAD = auto()
    """Fewer products for the same values, up to rounding."""
    LIBRARY = auto()
    """oneDNN's convolution."""


WIDE = 128
"""Features from which the products outweigh what the other ways copy (measured at widths of 32 to 768)."""
WIDE_IN_BF16, ROW_IN_BF16 = 256, 2048
"""The same in bfloat16, whose products take half the time, and the values of a frame of all windows."""
SPARE = 1.5
"""How many times the frames of a window the tiles of Winograd's way may cover: with more, taps take no longer."""


def _way(x_LBI: Tensor, w_KID: Tensor, dilation: int) -> Way:
    """The quickest on this kind of device, for these features and windows."""
    if x_LBI.device.type != "cpu":
        return Way.TAPS
    narrow = x_LBI.dtype == torch.bfloat16
    if not narrow and (x_LBI.dtype != torch.float32 or x_LBI.shape[-1] < WIDE):
        return Way.TAPS
    frames, taps = len(x_LBI), len(w_KID)
    fits = 1 < taps <= winograd.MOST_TAPS and winograd.covered(frames, dilation) <= SPARE * frames
    if narrow:
        fits = fits and x_LBI.shape[1] * x_LBI.shape[2] >= ROW_IN_BF16
    if fits and min(w_KID.shape[1:]) >= (WIDE_IN_BF16 if narrow else WIDE):
        return Way.WINOGRAD
    return Way.LIBRARY  # in bfloat16 it rounds once, where products that add up round after each tap


def _library_convolution(x_LBI: Tensor, w_KID: Tensor, b_D: Tensor | None, dilation: int, *, past: bool) -> Tensor:
    """b + sum_k x[l + k dilation] W_k : L x B x D, over x behind the zeros of the past, or with zeros after it."""
    reach = (len(w_KID) - 1) * dilation
    padded_LBI = padded(x_LBI, *((reach, 0) if past else (0, reach)))
    # Frames and windows are the rows and columns of one picture, whose features come last in memory.
    w_DIK1 = w_KID.permute(2, 1, 0).unsqueeze(3).contiguous(memory_format=torch.channels_last)
    y_DLB = torch.conv2d(padded_LBI.permute(2, 0, 1).unsqueeze(0), w_DIK1, b_D, dilation=(dilation, 1))[0]
    return y_DLB.permute(1, 2, 0).contiguous()
