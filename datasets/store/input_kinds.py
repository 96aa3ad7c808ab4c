"""What a raw modality of a store can be: the inputs that a trainable backbone takes, one row per frame.

A kind names its layout completely, so a store, a backbone and a recipe agree by one word. Kinds of clips, such as
`clips16@112`, are never stored: they are gathered from stored crops by index.

M mel bands, C columns of a spectrogram, S side of a picture in pixels, K pictures of a clip.
"""

import re
from dataclasses import dataclass

import numpy as np

from crossfold.platform.core.errors import UserError, did_you_mean

SIDES = (48, 112, 224)
"""Sides of the crops that a store may hold, in pixels."""
_CLIPS = re.compile(r"clips(\d+)(?:/(\d+))?@(\d+)")  # pictures, every how many frames, side


@dataclass(frozen=True)
class InputKind:
    """One frame's worth of raw input, as it is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """uint8, float16 or float32."""
    standardised: bool = False
    """Whether it is standardised, per mel band, with the statistics of the fold's training frames: decibels need it;
    pictures and VGGish's log-mel go to their backbones as they are (D6)."""


@dataclass(frozen=True)
class ClipKind:
    """Some pictures up to a frame: of the frames t - (K-1) step, ..., t - step, t.

    The clip ends at its frame, as the labels of the clip networks' releases do (D9: last frame of the clip), so a
    prediction a frame needs no frame of the future. Before the first frame of a video its first picture repeats.
    """

    name: str
    length: int
    """K, pictures."""
    step: int
    """Frames from one picture to the next."""
    side: int

    @property
    def stored(self) -> str:
        """The kind of crops that it is gathered from."""
        return f"crops{self.side}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, S, S, 3)."""
        return (self.length, self.side, self.side, 3)

    def rows(self, rows: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Rows of the pictures, int64 [N, K], of frames int64 [N] whose videos begin at rows int64 [N] `first`."""
        back = np.arange(self.length - 1, -1, -1) * self.step
        pictures: np.ndarray = np.maximum(rows[:, None] - back, first[:, None])
        return pictures


INPUT_KINDS = {
    kind.name: kind
    for kind in (
        *(InputKind(f"crops{side}", (side, side, 3), "uint8") for side in SIDES),
        InputKind("vggish", (96, 64), "float16"),  # columns of 10 ms, mel bands
        InputKind("spectrogram128", (128, 129), "float16", standardised=True),  # 5.12 s (D3)
        InputKind("spectrogram128x65", (128, 65), "float16", standardised=True),  # 0.64 s (D4)
        InputKind("mel64x107", (64, 107), "float16", standardised=True),  # 32 frames at 30 fps (D1)
    )
}


def clip_kind(name: str) -> ClipKind | None:
    """`clips16@112` (16 pictures of 112 x 112) or `clips8/4@112` (every fourth of 32 frames); None for other names."""
    found = _CLIPS.fullmatch(name)
    if found is None:
        return None
    length, step, side = int(found[1]), int(found[2] or 1), int(found[3])
    if length < 1 or step < 1 or side not in SIDES:
        raise UserError(
            f"input {name!r} asks for {length} pictures of {side} x {side}, {step} frames apart",
            f"at least one picture and step, and a side of {', '.join(map(str, SIDES))}",
        )
    return ClipKind(name, length, step, side)


def input_shape(name: str) -> tuple[int, ...]:
    """Shape of one frame of a kind; a wrong name answers with the nearest."""
    if (clips := clip_kind(name)) is not None:
        return clips.shape
    if name not in INPUT_KINDS:
        raise UserError(f"unknown input {name!r}{did_you_mean(name, INPUT_KINDS)}", "clips are written clips16@112")
    return INPUT_KINDS[name].shape


def standardised(name: str) -> bool:
    """Whether a stored kind is standardised per band; kinds of plug-ins are not."""
    return name in INPUT_KINDS and INPUT_KINDS[name].standardised
