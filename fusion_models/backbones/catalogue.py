"""All backbones by name: input, output, origin of the weights, and the order in which layers are unfrozen.

Legend: N frames or clips, D features of one.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossfold.fusion_models.backbones.inputs import Prepare
from crossfold.platform.core.registry import Registry

State = dict[str, Tensor]
"""A state dict."""

Prefixes = tuple[str, ...]
"""Beginnings of parameter names."""

GROUPS = 3
"""Groups of layers that are unfrozen one after the other (002 sec. 4.2, 001 sec. 4.3)."""


def _unchanged(state: Mapping[str, Tensor]) -> State:
    return dict(state)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An encoder of one frame or one clip, frozen or trainable. `build` gives the module with random weights.

    The module maps float32 `N x *frame_shape` -> `N x width`; in `eval` a row depends on no other row.
    """

    name: str
    title: str
    source: str
    """Paper and section, as in `002 sec. 3.1`, and what was decided where print is silent."""
    modality: str
    """`audio` or `visual`."""
    input: str
    """The kind of raw input it reads, a name of `datasets/store/input_kinds.py` such as `crops48` or `clips16@112`."""
    raw_shape: tuple[int, ...]
    """Of one frame of that input as `prepare` takes it: (48, 48, 3), or of a clip (16, 112, 112, 3)."""
    frame_shape: tuple[int, ...]
    """Of one input of the module, after `prepare`: channels first."""
    width: int
    """D, features of one frame."""
    build: Callable[[], nn.Module]
    preparation: Prepare
    groups: tuple[Prefixes, Prefixes, Prefixes]
    """The layers that are unfrozen first, second and third, from the output side to the input side."""
    stays: Prefixes = ()
    """The layers that gradual unfreezing never reaches. With the groups, every parameter is named exactly once."""
    weights: str | None = None
    """Its pretrained weights, a name in `platform/modeling/pretrained_catalogue.py`; None: trained from scratch."""
    adapt: Callable[[Mapping[str, Tensor]], State] = _unchanged
    """The published state dict -> one with the names and shapes of the module."""
    unused: Prefixes = ()
    """Parts of the published state dict that a backbone leaves out, such as a classifier."""
    revision: int = 1
    """Higher by one after each change of its features on purpose; part of the identity of what is made with it."""

    def prepare(self, raw: Tensor, *, training: bool, generator: torch.Generator | None = None) -> Tensor:
        """Stored input : B x L x *raw_shape -> float32 B x L x *frame_shape, on the same device.

        In training pictures are cropped (and mirrored, where the paper does) at random, alike for all frames of a
        window; `generator` is one of the CPU, and with it the draws repeat. Otherwise the crop is the centre.
        """
        if raw.shape[2:] != self.raw_shape:
            raise ValueError(
                f"{self.name} reads {self.input}, B x L x {' x '.join(map(str, self.raw_shape))}; "
                f"given {' x '.join(map(str, raw.shape))}"
            )
        return self.preparation(raw, training, generator)

    def encode(self, module: nn.Module, x: Tensor) -> Tensor:
        """B x L x *frame_shape -> B x L x width."""
        features_ND: Tensor = module(x.flatten(0, 1))
        return features_ND.view(*x.shape[:2], -1)


BACKBONES: Registry[Backbone] = Registry("backbone", "crossfold.fusion_models.backbones")


def register(backbone: Backbone) -> Backbone:
    """Registers a backbone under its name; for plugins too."""
    origin = sys._getframe(1).f_globals["__name__"]
    return BACKBONES.register(backbone.name, origin=origin)(backbone)


def unfreeze(backbone: Backbone, module: nn.Module, groups: int | None, *, training: bool = True) -> None:
    """Lets the first `groups` groups learn and freezes the rest; None unfreezes everything, `stays` included.

    A frozen part is in `eval` even while the rest trains, so that its batch norm keeps the statistics it came with and
    its dropout is off. `module.train()` undoes that: call this after it.
    """
    if groups is not None and not 0 <= groups <= GROUPS:
        raise ValueError(f"{groups} groups of {backbone.name}, which has {GROUPS}")
    learning = ("",) if groups is None else tuple(prefix for group in backbone.groups[:groups] for prefix in group)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(learning))
    for name, part in module.named_modules():
        # `part.train` would also set its sub-modules, which may be in another group.
        part.training = training and f"{name}.".startswith(learning)
