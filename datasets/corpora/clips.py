"""A clip: one annotated subject in one video, on its own time axis of frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

UNLABELLED = -5.0
"""Aff-Wild2's mark for a frame without annotation; never a value to learn from or to score."""


@dataclass(frozen=True)
class Target:
    """What is annotated, and the range its annotators had."""

    name: str
    low: float = -1.0
    high: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"target {self.name}: range [{self.low:g}, {self.high:g}] needs two numbers, low < high")

    @property
    def plain(self) -> bool:
        """Whether labels live in [-1, 1], as predictions do, so that nothing is scaled."""
        return (self.low, self.high) == (-1.0, 1.0)

    def to_unit(self, labels: np.ndarray) -> np.ndarray:
        """Labels of [low, high] on [-1, 1]; CCC is the same of both, as it is of any common affine map."""
        scaled: np.ndarray = (labels - (self.low + self.high) / 2) / ((self.high - self.low) / 2)
        # Not even rounding where there is nothing to scale.
        return labels if self.plain else scaled.astype(labels.dtype)

    def from_unit(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions of [-1, 1] in the units of the labels."""
        scaled: np.ndarray = predictions * ((self.high - self.low) / 2) + (self.low + self.high) / 2
        return predictions if self.plain else scaled.astype(predictions.dtype)


VALENCE_AROUSAL = (Target("valence"), Target("arousal"))


def labelled(labels: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """bool [frames, targets]: where there is an annotation.

    Not a number is none in every corpus. `UNLABELLED` is none for every target in whose range it does not lie; on a
    scale from -10 to 10 it is a value like any other.
    """
    legal = np.array([target.low <= UNLABELLED <= target.high for target in targets])
    there: np.ndarray = ~np.isnan(labels) & ((labels != UNLABELLED) | legal)  # broadcast over the frames
    return there


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
    """What a clip brings to the store. All arrays have one row per frame."""

    features: Mapping[str, np.ndarray]
    """float32 [frames, width] under `modality`, or `modality@fold` where an encoder was fitted per fold."""
    present: Mapping[str, np.ndarray]
    """bool [frames] per modality: false where the file has nothing there (no face, no sound track)."""
    labels: np.ndarray
    """float32 [frames, targets]; not a number, or `UNLABELLED`, where there is no annotation (see `labelled`)."""
    spans: tuple[Span, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class MediaClip:
    """A clip of a corpus of media files, before any decoding."""

    info: ClipInfo
    labels: np.ndarray
    """float32 [frames, targets], read and checked; not a number, or `UNLABELLED`, where there is no annotation."""
    crops: Path | None
    """Folder of face crops, one file per frame."""
    audio: Path | None
    """A wav file, or a video file with a sound track."""
    video: Path | None = None
    """The video itself, from which faces can be cut where there are no crops (`media.face_tracking`)."""
    spans: tuple[Span, ...] = ()
    times: np.ndarray | None = None
    """float64 [frames]: seconds at which each frame is shown; None where frame i is shown at i / fps."""
    transcript: Path | None = None
    """Words with times (`media.transcripts.read_transcript`), on the time axis of `times`."""
