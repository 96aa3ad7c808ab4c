"""Backbones and their pretrained weights, as rows for `list` and `doctor`."""

from pathlib import Path
from typing import Any

from crossfold.platform.edge.terminal.kept_rows import kept_rows

_PACKAGE = Path(__file__).parents[3]


def backbone_rows() -> list[dict[str, Any]]:
    """What `list backbones` shows."""
    return kept_rows("backbones", _backbones, Path(__file__))


def extractor_rows() -> list[dict[str, Any]]:
    """What `list extractors` shows: the names that --audio, --visual and --text of `prepare` take."""
    folders = ("platform/features", "datasets/media", "datasets/store")
    return kept_rows("extractors", _extractors, Path(__file__), *(_PACKAGE / folder for folder in folders))


def _backbones() -> list[dict[str, Any]]:
    from crossfold.fusion_models.backbones.catalogue import BACKBONES

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": entry.title,
            "modality": entry.modality,
            "input": entry.input,
            "features": entry.width,
            "weights": entry.weights or "from scratch",
            "paper": entry.source,
        }
        for name in BACKBONES
        for entry in [BACKBONES.get(name)]
    ]
    # A backbone whose library is missing is listed with the reason, never left out.
    blank = dict.fromkeys(("modality", "input", "features", "weights", "paper"))
    return rows + [{"name": n, "title": f"unavailable: {why}", **blank} for n, why in BACKBONES.unavailable.items()]


def _extractors() -> list[dict[str, Any]]:
    from crossfold.fusion_models.backbones.catalogue import BACKBONES
    from crossfold.platform.features.extractors import extractors

    def needed(backbone: str | None, name: str) -> str:
        # Extractors of words are no backbones; one that transcribes needs a model for each step.
        words = {"bert": "bert-base-uncased", "vosk": "vosk-en-us", "punctuation": "punctuation"}
        if name.split("+")[0] in words:
            return ", ".join(words[part] for part in name.split("+"))
        return "nothing" if backbone is None else BACKBONES.get(backbone).weights or "your own"

    return [
        {
            "modality": row.modality,
            "name": row.name,
            "title": row.title,
            "a frame": " x ".join(map(str, row.shape)) if row.shape else "as the model",
            "reads": row.reads,
            "weights": needed(row.backbone, row.name),
        }
        for row in extractors().values()
    ] + [
        {
            "modality": modality,
            "name": "hf:NAME",
            "title": f"a network of transformers, frozen: {kinds}",
            "a frame": "as the model",
            "reads": reads,
            "weights": "a folder NAME among the weights, or an id in the cache of the hub",
        }
        for modality, reads, kinds in (
            ("audio", "sound", "wav2vec 2.0, HuBERT, WavLM"),
            ("visual", "crops", "CLIP, DINOv2, ViT, VideoMAE"),
        )
    ]


def weights_rows(workspace: str | None, given: Path | None) -> list[dict[str, Any]]:
    """What `list weights` shows."""
    from crossfold.platform.modeling.pretrained_catalogue import WEIGHTS
    from crossfold.platform.modeling.pretrained_files import weights_folder, weights_state
    from crossfold.platform.workspace.workspace import Workspace

    folder = weights_folder(given, Workspace.at(workspace))
    return [
        {
            "name": entry.name,
            "title": entry.title,
            "state": weights_state(entry, folder)[0],
            "place": str(folder / entry.place),
            "from": entry.page,
            "licence": entry.licence,
            "sha256": entry.sha256 or "recorded on first use",
        }
        for entry in WEIGHTS.values()
    ]
