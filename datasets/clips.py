"""A clip: one annotated subject in one video, on its own time axis of frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

UNLABELLED = -5.0
"""Aff-Wild2's mark for a frame without annotation; never a value to learn from or to score."""


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """Who and what a clip is."""

    name: str
    video: str
    """The video it was cut from: two clips of one video never stand on both sides of a split."""
    subject: str
    """Unknown subjects are named after their video."""
    partition: str
    """`train`, `validation` or `test`, as the corpus's owners say."""
    fps: float
    frames: int


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of a clip of which something is known, such as a planted corruption."""

    start: int
    end: int
    kind: str
    """complementary, missing, corrupted, conflict or unlabelled."""
    modality: str
    """audio, visual or both: which one is damaged or lies."""
    detail: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"span [{self.start}, {self.end}): need 0 <= start < end")


@dataclass(frozen=True)
class ClipArrays:
    """What a clip brings to the store. All arrays have one row a frame."""

    features: Mapping[str, np.ndarray]
    """float32 [frames, width] under `modality`, or `modality@fold` where an encoder was fitted per fold."""
    present: Mapping[str, np.ndarray]
    """bool [frames] per modality: false where the file has nothing there (no face, no sound track)."""
    labels: np.ndarray
    """float32 [frames, targets]; `UNLABELLED` where there is no annotation."""
    spans: tuple[Span, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class MediaClip:
    """A clip of a corpus of media files, before any decoding."""

    info: ClipInfo
    labels: np.ndarray
    """float32 [frames, targets], read and checked."""
    crops: Path | None
    """Folder of face crops, one file a frame."""
    audio: Path | None
    """A wav file, or a video file with a sound track."""
    spans: tuple[Span, ...] = ()
    times: np.ndarray | None = None
    """float64 [frames]: seconds at which each frame is shown; None where frame i is shown at i / fps."""
