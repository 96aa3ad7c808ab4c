"""Initial weights by the role and the shapes of a part, so that systems that share a part start from the same one."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

Seed = Callable[[str, Mapping[str, Sequence[int]]], int]
"""(role, shapes of its parameters by name) -> the seed of a part."""


def draw_weights(model: nn.Module, seed: Seed) -> None:
    """Draws the weights of every part of a model anew but those of its backbones, each from a seed of its own.

    A part is a module with `reset_parameters`, as all of torch and of ours that have weights. A module of a plug-in
    without it keeps what it was built with.
    """
    for role, module in roles_of(model):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and not role.startswith("frames."):
            shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
            torch.default_generator.manual_seed(seed(role, shapes))  # of the CPU; GPUs draw no weights
            reset()


def roles_of(module: nn.Module, role: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module with its role, parts before wholes: a whole may set the weights of its parts.

    The role is the path to the module, in the names that its parents give: a class may map the names of its parts to
    those that other classes have for the same thing in `roles`. A part that is mapped to nothing has the role of the
    whole.
    """
    names: Mapping[str, str] = getattr(module, "roles", {})
    for name, child in module.named_children():
        yield from roles_of(child, ".".join(filter(None, (role, names.get(name, name)))))
    yield role, module
