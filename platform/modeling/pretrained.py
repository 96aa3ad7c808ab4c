"""Pretrained weights: found by name in one folder, checked against their digest, and loaded into a backbone.

Files that hold code are refused. Where no digest is published, the one of the first use is written beside the file,
with what the network then gave for a fixed input; both are compared ever after, so no number changes behind one's back.
"""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfold.datasets.media.spectrograms import VggishSpectrum
from crossfold.fusion_models.backbones.catalogue import Backbone
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.modeling.pretrained_catalogue import Expected, Weights, weights_entry
from crossfold.platform.workspace.workspace import Workspace

OWN_SUFFIX = ".safetensors"
"""Weights of one's own are read from `<backbone>.safetensors`, as `crossfold export --format backbone` writes them."""


def own_weights(backbone: Backbone, folder: Path) -> Path | None:
    """The file of weights of one's own training, which goes before published ones; None where those are used.

    Raises `UserError` where there is none and nobody publishes any.
    """
    path = folder / f"{backbone.name}{OWN_SUFFIX}"
    if path.is_file():
        return path
    if backbone.weights is not None:
        return None
    raise UserError(
        f"{backbone.name} has no published weights, and {path} is not there",
        f"train it from --{backbone.modality} raw:{backbone.input} and run `crossfold export SWEEP --format backbone "
        f"--out {folder}`, or pass --random-weights SEED to try the plumbing",
    )


State = dict[str, Tensor]

PREFIXES = ("module.", "model.", "encoder.", "backbone.", "net.")
"""What wrappers put before the names of parameters."""
_WRAPS = ("state_dict", "model_state_dict", "model", "net")
_SHOWN = 3
_PLACES = 6
_TOLERANCE = 1e-3
"""Of the standard deviation of the outputs; machines and versions differ by less, other weights by far more."""


@dataclass(frozen=True)
class Used:
    """What was loaded, for the manifest of a store or a cell."""

    name: str
    place: str
    sha256: str
    output: tuple[float, ...]
    """For the fixed input: mean, standard deviation, and some of the features."""

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "output": list(self.output)}


def weights_folder(given: Path | None = None, workspace: Workspace | None = None) -> Path:
    """`--weights`, else `CROSSFOLD_WEIGHTS`, else `weights` in the workspace."""
    if given is not None:
        return given.resolve()
    if "CROSSFOLD_WEIGHTS" in os.environ:
        return Path(os.environ["CROSSFOLD_WEIGHTS"]).resolve()
    return (workspace or Workspace.locate(None)).root / "weights"


def find_weights(name: str, folder: Path | None = None) -> Path:
    """The file or folder of some weights, there and whole.

    folder: else as `weights_folder` says. Raises `UserError` that names the file, the place and the page where it is
    missing, and both digests where it is another one.
    """
    entry = weights_entry(name)
    folder = weights_folder(folder)
    path = folder / entry.place
    if wrong := _absent(entry, path):
        raise UserError(f"weights {name!r} ({entry.title}) are missing: {wrong}", _remedy(entry, folder))
    if wrong := _altered(entry, path):
        raise UserError(f"weights {name!r}: {wrong}", _remedy(entry, folder, known=_seen(path)))
    return path


def weights_state(entry: Weights, folder: Path) -> tuple[str, str]:
    """(`present`, `missing` or `damaged`; what was found), for a listing; raises nothing, writes nothing."""
    path = folder / entry.place
    if wrong := _absent(entry, path):
        return ("damaged" if path.exists() else "missing"), wrong
    wrong = _altered(entry, path)
    return ("damaged", wrong) if wrong else ("present", str(path))


def _absent(entry: Weights, path: Path) -> str:
    if entry.is_folder and path.is_dir():
        lacking = [name for name in entry.holds if not (path / name).is_file()]
        return f"{path} lacks {', '.join(lacking)}" if lacking else ""
    if path.is_dir() if entry.is_folder else path.is_file():
        return ""
    other = "a file, not a folder" if path.is_file() else "a folder, not a file" if path.is_dir() else "not there"
    return f"{path} is {other}"


def _altered(entry: Weights, path: Path) -> str:
    """What is wrong with the digest, in words; nothing if it is right or nobody knows it."""
    seen = _seen(path)
    if entry.sha256 is None and not seen:
        return ""
    digest = digest_of(entry, path)
    if entry.sha256 is not None and not digest.startswith(entry.sha256):
        begins = "" if len(entry.sha256) == 64 else "beginning with "
        return f"{path} has SHA-256 {digest}, published is {begins}{entry.sha256}"
    if seen and seen["sha256"] != digest:
        return f"{path} has SHA-256 {digest}, on its first use ({seen['first_used'][:10]}) it had {seen['sha256']}"
    return ""


