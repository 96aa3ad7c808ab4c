"""A causal dilated convolution with its activation and dropout, as one function of frames that come first.

Legend: L frames, B batch, N frames of all windows, I input features, D features of the layer, K taps of a kernel,
F features of all taps (K x D).

With the frames first, what tap k sees is one contiguous block, and a convolution is K matrix products that add up in
one place: y[s:] += x[: L - s] W_k, s = (K - 1 - k) dilation. Nothing is padded, copied or stored but the result. On a
CPU, wide layers need fewer products (`winograd.py`), and where only the input is wide, or in bfloat16, oneDNN's
convolution is quicker, which has this layout, too.
"""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from crossfold.fusion_models.kernels import winograd
from crossfold.fusion_models.kernels.keep_mask import keep_mask, kept_share
from crossfold.fusion_models.kernels.padding import padded
from crossfold.fusion_models.system import widened


def causal_layer(x_LBI: Tensor, w_KID: Tensor, b_D: Tensor, *, dilation: int, slope: float, p: float) -> Tensor:
    """dropout_p(act(b + sum_k x[l - (K - 1 - k) dilation] W_k)) : L x B x D, with zeros before the first frame.

    act(h) is h where h > 0, and slope h elsewhere: ReLU at slope 0, else LeakyReLU. p: of the dropout, 0 for none.
    """
    kind = x_LBI.device.type
    if torch.is_autocast_enabled(kind):
        x_LBI = x_LBI.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            h_LBD: Tensor = _CausalLayer.apply(x_LBI.contiguous(), w_KID, b_D, dilation, slope, p)
    else:
        h_LBD = _CausalLayer.apply(x_LBI.contiguous(), w_KID, b_D, dilation, slope, p)
    return h_LBD


class _CausalLayer(torch.autograd.Function):
    """The layer with its gradient, in the type of x. Products name `out`, so that torch's counter of operations sees
    them.
    """

    @staticmethod
    def forward(ctx: Any, x_LBI: Tensor, w_KID: Tensor, b_D: Tensor, dilation: int, slope: float, p: float) -> Tensor:
        if p:
            # The activation is homogeneous, so what dropout scales by can stand on the weights: there are fewer.
            w_KID, b_D = w_KID / kept_share(p), b_D / kept_share(p)
        w_KID, b_D = w_KID.to(x_LBI.dtype), b_D.to(x_LBI.dtype)
        way, read = _way(x_LBI, w_KID, dilation), x_LBI
        if way is Way.WINOGRAD:
            h_LBD, read = winograd.convolution(x_LBI, w_KID, b_D, dilation)
        elif way is Way.LIBRARY:
            h_LBD = _library_convolution(x_LBI, w_KID, b_D, dilation, past=True)
        else:
            h_LBD = x_LBI.new_empty(*x_LBI.shape[:2], len(b_D))
            summand: Tensor | None = b_D  # the last tap sees frame l itself, comes first, and writes every frame
            for w_ID, seen_NI, to_ND in _taps(w_KID, x_LBI, h_LBD, dilation):
                torch.addmm(to_ND if summand is None else summand, seen_NI, w_ID, out=to_ND)
                summand = None
        nn.functional.leaky_relu_(h_LBD, slope) if slope else h_LBD.relu_()
        keep_LBD = keep_mask(h_LBD.shape, p, h_LBD) if p else None
        if keep_LBD is not None:
            h_LBD.mul_(keep_LBD)
        # Where ReLU or dropout made a zero there is no gradient; of LeakyReLU the zeros of dropout alone have none.
        ctx.save_for_backward(read, w_KID, h_LBD, keep_LBD if slope else None)
        ctx.way, ctx.dilation, ctx.slope, ctx.p = way, dilation, slope, p
        return h_LBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor | None, ...]:
        read, w_KID, h_LBD, keep_LBD = ctx.saved_tensors
        if ctx.slope:
            grad_LBD = torch.ops.aten.leaky_relu_backward(grad_LBD, h_LBD, ctx.slope, True)
            if keep_LBD is not None:
                grad_LBD.mul_(keep_LBD)
        else:
            grad_LBD = torch.ops.aten.threshold_backward(grad_LBD, h_LBD, 0)
        grad_LBD = grad_LBD.contiguous()
        to_b_D = grad_LBD.sum(dim=(0, 1))
        gradients = winograd.gradients if ctx.way is Way.WINOGRAD else _gradients
        to_x_LBI, to_w_KID = gradients(read, w_KID, grad_LBD, ctx.dilation, of_input=ctx.needs_input_grad[0])
        if ctx.p:
            share = kept_share(ctx.p)
            to_w_KID, to_b_D = widened(to_w_KID) / share, widened(to_b_D) / share
        return to_x_LBI, to_w_KID, to_b_D, None, None, None


