"""K cells of one system as one stacked model: `torch.func.vmap`, with rules of our own where torch has none.

The rules compute the convolutions of all models as batched products, and draw the keep masks of each model from the
generator of that model, as it draws them alone.

Legend: K models, L frames, B windows, I input features, D features, T taps of a kernel.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import functional_call, stack_module_state

from crossfold.datasets.batches.source import Batch
from crossfold.fusion_models.blocks import dropout, joint_attention, temporal
from crossfold.fusion_models.kernels import tanh
from crossfold.fusion_models.kernels.keep_mask import LEVELS, kept_share
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.training.losses import loss_of
from crossfold.platform.training.train import make_optimizer


class StackedCells:
    """Models that take their steps together; windows have no padding."""

    def __init__(self, models: Sequence[EmotionModel], recipe: Recipe, seeds: Sequence[int]) -> None:
        """`seeds`: of the dropout of each model."""
        params, self.buffers = stack_module_state(list(models))
        self.params = {name: stacked.detach().clone().requires_grad_() for name, stacked in params.items()}
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = copy.deepcopy(models[0]).to("meta").train()
        self.recipe = recipe
        self.optimizer = make_optimizer(list(self.params.values()), recipe.optimizer)

    def step(self, x: Mapping[str, Tensor], batches: Sequence[Batch]) -> None:
        """A step of each model. x: K x B x L x I of each modality, or B x L x I where all models read the same."""
        self.optimizer.zero_grad(set_to_none=True)
        real = batches[0].real

        def predict(params: dict[str, Tensor], buffers: dict[str, Tensor], read: dict[str, Tensor]) -> Tensor:
            predicted: Tensor = functional_call(self.shape, (params, buffers), (read, real))
            return predicted

        axis = 0 if next(iter(x.values())).ndim == 4 else None
        with _own_rules(self.generators):
            y_KBLT = torch.vmap(predict, in_dims=(0, 0, axis), randomness="different")(self.params, self.buffers, x)
        losses = [loss_of(y_BLT, batch, self.recipe.loss) for y_BLT, batch in zip(y_KBLT, batches, strict=True)]
        torch.stack(losses).sum().backward()
        self._clip()
        self.optimizer.step()

    def _clip(self) -> None:
        largest = self.recipe.optimizer.clip_norm
        assert largest is not None
        gradients = [p.grad for p in self.params.values() if p.grad is not None]
        norm_K = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        share_K = (largest / (norm_K + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(share_K.view(-1, *(1,) * (gradient.ndim - 1)))


def _own_rules(generators: Sequence[torch.Generator]) -> ExitStack:
    """The blocks with functions that `vmap` can call."""
    rules = ExitStack()
    for owner, name, rule in (
        (temporal, "causal_layer", lambda x, w, b, **how: _Layer.apply(x, w, b, generators, how)),
        (temporal, "normed_kernels", _normed),
        (joint_attention, "tanh_of", _Tanh.apply),
        (dropout.Dropout, "forward", lambda layer, x: _Dropout.apply(x, layer.rate, generators) if layer.rate else x),
    ):
        rules.enter_context(mock.patch.object(owner, name, rule))
    return rules


def _normed(v: Tensor, g: Tensor) -> Tensor:
    kernels: Tensor = (v * (g / torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True))).permute(2, 1, 0)
    return kernels


def keep_masks(shape: Sequence[int], p: float, like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """`keep_mask` of each model, K x shape."""
    size = math.prod(shape)
    drawn = torch.empty(len(generators), (size + 3) // 4, dtype=torch.int64)
    for row, generator in zip(drawn, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    bits = drawn.view(torch.int16)[:, :size].view(-1, *shape)
    first = round((1 - kept_share(p)) * LEVELS) - LEVELS // 2
    return torch.ge(bits, first, out=torch.empty(bits.shape, dtype=like.dtype))


class _OnlyStacked(Function):
    """Has a rule for `vmap` alone."""

    @staticmethod
    def forward(*inputs):
        raise AssertionError("only called by vmap")

    @staticmethod
    def setup_context(ctx, inputs, output):
        raise AssertionError("only called by vmap")


class _Layer(_OnlyStacked):
    @staticmethod
    def vmap(info, axes, x, w, b, generators, how):
        x_KLBI = (x.expand(info.batch_size, *x.shape) if axes[0] is None else x.movedim(axes[0], 0)).contiguous()
        w_KTID, b_KD, share = w.movedim(axes[1], 0), b.movedim(axes[2], 0), kept_share(how["p"])
        return _Convolution.apply(x_KLBI, w_KTID / share, b_KD / share, generators, how), 0


class _Dropout(_OnlyStacked):
    @staticmethod
    def vmap(info, axes, x, p, generators):
        x = x.movedim(axes[0], 0)
        return x * keep_masks(x.shape[1:], p, x, generators).div_(kept_share(p)), 0


class _Tanh(_OnlyStacked):
    @staticmethod
    def vmap(info, axes, x):
        return tanh._Tanh.apply(x.movedim(axes[0], 0)), 0


class _Convolution(Function):
    """`causal_layer` of ReLU for K models."""

    @staticmethod
    def forward(ctx, x_KLBI, w_KTID, b_KD, generators, how):
        assert not how["slope"]
        h_KLBD = x_KLBI.new_empty(*x_KLBI.shape[:3], b_KD.shape[1])
        for t, seen_KNI, to_KND in _taps(x_KLBI, h_KLBD, w_KTID.shape[1], how["dilation"]):
            first = t == w_KTID.shape[1] - 1
            torch.baddbmm(b_KD.unsqueeze(1) if first else to_KND, seen_KNI, w_KTID[:, t], out=to_KND)
        h_KLBD.relu_().mul_(keep_masks(h_KLBD.shape[1:], how["p"], h_KLBD, generators))
        ctx.save_for_backward(x_KLBI, w_KTID, h_KLBD)
        ctx.dilation = how["dilation"]
        return h_KLBD

    @staticmethod
    def backward(ctx, grad_KLBD):
        x_KLBI, w_KTID, h_KLBD = ctx.saved_tensors
        grad_KLBD = torch.ops.aten.threshold_backward(grad_KLBD, h_KLBD, 0).contiguous()
        to_w_KTID, to_x_KLBI = torch.zeros_like(w_KTID), None
        for t, seen_KNI, from_KND in _taps(x_KLBI, grad_KLBD, w_KTID.shape[1], ctx.dilation):
            to_w_KTID[:, t] = torch.bmm(seen_KNI.transpose(1, 2), from_KND)
        if ctx.needs_input_grad[0]:
            to_x_KLBI = torch.zeros_like(x_KLBI)
            for t, to_KNI, from_KND in _taps(to_x_KLBI, grad_KLBD, w_KTID.shape[1], ctx.dilation):
                torch.baddbmm(to_KNI, from_KND, w_KTID[:, t].transpose(1, 2), out=to_KNI)
        return to_x_KLBI, to_w_KTID, grad_KLBD.sum(dim=(1, 2)), None, None


def _taps(x_KLBI, h_KLBD, taps, dilation):
    frames = x_KLBI.shape[1]
    reached = ((t, (taps - 1 - t) * dilation) for t in reversed(range(taps)))
    return [(t, x_KLBI[:, : frames - s].flatten(1, 2), h_KLBD[:, s:].flatten(1, 2)) for t, s in reached if s < frames]
