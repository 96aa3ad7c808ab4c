"""Any torch module `forward(audio, visual, mask)` as the attention of a system.

Legend: B batch, L frames of a window, D features of one modality, Z features that the module returns.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crossfold.fusion_models.system import Features, Modal, Notes, Widths
from crossfold.platform.core.errors import UserError

Build = Callable[[Any, Widths, int], nn.Module]
"""(params, widths, frames) -> a module; `frames` is L, the length of the training windows."""

FUSED = "fused"
"""The name of what a module returns as one tensor."""


def module_attention(build: Build) -> Build:
    """The `attend` of a `System` whose attention is a plain torch module.

    build: makes the module, whose `forward` takes the modalities of the system in canonical order (audio, visual, text;
    float B x L x d_m each, zero on padded frames) and the mask (bool B x L, true where a frame is real). It returns
    either one tensor B x L x Z, the fused features, or a tuple with a tensor for each modality, the attended features.
    Any widths are right; those of attended features must be those of the input for `yields_pairs` (`+dca`).
    """
    return lambda params, widths, frames: ModuleAttention(build(params, widths, frames), widths, frames)


class ModuleAttention(nn.Module):
    """The trajectory [X, module(X)], zero on padded frames."""

    steps = 1

    def __init__(self, module: nn.Module, widths: Widths, frames: int) -> None:
        """Runs the module once on zeros, which says what it returns, and gives lazy layers their shapes."""
        super().__init__()
        self.module = module
        training = module.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            x = {m: torch.zeros(1, frames, width) for m, width in widths.items()}
            module.eval()
            returned = self._named(module(*x.values(), torch.ones(1, frames, dtype=torch.bool)), x)
        module.train(training)
        for name, value in returned.items():
            if value.shape[:-1] != (1, frames):
                raise UserError(
                    f"{type(module).__name__}.forward returns {tuple(value.shape)} for {name} of 1 window of {frames} "
                    f"frames",
                    "return tensors [batch, frames, features], with a row for each frame",
                )
        self.widths = {name: value.shape[-1] for name, value in returned.items()}

    def forward(self, features: Features, notes: Notes | None = None) -> list[Modal]:
        """[X, what the module returns], each tensor B x L x its width."""
        returned = self._named(self.module(*features.x.values(), features.mask_BL), features.x)
        return [features.x, {name: y_BLZ * features.mask_BL.unsqueeze(-1) for name, y_BLZ in returned.items()}]

    def _named(self, returned: object, x: Modal) -> Modal:
        if isinstance(returned, Tensor):
            return {FUSED: returned}
        found = list(returned) if isinstance(returned, tuple | list) else []
        if len(found) != len(x) or not all(isinstance(each, Tensor) for each in found):
            raise UserError(
                f"{type(self.module).__name__}.forward returns {_described(returned)}",
                f"return one tensor of fused features, or a tuple of {len(x)} tensors: {', '.join(x)}",
            )
        return dict(zip(x, found, strict=True))


def _described(returned: object) -> str:
    if isinstance(returned, tuple | list):
        return f"a {type(returned).__name__} of {', '.join(type(each).__name__ for each in returned) or 'nothing'}"
    return f"a value of type {type(returned).__name__}"
