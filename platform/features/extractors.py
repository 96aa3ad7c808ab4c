"""What `prepare` can make of a clip: one extractor per modality, by name, and the plan that picks them.

Four kinds of extractors: features of our own that need no weights (`logmel`, `mfcc`, `light`), backbones with frozen
weights (every entry of `BACKBONES`, and `bert`), `hf:NAME`, a network of the transformers library with frozen weights,
and `raw:KIND`, which stores the input of a backbone that is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from crossfold.datasets.media.face_tracking import FACE_FRONT_END, WHOLE_FRAME
from crossfold.datasets.media.sound import AUDIO_FRONT_END, MELS
from crossfold.datasets.media.spectrograms import DECIBELS, MFCC, MFCC_WIDTH, VGGISH
from crossfold.datasets.media.word_features import TEXT_FRONT_END
from crossfold.datasets.store.input_kinds import INPUT_KINDS, clip_kind, standardised
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.features.pca_faces import VISUAL_FRONT_END, WIDTH

HUB = "hf:"
"""Begins the name of a network of transformers: `hf:NAME`, a folder among the weights or an id of the hub."""
HUB_FRONT_END: Mapping[str, Any] = {
    "kind": "transformers",
    "version": 1,
    "stretch_seconds": 16,
    "context_seconds": 2,
    "layer": "last",
}
"""Everything its features depend on besides the network and its files, for the store's manifest."""
CROPS = {"version": 1, "resize": "bilinear", "absent": "black"}
"""What crops of any side depend on besides their files."""


