"""How a corpus is prepared, and all that follows from it and shapes a feature; errors are raised before any work."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfold.datasets.corpora.clips import MediaClip
from crossfold.datasets.corpora.registry import Inspection
from crossfold.datasets.media.face_tracking import available, side_of_clip
from crossfold.platform.core.errors import UserError
from crossfold.platform.features.extractors import Extractor, FeaturePlan, Origin, face_constants
from crossfold.platform.workspace.workspace import Workspace


@dataclass(frozen=True)
class Preparation:
    """How a corpus is prepared."""

    plan: FeaturePlan = field(default_factory=FeaturePlan)
    """Which extractor makes each modality; the default ones need no weights."""
    weights: Path | None = None
    """Folder of the pretrained weights, else as `weights_folder` says."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`, which is a GPU where a network is to be run and there is one."""
    plugins: tuple[Path, ...] = ()
    """Files that register backbones, loaded by every worker."""
    folds: Path | None = None
    """A file of folds to use instead of those that follow from the corpus (`partitions.read_fold_file`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the corpus's reader, such as a shift of the labels (`Corpus.options`)."""
    fold_rule: str | None = None
    """`grouped` or `as_released`; None: the folds that the corpus lists, else `grouped`."""


@dataclass(frozen=True)
class FeatureSettings:
    """A plan with all that shapes its numbers: where weights come from, and on what it is computed."""

    plan: FeaturePlan
    extractors: Mapping[str, Extractor]
    weights: Origin | None
    device: str
    origin: Mapping[str, Any]
    """How each modality is made, for the manifest of the store."""

    @classmethod
    def of(cls, asked: Preparation, workspace: Workspace) -> "FeatureSettings":
        """Loads what the plan needs once, so that whatever is missing shows before any work."""
        if asked.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device {asked.device!r} is none of auto, cpu, cuda", "choose one")
        extractors = asked.plan.chosen()
        if not extractors:
            raise UserError("the plan makes no modality", "name at least one of --audio, --visual, --text")
        if not any(extractor.needs_weights for extractor in extractors.values()):
            return cls(asked.plan, extractors, None, "cpu", {m: dict(e.front_end) for m, e in extractors.items()})
        # Torch takes seconds to import, and what follows needs it.
        from crossfold.platform.features.frozen_backbone import extractor_facts
        from crossfold.platform.modeling.determinism import pick_device
        from crossfold.platform.modeling.pretrained_files import weights_folder

        device = pick_device(asked.device)
        weights = Origin(str(weights_folder(asked.weights, workspace)), asked.plan.random_weights)
        origin = {m: extractor_facts(extractor, weights, device) for m, extractor in extractors.items()}
        return cls(asked.plan, extractors, weights, device, origin)

    def files(self) -> list[Path]:
        """Folders that workers read weights from."""
        read = [e for e in self.extractors.values() if e.needs_weights and (e.backbone is None or not self.random)]
        return [Path(self.weights.folder)] if self.weights is not None and read else []

    @property
    def random(self) -> bool:
        """Whether a backbone starts from random weights; the words of BERT are never random."""
        seeded = self.weights is not None and self.weights.seed is not None
        return seeded and any(extractor.backbone is not None for extractor in self.extractors.values())

    @property
    def face_finder(self) -> str | None:
        """The release of the library that finds faces, where they are to be found and it is installed."""
        return available() if self.plan.faces == "find" else None

    @property
    def digest(self) -> str:
        """Stands for the plan in file names."""
        text = json.dumps([self.plan.model_dump(), self.origin], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def origin_of(self, media: Sequence[MediaClip]) -> dict[str, Any]:
        """`origin` of the store's manifest, for these clips."""
        origin = {modality: dict(facts) for modality, facts in self.origin.items()}
        if self._faceless(media):
            origin["visual"]["faces"] = face_constants(available() or "", self.plan.faces)
        return origin

    def check(self, inspection: Inspection, root: Path) -> None:
        """Raises `UserError` where these data cannot follow the plan."""
        media = [clip for clip in inspection.clips if isinstance(clip, MediaClip)]
        if not media:
            if self.plan != FeaturePlan():
                raise UserError(
                    f"{root} holds extracted features; no extractor can be chosen for them",
                    "leave out --audio, --visual and --text",
                )
            return
        words = self.extractors["text"].name if "text" in self.extractors else ""
        if words and "vosk" not in words and not any(clip.transcript is not None for clip in media):
            raise UserError(
                f"{root} has no transcript",
                "leave out --text, put transcripts next to the sound, or take --text vosk+bert",
            )
        if (faceless := self._faceless(media)) and self.plan.faces == "find":
            _check_faces(faceless, len(media))

    def _faceless(self, clips: Sequence[MediaClip]) -> list[MediaClip]:
        """Clips whose faces are to be cut out of the video."""
        if "visual" not in self.extractors or self.plan.faces == "given":
            return []
        return [clip for clip in clips if clip.crops is None and clip.video is not None]


def _check_faces(faceless: Sequence[MediaClip], clips: int) -> None:
    if available() is None:
        raise UserError(
            f"{len(faceless)} of {clips} clips have no face crops, such as {faceless[0].info.name}",
            "pip install 'crossfold[faces]' to cut faces out of their videos; or pass --whole-frame where their "
            "pictures are crops of a face, or --no-faces to do without",
        )
    places = {clip.info.name: (clip.video, side_of_clip(clip.info.name, clip.info.video)) for clip in faceless}
    # Of two faces in one video only the half of the picture says which is whose.
    subjects = Counter(places.values())
    for clip in faceless:
        place = places[clip.info.name]
        others = [other.info.name for other in faceless if other.video == clip.video]
        if subjects[place] > 1 or (len(others) > 1 and not place[1]):
            raise UserError(
                f"clips {', '.join(others)} show subjects of one video, {clip.video}, and have no crops",
                "give crops, name two clips <video>_left and <video>_right after their halves, or pass --no-faces",
            )
