"""tanh in place, and on a CPU by the quicker sigmoid."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from crossfold.fusion_models.system import widened


def tanh_of(product: Tensor) -> Tensor:
    """tanh, written over `product`, whose own values nothing may need again.

    On the CPU it is 2 sigmoid(2 x) - 1, which torch computes five times quicker than tanh; the result is off by less
    than two units in the last place of 1. Narrow types compute it in float32, and round once.
    """
    if product.device.type != "cpu":
        return product.tanh_()
    result: Tensor = _Tanh.apply(product)
    return result


class _Tanh(torch.autograd.Function):
    """In place, with the gradient (1 - y^2) g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # In narrow types window by window, so that what is wide stays in the cache.
        for part in x if x.dtype == torch.bfloat16 else (x,):
            y = widened(part).mul_(2).sigmoid_().mul_(2).sub_(1)
            if y is not part:
                part.copy_(y)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gradient: Tensor = torch.ops.aten.tanh_backward(grad, *ctx.saved_tensors)
        return gradient