class FeaturePlan(FrozenModel):
    """Which extractor makes each modality; `None` leaves the modality out."""

    audio: str | None = "logmel"
    visual: str | None = "light"
    text: str | None = None
    faces: Literal["find", "whole", "given"] = "find"
    """Clips without crops: whether their faces are found in the video, are its whole pictures, or are marked absent."""
    random_weights: int | None = Field(None, ge=0)
    """Seed of random weights in place of pretrained ones, for tests; the name of the store says so."""

    def chosen(self) -> dict[str, "Extractor"]:
        """The extractor of each modality, in canonical order. Raises `UserError` that suggests the nearest name."""
        named = {"audio": self.audio, "visual": self.visual, "text": self.text}
        return {modality: find_extractor(modality, name) for modality, name in named.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """One way to make a modality."""

    name: str
    modality: str
    title: str
    reads: str
    """Its input for one frame: an input kind, `sound`, `crops` or `words`."""
    shape: tuple[int, ...] | None
    """Of one frame in the store; None where it depends on the weights."""
    front_end: Mapping[str, Any]
    """Constants of what it reads, for the store's manifest."""
    raw: bool = False
    """Whether it stores the input of a backbone instead of features."""
    backbone: str | None = None
    hub: str | None = None
    """What follows `hf:`: where the network of transformers is."""

    @property
    def per_fold(self) -> bool:
        """Whether it is fitted on training frames, so that every fold has its own."""
        return self.name == "light" or (self.backbone is not None and standardised(self.reads))

    @property
    def needs_weights(self) -> bool:
        """Whether it is a network whose weights come from elsewhere."""
        return self.backbone is not None or self.hub is not None or self.modality == "text"


_WORDS = {
    "bert": "",
    "bert+punctuation": "; sentence marks restored",
    "vosk+bert": "; transcribed by Vosk where there is no transcript",
    "vosk+bert+punctuation": "; transcribed by Vosk where there is no transcript, sentence marks restored (002)",
}


@dataclass(frozen=True)
class Origin:
    """Where the weights of a network come from, the same for every worker."""

    folder: str
    """Of the weights files; a path that every worker sees."""
    seed: int | None = None
    """Random weights of this seed, and no file."""


def find_extractor(modality: str, name: str) -> Extractor:
    """The extractor of a modality under a name. Raises `UserError` that suggests the nearest one."""
    if name.startswith(HUB) and modality in ("audio", "visual"):
        return _hub(modality, name)
    # First those that need no torch, which takes seconds to import.
    for row in (*_own(), *_raw()):
        if (row.modality, row.name) == (modality, name):
            return row
    known = extractors(modality)
    if name in known:
        return known[name]
    elsewhere = [e.modality for e in extractors().values() if e.name == name]
    hint = f", which is for {elsewhere[0]}" if elsewhere else did_you_mean(name, known)
    raise UserError(f"no {modality} extractor {name!r}{hint}", "`crossfold list extractors` shows all")


def _hub(modality: str, name: str) -> Extractor:
    return Extractor(
        name=name,
        modality=modality,
        title="a network of transformers, frozen",
        reads="sound" if modality == "audio" else "crops",
        shape=None,
        front_end=HUB_FRONT_END,
        hub=name.removeprefix(HUB),
    )


def extractors(modality: str | None = None) -> dict[str, Extractor]:
    """All extractors, or those of one modality, by name."""
    rows = [*_own(), *_backbones(), *_raw()]
    return {row.name: row for row in rows if modality in (None, row.modality)}


def _own() -> list[Extractor]:
    faces = "edges and grey levels, principal components of the fold's training frames"
    words = "BERT, sum of the last four layers of each word, on the frames in which it is said"
    rows: list[tuple[str, str, str, str, tuple[int, ...] | None, Mapping[str, Any]]] = [
        ("logmel", "audio", "sound", "log-mel spectrum of the frame", (MELS,), AUDIO_FRONT_END),
        ("mfcc", "audio", "sound", "13 cepstra of the frame, with first and second differences", (MFCC_WIDTH,), MFCC),
        ("light", "visual", "crops", faces, (WIDTH,), VISUAL_FRONT_END),
        *((name, "text", "words", f"{words}{more}", None, TEXT_FRONT_END) for name, more in _WORDS.items()),
    ]
    return [
        Extractor(name=name, modality=modality, reads=reads, title=title, shape=shape, front_end=front_end)
        for name, modality, reads, title, shape, front_end in rows
    ]


def _backbones() -> list[Extractor]:
    # Torch takes seconds to import, and no other extractor needs it.
    from crossfold.fusion_models.backbones.catalogue import BACKBONES

    entries = [BACKBONES.get(name) for name in BACKBONES]
    return [
        Extractor(
            name=entry.name,
            modality=entry.modality,
            title=f"{entry.title}, frozen",
            reads=entry.input,
            shape=(entry.width,),
            front_end=constants_of(entry.input),
            backbone=entry.name,
        )
        for entry in entries
    ]


def _raw() -> list[Extractor]:
    return [
        Extractor(
            name=f"raw:{kind.name}",
            modality="visual" if kind.name.startswith("crops") else "audio",
            title=f"{' x '.join(map(str, kind.shape))} {kind.dtype}, for a backbone that is trained",
            reads=kind.name,
            shape=kind.shape,
            front_end=constants_of(kind.name),
            raw=True,
        )
        for kind in INPUT_KINDS.values()
    ]


def constants_of(kind: str) -> dict[str, Any]:
    """What the numbers of an input kind depend on, for the store's manifest."""
    if kind in DECIBELS:
        return {"input": kind, **DECIBELS[kind].constants()}
    if kind == "vggish":
        return {"input": kind, **VGGISH}
    clips = clip_kind(kind)
    if clips is not None:
        return {"input": kind, "place": "ends at the frame, its first picture repeated before the video", **CROPS}
    return {"input": kind, **CROPS}


def side_of(kind: str) -> int:
    """Side of the crops that a visual input kind is made of, in pixels."""
    clips = clip_kind(kind)
    return clips.side if clips is not None else int(kind.removeprefix("crops"))


def face_constants(release: str, faces: str = "find") -> dict[str, Any]:
    """What crops that were cut out of videos depend on; faces: as in the plan."""
    return dict(WHOLE_FRAME) if faces == "whole" else {**FACE_FRONT_END, "dlib": release}
