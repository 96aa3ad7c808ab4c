"""Where the weights of a plan come from, on what its networks run, and what the store's manifest says of both."""

from pathlib import Path
from typing import Any

from crossfold.fusion_models.backbones.catalogue import BACKBONES
from crossfold.platform.features.bert import FRONT_END
from crossfold.platform.features.extractors import Extractor, FeaturePlan, Origin
from crossfold.platform.features.frozen_backbone import batch_of, extractor_weights, frozen, word_encoder
from crossfold.platform.features.transcribe import words_facts
from crossfold.platform.modeling.pretrained_files import weights_folder
from crossfold.platform.workspace.workspace import Workspace


def weights_origin(plan: FeaturePlan, workspace: Workspace, weights: Path | None) -> Origin:
    """Where workers find weights."""
    return Origin(str(weights_folder(weights, workspace)), plan.random_weights)


def extractor_facts(extractor: Extractor, place: Origin, device: str) -> dict[str, Any]:
    """How a modality is made: its network is loaded once, so that what is wrong with it shows before any work."""
    if not extractor.needs_weights:
        return dict(extractor.front_end)
    way: dict[str, Any] = {"extractor": extractor.name, "front_end": dict(extractor.front_end)}
    way["weights"] = extractor_weights(extractor, place)
    way["device"] = device
    if extractor.backbone is None:
        word_encoder(place, device)
        return way | {"encoder": FRONT_END} | words_facts(extractor.name, Path(place.folder), device)
    backbone = BACKBONES.get(extractor.backbone)
    frozen(extractor.backbone, place, device)
    return way | {"backbone": backbone.name, "revision": backbone.revision, "batch": batch_of(backbone)}
