"""A causal dilated convolution with its activation and dropout, as one function of frames that come first.

Legend: L frames, B batch, N frames of all windows, I input features, D features of the layer, K taps of a kernel.

With the frames first, what tap k sees is one contiguous block, and a convolution is K matrix products that add up in
one place: y[s:] += x[: L - s] W_k, s = (K - 1 - k) dilation. Nothing is padded, copied or stored but the result.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from crossfold.fusion_models.blocks.dropout import keep_mask, kept_share


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
        to_x_LBI = torch.empty_like(x_LBI) if ctx.needs_input_grad[0] else None
        to_w_KID = torch.zeros_like(w_KID)
        taps = len(w_KID)
        for k, seen_NI, from_ND in _taps(x_LBI, grad_LBD, taps, ctx.dilation):
            torch.mm(seen_NI.t(), from_ND, out=to_w_KID[k])
            if to_x_LBI is not None:
                sum_NI = to_x_LBI.flatten(0, 1)[: len(from_ND)]
                if k == taps - 1:
                    torch.mm(from_ND, w_KID[k].t(), out=sum_NI)
                else:
                    torch.addmm(sum_NI, from_ND, w_KID[k].t(), out=sum_NI)
        return to_x_LBI, to_w_KID, grad_LBD.sum(dim=(0, 1)), None, None, None


def _taps(x_LBI: Tensor, h_LBD: Tensor, taps: int, dilation: int) -> list[tuple[int, Tensor, Tensor]]:
    """(k, the frames that tap k sees, the frames that it adds to) : N x I and N x D, of the taps that see any."""
    frames = len(x_LBI)
    reached = ((k, (taps - 1 - k) * dilation) for k in reversed(range(taps)))
    return [(k, x_LBI[: frames - s].flatten(0, 1), h_LBD[s:].flatten(0, 1)) for k, s in reached if s < frames]
