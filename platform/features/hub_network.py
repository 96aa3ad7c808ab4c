"""Networks of the transformers library as frozen extractors of sound and of faces.

`hf:NAME` is the folder NAME among the weights, or else a model of that id that the cache of the hub holds already;
nothing is ever fetched. Pictures pass in batches of one shape, and sound in stretches of a clip, one at a time, by one
thread: so no feature depends on the number of workers or on what else is prepared.

N frames, S samples, T tokens of a stretch of sound, K pictures of a clip, C = 3 colours, P side of a picture,
D features.
"""

import functools
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfold.platform.core.errors import UserError
from crossfold.platform.features.bert import load_model
from crossfold.platform.features.extractors import HUB_FRONT_END, Origin
from crossfold.platform.modeling.determinism import one_thread
from crossfold.platform.modeling.pretrained_files import file_digest

READS: Mapping[str, tuple[str, ...]] = {
    "audio": ("wav2vec2", "hubert", "wavlm"),
    "visual": ("clip", "clip_vision_model", "dinov2", "vit", "videomae"),
}
"""The types of networks of each modality, as `model_type` of their config.json says."""

_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_BATCH = 32
"""Pictures of a batch; fixed, because it is part of what decides the last bit."""
_HOLDS = "config.json, preprocessor_config.json and model.safetensors"
_UNUSED = ("pooler.", "masked_spec_embed", "encoder.masked_spec_embed")
"""Weights that no feature depends on, so that a folder may lack them."""