def _gradients(
    x_LBI: Tensor, w_KID: Tensor, grad_LBD: Tensor, dilation: int, *, of_input: bool
) -> tuple[Tensor | None, Tensor]:
    """Of x : L x B x I, or None, and of W : K x I x D, but for Winograd's way."""
    to_x_LBI = _input_gradient(grad_LBD, w_KID, dilation) if of_input else None
    if grad_LBD.shape[-1] < WIDE and _way(x_LBI, w_KID, dilation) is Way.LIBRARY:
        return to_x_LBI, _weight_gradient_of_wide_input(x_LBI, w_KID, grad_LBD, dilation)
    # Of each tap the frames that it sees times those that it adds to; a tap that sees none has no gradient.
    to_w_KID = torch.zeros_like(w_KID)
    for to_w_ID, seen_NI, from_ND in _taps(to_w_KID, x_LBI, grad_LBD, dilation):
        torch.mm(seen_NI.t(), from_ND, out=to_w_ID)
    return to_x_LBI, to_w_KID


def _weight_gradient_of_wide_input(x_LBI: Tensor, w_KID: Tensor, grad_LBD: Tensor, dilation: int) -> Tensor:
    """K x I x D: the taps next to each other are one product, which reads wide features once."""
    (frames, batch, width), taps = grad_LBD.shape, len(w_KID)
    of_taps_LBKD = grad_LBD.new_zeros(frames, batch, taps, width)
    for k in range(taps):
        shift = min((taps - 1 - k) * dilation, frames)
        of_taps_LBKD[: frames - shift, :, k] = grad_LBD[shift:]
    to_w_IF = torch.mm(x_LBI.flatten(0, 1).t(), of_taps_LBKD.view(frames * batch, -1))
    return to_w_IF.view(-1, taps, width).transpose(0, 1).contiguous()


def _input_gradient(grad_LBD: Tensor, w_KID: Tensor, dilation: int) -> Tensor:
    """L x B x I: frame l has reached the frames l + (K - 1 - k) dilation, each through W_k."""
    if _way(grad_LBD, w_KID, dilation) is Way.LIBRARY:
        return _library_convolution(grad_LBD, w_KID.flip(0).transpose(1, 2), None, dilation, past=False)
    to_x_LBI = grad_LBD.new_empty(*grad_LBD.shape[:2], w_KID.shape[1])
    first = True
    for w_DI, to_NI, from_ND in _taps(w_KID.transpose(1, 2), to_x_LBI, grad_LBD, dilation):
        if first:
            torch.mm(from_ND, w_DI, out=to_NI)
        else:
            torch.addmm(to_NI, from_ND, w_DI, out=to_NI)
        first = False
    return to_x_LBI


def _taps(of_taps: Tensor, x_LBI: Tensor, h_LBD: Tensor, dilation: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(what belongs to tap k, the frames that it sees, the frames that it adds to) : N x I and N x D.

    The last tap comes first; those that see no frame are left out. x and h are contiguous.
    """
    frames, batch, _ = x_LBI.shape
    x_NI, h_ND = x_LBI.view(frames * batch, -1), h_LBD.view(frames * batch, -1)
    # A product takes so little time here that each view counts.
    for back, of_tap in enumerate(reversed(of_taps.unbind())):
        rows = (frames - back * dilation) * batch
        if rows > 0:
            yield of_tap, x_NI[:rows] if back else x_NI, h_ND[-rows:] if back else h_ND


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
