"""Kernels of a convolution whose direction and length are learnt apart, as one function with its gradient.

Written as torch operations, the equation takes about twenty of them a layer and step, most of a few microseconds.

Legend: D features of the layer, I input features, K taps of a kernel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def normed_kernels(v_DIK: Tensor, g_D11: Tensor) -> Tensor:
    """W = g v / |v| : K x I x D, contiguous; |v| is the length of all taps of a feature."""
    w_KID: Tensor = _NormedKernels.apply(v_DIK, g_D11)
    return w_KID


class _NormedKernels(torch.autograd.Function):
    """Salimans and Kingma 2016, equations 2 and 3."""

    @staticmethod
    def forward(ctx: Any, v_DIK: Tensor, g_D11: Tensor) -> Tensor:
        norm_D11 = torch.linalg.vector_norm(v_DIK, dim=(1, 2), keepdim=True)
        scale_D11 = g_D11 / norm_D11
        ctx.save_for_backward(v_DIK, norm_D11, scale_D11)
        w_KID = v_DIK.new_empty(v_DIK.shape[::-1])
        return torch.mul(v_DIK.permute(2, 1, 0), scale_D11.flatten(), out=w_KID)  # eq 2: W = g v / |v|

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_KID: Tensor) -> tuple[Tensor, Tensor]:
        v_DIK, norm_D11, scale_D11 = ctx.saved_tensors
        grad_DIK = grad_KID.permute(2, 1, 0)
        # eq 3: of g it is grad . v / |v|, of v it is g / |v| (grad - (grad . v / |v|) v / |v|)
        to_g_D11 = (grad_DIK * v_DIK).sum(dim=(1, 2), keepdim=True).div_(norm_D11)
        to_v_DIK = torch.addcmul(grad_DIK, v_DIK, to_g_D11 / norm_D11, value=-1).mul_(scale_D11)
        return to_v_DIK, to_g_D11
