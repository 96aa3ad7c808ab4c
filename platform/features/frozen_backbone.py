"""Networks with frozen weights as feature extractors, the same bits however the work is shared out.

Every batch has the same shape, padded with zeros at the end of a clip, holds frames of one clip only, in their order,
and is computed by one thread: so no feature depends on the number of workers or on what else is prepared.

N inputs, D features.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crossfold.fusion_models.backbones.catalogue import BACKBONES, Backbone
from crossfold.platform.features.bert import FRONT_END, BertWords
from crossfold.platform.features.extractors import Extractor, Origin
from crossfold.platform.features.hub_network import hub_facts
from crossfold.platform.features.transcribe import words_facts
from crossfold.platform.modeling.determinism import one_thread
from crossfold.platform.modeling.pretrained import load_backbone, load_into
from crossfold.platform.modeling.pretrained_files import file_digest, find_weights, own_weights, weights_facts

BERT = "bert-base-uncased"
_BATCH = 64
_NUMBERS_A_BATCH = 1 << 23
"""Inputs of a batch in all: three clips of 16 pictures of 224 x 224, or 64 crops."""


def batch_of(backbone: Backbone) -> int:
    """Inputs of a batch; fixed, because it is part of what decides the last bit."""
    return max(1, min(_BATCH, _NUMBERS_A_BATCH // math.prod(backbone.frame_shape)))


@dataclass(frozen=True)
class FrozenBackbone:
    """A loaded backbone: raw input as stored -> features."""

    backbone: Backbone
    module: nn.Module
    device: str

    @property
    def batch(self) -> int:
        """N at most, of one call."""
        return batch_of(self.backbone)

    def encode(self, raw: np.ndarray, *, whole_batch: bool = True) -> np.ndarray:
        """Stored input [N, *shape], N at most `batch` -> float32 [N, D].

        whole_batch: it is filled with zeros to a whole batch, as kernels, and so the last bits, depend on its shape.
        """
        filled = np.zeros((self.batch if whole_batch else len(raw), *raw.shape[1:]), raw.dtype)
        filled[: len(raw)] = raw
        with one_thread(), torch.inference_mode():
            x_1N = torch.from_numpy(filled).unsqueeze(0).to(self.device)
            prepared_1N = self.backbone.prepare(x_1N, training=False)
            features_ND = self.module(prepared_1N[0])
        features: np.ndarray = features_ND[: len(raw)].float().cpu().numpy()
        return features


# Two: a clip's sound and its face.
@functools.lru_cache(maxsize=2)
def frozen(name: str, origin: Origin, device: str) -> FrozenBackbone:
    """The backbone of a name, loaded once per process.

    Raises `UserError` where its weights are missing or do not fit.
    """
    backbone = BACKBONES.get(name)
    module = built(backbone, origin.seed)
    if origin.seed is None:
        own = own_weights(backbone, Path(origin.folder))
        if own is not None:
            load_into(module, own)
        else:
            load_backbone(backbone, module, Path(origin.folder))
    module.eval().requires_grad_(False)
    return FrozenBackbone(backbone, module.to(device), device)


@functools.lru_cache(maxsize=1)
def word_encoder(origin: Origin, device: str) -> BertWords:
    """BERT from its folder among the weights."""
    return BertWords.load(find_weights(BERT, Path(origin.folder)), device)


def extractor_facts(extractor: Extractor, origin: Origin, device: str) -> dict[str, Any]:
    """How a modality is made, for the manifest of the store.

    Its network is loaded once, so that errors show before any work. Raises `UserError` where weights
    are missing.
    """
    if not extractor.needs_weights:
        return dict(extractor.front_end)
    facts: dict[str, Any] = {"extractor": extractor.name, "front_end": dict(extractor.front_end)}
    if extractor.hub is not None:
        facts["device"] = device
        return facts | hub_facts(extractor.hub, extractor.modality, origin, device)
    facts["weights"] = _weights_of(extractor, origin)
    facts["device"] = device
    if extractor.backbone is None:
        word_encoder(origin, device)
        return facts | {"encoder": FRONT_END} | words_facts(extractor.name, Path(origin.folder), device)
    backbone = frozen(extractor.backbone, origin, device).backbone
    return facts | {"backbone": backbone.name, "revision": backbone.revision, "batch": batch_of(backbone)}


def _weights_of(extractor: Extractor, origin: Origin) -> dict[str, Any]:
    """BERT comes with its vocabulary, so it is read from its folder also where backbones have random weights."""
    folder = Path(origin.folder)
    if extractor.backbone is None:
        return dict(weights_facts(BERT, folder))
    if origin.seed is not None:
        return {"random": origin.seed}
    backbone = BACKBONES.get(extractor.backbone)
    own = own_weights(backbone, folder)
    if own is not None:
        return {"name": "own", "place": own.name, "sha256": file_digest(own)}
    assert backbone.weights is not None, "own_weights has refused it"
    return dict(weights_facts(backbone.weights, folder))


def built(backbone: Backbone, seed: int | None) -> nn.Module:
    """The module with random weights that depend on the seed alone."""
    # The weights must not depend on what else this process drew.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        return backbone.build()