def _remedy(entry: Weights, folder: Path, known: Mapping[str, Any] | None = None) -> str:
    what = "the folder" if entry.is_folder else "the file"
    advice = f"put {what} {entry.place} from {entry.page} into {folder}"
    if known and entry.sha256 is None:
        return f"{advice}, or delete {entry.place}.seen.json there to start anew with these"
    return f"{advice}, or name its folder with --weights or CROSSFOLD_WEIGHTS"


def digest_of(entry: Weights, path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests of the files it must hold."""
    if not entry.is_folder:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for name in entry.holds:
        with (path / name).open("rb") as file:
            whole.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _seen_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.seen.json")


def _seen(path: Path) -> dict[str, Any]:
    """The record of the first use; empty if there is none."""
    try:
        seen = json.loads(_seen_path(path).read_text(encoding="utf-8"))
        return {"sha256": str(seen["sha256"]), "first_used": str(seen["first_used"]), "outputs": dict(seen["outputs"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{_seen_path(path)} is not a record of weights", "delete it; it is written anew") from None


def load_backbone(backbone: Backbone, module: nn.Module, folder: Path | None = None) -> Used | None:
    """Fills a backbone with its published weights; None where it has none and is trained from scratch.

    Raises `UserError` where the file is missing, is another one, does not fit the network, or makes the network give
    something else than it gave on first use or than its publisher says.
    """
    if backbone.weights is None:
        return None
    entry = weights_entry(backbone.weights)
    path = find_weights(entry.name, folder)
    load_into(module, path, adapt=backbone.adapt, unused=backbone.unused)
    if entry.expected is not None:
        _check_published(entry, entry.expected, backbone, module, path)
    used = Used(entry.name, entry.place, digest_of(entry, path), fingerprint(backbone, module))
    record_use(used, path, f"{backbone.name}, revision {backbone.revision}")
    return used


def load_into(
    module: nn.Module,
    path: Path,
    *,
    adapt: Callable[[State], State] = dict,
    unused: Iterable[str] = (),
) -> None:
    """Loads `.safetensors`, or a `.pth` without code, into a module; all of it or, with a `UserError`, nothing.

    Names may begin with what wrappers put there (`PREFIXES`). adapt: the file's state dict -> the module's.
    unused: beginnings of names that the module is right to leave out, such as those of a classifier.
    """
    wanted = module.state_dict()
    state = adapt(unwrapped(read_state(path), wanted))
    state = {name: value for name, value in state.items() if name in wanted or not name.startswith(tuple(unused))}
    problems = _differences(state, wanted)
    if problems:
        raise UserError(
            f"{path} does not fit the network: {'; '.join(problems)}", "the file holds weights of another network"
        )
    if bad := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise UserError(f"{path}: {bad[0]} has values that are not finite", "the file is damaged; fetch it again")
    # Counters of batch norm came to torch later than some files; they matter to nobody here.
    module.load_state_dict(state, strict=False)


def _differences(state: State, wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {_shape(state[name])} in the file, {_shape(value)} in the network"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} tensors are missing ({_some(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} are unknown ({_some(unknown)})")
    if shapes:
        problems.append(f"{len(shapes)} shapes differ ({_some(shapes)})")
    return problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


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
    for wrap in _WRAPS:
        if isinstance(content, Mapping) and isinstance(content.get(wrap), Mapping):
            content = content[wrap]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no state dict", "save `module.state_dict()`, tensors by name")
    return tensors


def unwrapped(state: State, wanted: Mapping[str, Tensor]) -> State:
    """The same tensors without what wrappers put before most of their names."""
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
    x = torch.sin(torch.arange(count, dtype=torch.float64) ** 1.1).float().reshape(1, *backbone.frame_shape)
    y_D = _evaluated(module, x)[0]
    places = torch.linspace(0, len(y_D) - 1, _PLACES).long()
    return (float(y_D.mean()), float(y_D.std()), *(float(value) for value in y_D[places]))


def record_use(used: Used, path: Path, key: str) -> None:
    """Writes down the digest and output of a first use beside the weights; a later use that differs is a `UserError`.

    A folder that may not be written has no record; the caller's manifest holds the same facts.
    """
    seen = _seen(path) or {"sha256": used.sha256, "first_used": utc_now(), "outputs": {}}
    before = seen["outputs"].get(key)
    if before is None:
        seen["outputs"][key] = list(used.output)
        try:
            write_json(_seen_path(path), seen)
        except OSError:
            return
    elif not np.allclose(before, used.output, rtol=0, atol=_TOLERANCE * max(abs(before[1]), 1e-12)):
        raise UserError(
            f"{key} with {path} gives mean {used.output[0]:.6g} and std {used.output[1]:.6g} for the fixed input; on "
            f"first use ({seen['first_used'][:10]}) it gave {before[0]:.6g} and {before[1]:.6g}",
            f"the code or a library changed; delete {_seen_path(path)} to accept the new numbers",
        )


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
