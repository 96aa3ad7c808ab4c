"""Pretrained weights, loaded into a backbone and checked by what the filled network gives for a fixed input.

Files that hold code are refused.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfold.datasets.media.spectrograms import VggishSpectrum
from crossfold.fusion_models.backbones.catalogue import Backbone
from crossfold.platform.core.errors import UserError
from crossfold.platform.modeling.pretrained_catalogue import Expected, Weights, weights_entry
from crossfold.platform.modeling.pretrained_files import digest_of, find_weights, record_use

State = dict[str, Tensor]

PREFIXES = ("module.", "model.", "encoder.", "backbone.", "net.")
"""What wrappers put before the names of parameters."""
_WRAPS = ("state_dict", "model_state_dict", "model", "net")
_SHOWN = 3
_PLACES = 6


def load_backbone(backbone: Backbone, module: nn.Module, folder: Path | None = None) -> dict[str, Any] | None:
    """Fills a backbone with its published weights; None where it has none and is trained from scratch.

    Returns what was loaded, for the manifest of a store or a cell: name, place, digest, and the output for the fixed
    input. Raises `UserError` where the file is missing, is another one, does not fit the network, or makes the network
    give something else than it gave on first use or than its publisher says.
    """
    if backbone.weights is None:
        return None
    entry = weights_entry(backbone.weights)
    path = find_weights(entry.name, folder)
    load_into(module, path, adapt=backbone.adapt, unused=backbone.unused)
    if entry.expected is not None:
        _check_published(entry, entry.expected, backbone, module, path)
    digest, output = digest_of(entry, path), fingerprint(backbone, module)
    record_use(path, f"{backbone.name}, revision {backbone.revision}", digest, output)
    return {"name": entry.name, "place": entry.place, "sha256": digest, "output": list(output)}


def load_into(
    module: nn.Module, path: Path, *, adapt: Callable[[State], State] = dict, unused: Iterable[str] = ()
) -> None:
    """Loads `.safetensors`, or a `.pth` without code, into a module; all of it or, with a `UserError`, nothing.

    Names may begin with what wrappers put there (`PREFIXES`). adapt: the file's state dict -> the module's.
    unused: beginnings of names that the module does not need, such as those of a classifier.
    """
    wanted = module.state_dict()
    state = adapt(unwrapped(read_state(path), wanted))
    state = {name: value for name, value in state.items() if name in wanted or not name.startswith(tuple(unused))}
    if problems := _differences(state, wanted):
        raise UserError(
            f"{path} does not fit the network: {'; '.join(problems)}", "the file holds weights of another network"
        )
    if bad := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise UserError(f"{path}: {bad[0]} has values that are not finite", "the file is damaged; fetch it again")
    # Counters of batch norm came to torch later than some files, and nothing here reads them.
    module.load_state_dict(state, strict=False)


def _differences(state: State, wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {_shape(state[name])} in the file, {_shape(value)} in the network"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    counted = {
        f"{len(missing)} of {len(wanted)} tensors are missing": missing,
        f"{len(unknown)} are unknown": unknown,
        f"{len(shapes)} shapes differ": shapes,
    }
    return [
        f"{problem} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for problem, names in counted.items()
        if names
    ]


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a single number"


def read_state(path: Path) -> State:
    """The tensors of a `.safetensors` or `.pth` file by name. Raises `UserError`; never runs code of the file."""
    damaged = "the file is damaged or was not copied whole; fetch it again"
    if not path.is_file():
        raise UserError(f"{path} is not there", "give the path of a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path} holds code, not only weights: {found[1]}", "save its state dict alone, or as .safetensors"
            ) from None
        raise UserError(f"{path} cannot be read as weights", damaged) from None
    except Exception as error:  # a damaged pickle makes its reader raise anything
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be read as weights: {reason}", damaged) from None
    # Training scripts save the state dict under a key, next to their optimiser's.
    for wrap in _WRAPS:
        if isinstance(content, Mapping) and isinstance(content.get(wrap), Mapping):
            content = content[wrap]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no state dict", "save `module.state_dict()`, tensors by name")
    return tensors


def unwrapped(state: State, wanted: Mapping[str, Tensor]) -> State:
    """The same tensors without the prefixes that wrappers put before most of their names."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            begun = [name for name in state if name.startswith(prefix)]
            # A network may have a part of that name itself.
            if 2 * len(begun) > len(state) and not any(name.startswith(prefix) for name in wanted):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                stripped = True
    return state


@torch.no_grad()
def _evaluated(module: nn.Module, x: Tensor) -> Tensor:
    modes = {part: part.training for part in module.modules()}
    like = next(module.parameters())
    module.eval()
    try:
        y: Tensor = module(x.to(like.device, like.dtype))
        return y.double().cpu()
    finally:
        for part, training in modes.items():
            part.training = training


def fingerprint(backbone: Backbone, module: nn.Module) -> tuple[float, ...]:
    """What a filled backbone gives for one fixed input: mean, standard deviation, six of the features."""
    count = int(np.prod(backbone.frame_shape))
    # Neither random numbers nor a picture: the same on every machine and version.
    x = torch.sin(torch.arange(count, dtype=torch.float64) ** 1.1).float().reshape(1, *backbone.frame_shape)
    y_D = _evaluated(module, x)[0]
    places = torch.linspace(0, len(y_D) - 1, _PLACES).long()
    return (float(y_D.mean()), float(y_D.std()), *(float(value) for value in y_D[places]))


def _check_published(entry: Weights, expected: Expected, backbone: Backbone, module: nn.Module, path: Path) -> None:
    assert expected.probe == "tone"
    tone = np.sin(2 * np.pi * 1000 * np.arange(3 * 16_000) / 16_000).astype(np.float32)
    raw = torch.from_numpy(VggishSpectrum(tone).examples(np.array([0.0, 0.96, 1.92])))
    y = _evaluated(module, backbone.prepare(raw.unsqueeze(0), training=False)[0])
    y = y.relu() if expected.relu else y
    found = (float(y.mean()), float(y.std(correction=0)))
    if not np.allclose(found, (expected.mean, expected.std), rtol=expected.tolerance, atol=0):
        raise UserError(
            f"weights {entry.name!r} in {path} give mean {found[0]:.3f} and std {found[1]:.3f} for three seconds of "
            f"1 kHz; {expected.source} says {expected.mean} and {expected.std}",
            f"they are weights of something else; the right ones: {entry.page}",
        )