@dataclass(frozen=True)
class HubNetwork:
    """A loaded network with what its preprocessor says."""

    model: Any
    kind: str
    """Its `model_type`."""
    preprocessor: Mapping[str, Any]
    device: str

    @property
    def rate(self) -> int:
        """Samples a second of the sound that it reads."""
        return int(self.preprocessor.get("sampling_rate", 16_000))

    @property
    def side(self) -> int:
        """P, of the pictures that it reads: the whole face crop at this size, nothing cut off."""
        size = self.preprocessor.get("crop_size") or self.preprocessor.get("size") or self.model.config.image_size
        return int(size.get("height") or size["shortest_edge"]) if isinstance(size, Mapping) else int(size)

    @property
    def pictures(self) -> int:
        """K: the pictures that end at a frame, one for a network of single pictures."""
        return int(self.model.config.num_frames) if self.kind == "videomae" else 1

    @property
    def batch(self) -> int:
        """N at most, of one call of `encode_pictures`."""
        return max(1, _BATCH // self.pictures)

    def encode_sound(self, sound: np.ndarray, times: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Sound [S] at `rate` -> float32 [N, D]: of each frame the mean of the tokens whose middle it holds, else the
        nearest token.

        times, lengths: when each frame begins and how long it is shown, in seconds.
        """
        if self.preprocessor.get("do_normalize", True):
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7) if len(sound) else sound
        tokens_TD, middles_T = self._tokens(sound.astype(np.float32))
        sums = np.concatenate([np.zeros((1, tokens_TD.shape[1])), np.cumsum(tokens_TD, axis=0, dtype=np.float64)])
        first, last = np.searchsorted(middles_T, times), np.searchsorted(middles_T, times + lengths)
        # Frames that are shorter than a token take the nearest one.
        after = np.clip(first, 1, max(len(middles_T) - 1, 1)) if len(middles_T) > 1 else np.zeros_like(first)
        if len(middles_T) > 1:
            centres = times + lengths / 2
            after -= np.abs(middles_T[after - 1] - centres) <= np.abs(middles_T[after] - centres)
        first, last = np.where(last > first, first, after), np.where(last > first, last, after + 1)
        means: np.ndarray = (sums[last] - sums[first]) / (last - first)[:, None]
        return means.astype(np.float32)

    def encode_pictures(self, raw: np.ndarray) -> np.ndarray:
        """RGB bytes [N, P, P, C], or [N, K, P, P, C] of clips, N at most `batch` -> float32 [N, D]."""
        # Kernels, and so the last bits, depend on the shape of a batch.
        filled = np.zeros((self.batch, *raw.shape[1:]), np.uint8)
        filled[: len(raw)] = raw
        with one_thread(), torch.inference_mode():
            x = torch.from_numpy(filled).to(self.device).movedim(-1, -3).float()  # N x (K x) C x P x P
            x = x * float(self.preprocessor.get("rescale_factor", 1 / 255))
            if self.preprocessor.get("do_normalize", True):
                mean, std = (torch.tensor(self.preprocessor[f"image_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
                x = (x - mean.to(self.device)) / std.to(self.device)
            found = self.model(pixel_values=x)
        features: np.ndarray = self._summary(found)[: len(raw)].float().cpu().numpy()
        return features

    def _summary(self, found: Any) -> Tensor:
        """N x D: the class token, after CLIP's last normalisation; the mean over tokens where there is none."""
        if self.kind.startswith("clip"):
            pooled: Tensor = found.pooler_output
            return pooled
        tokens: Tensor = found.last_hidden_state
        return tokens.mean(dim=1) if self.kind == "videomae" else tokens[:, 0]

    def _tokens(self, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [T, D] of a whole clip, and the middle of each in seconds."""
        step, field = self._reach
        tokens: list[np.ndarray] = []
        middles: list[np.ndarray] = []
        for begin, end, kept in _stretches(len(sound), self.rate, step):
            piece = sound[begin:end]
            piece = np.pad(piece, (0, max(0, field - len(piece))))  # no token would be left of less
            with one_thread(), torch.inference_mode():
                found_TD = self.model(input_values=torch.from_numpy(piece)[None].to(self.device)).last_hidden_state[0]
            at = (begin + np.arange(len(found_TD)) * step + field / 2) / self.rate
            mine = (at >= kept[0]) & (at < kept[1])
            if not mine.any() and not tokens:
                mine[:] = True  # a clip of a few samples
            tokens.append(found_TD.float().cpu().numpy()[mine])
            middles.append(at[mine])
        return np.concatenate(tokens), np.concatenate(middles)

    @property
    def _reach(self) -> tuple[int, int]:
        """Samples from one token to the next, and samples that the convolutions of a token see."""
        step, field = 1, 1
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        return step, field


def _stretches(samples: int, rate: int, step: int) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """Stretches [begin, end) of samples, each with the seconds [from, to) of the tokens to take from it.

    They overlap by the context on both sides, and begin at a whole number of tokens.
    """
    context = int(HUB_FRONT_END["context_seconds"]) * rate // step * step
    inner = int(HUB_FRONT_END["stretch_seconds"]) * rate // step * step - 2 * context
    begin = 0
    while True:
        last = begin + inner + context >= samples
        until = np.inf if last else (begin + inner) / rate
        yield max(0, begin - context), samples if last else begin + inner + context, (begin / rate, until)
        if last:
            return
        begin += inner


# Two: a clip's sound and its face.
@functools.lru_cache(maxsize=2)
def hub_network(source: str, modality: str, origin: Origin, device: str) -> HubNetwork:
    """The network of `hf:SOURCE`, loaded once per process.

    Raises `UserError` where it is neither among the weights nor in the cache of the hub, where its files do not fit
    together, and where it is not one of the modality.
    """
    folder = _folder_of(source, Path(origin.folder))
    config, preprocessor = (_read(folder, name) for name in ("config.json", "preprocessor_config.json"))
    kind = str(config.get("model_type"))
    if kind not in READS[modality]:
        raise UserError(
            f"{source} is a network of type {kind}", f"for {modality} give one of {', '.join(READS[modality])}"
        )
    if (
        modality == "visual"
        and preprocessor.get("do_normalize", True)
        and not {"image_mean", "image_std"} <= set(preprocessor)
    ):
        raise UserError(
            f"{folder}/preprocessor_config.json names no image_mean and image_std", f"give a folder of {_HOLDS}"
        )
    model, missing = load_model(folder, "AutoModel", f"a network of type {kind}")
    if lacking := sorted(key for key in missing if not key.startswith(_UNUSED)):
        raise UserError(
            f"{folder} lacks {len(lacking)} weights of the network, such as {lacking[0]}",
            "fetch its files again: model.safetensors is that of another model",
        )
    model = getattr(model, "vision_model", model)  # CLIP has a tower for text as well
    return HubNetwork(model.eval().requires_grad_(False).to(device), kind, preprocessor, device)


def hub_facts(source: str, modality: str, origin: Origin, device: str) -> dict[str, Any]:
    """What a manifest says of the network: its type, the digests of its files, and what its batches are."""
    folder = _folder_of(source, Path(origin.folder))
    network = hub_network(source, modality, origin, device)
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json", folder / "preprocessor_config.json"])
    weights = {"place": source, "sha256": {path.name: file_digest(path) for path in files}}
    return {"network": network.kind, "weights": weights, "batch": network.batch if modality == "visual" else 1}


def _folder_of(source: str, weights: Path) -> Path:
    if not _ID.fullmatch(source):
        raise UserError(
            f"hf:{source} is no name of a network",
            f"put its folder among the weights ({weights}, or --weights DIR) and give the name of the folder",
        )
    if (weights / source).is_dir():
        return weights / source
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError("networks of transformers need a package", "pip install 'crossfold[text]'") from None
    try:
        return Path(hub.snapshot_download(source, local_files_only=True))
    except (OSError, ValueError):
        raise UserError(
            f"network {source!r} is neither a folder in {weights} nor in the cache of the hub",
            f"put the folder there, with {_HOLDS}, or fetch it first: hf download {source}",
        ) from None


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UserError(f"{folder}: {name} {reason}", f"put the model's folder there, with {_HOLDS}") from None
    if not isinstance(content, dict):
        raise UserError(f"{folder}: {name} is no mapping", f"put the model's folder there, with {_HOLDS}")
    return content
