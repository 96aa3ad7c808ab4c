"""Faces in a video without crops: found in every picture, followed, smoothed, and cut out.

The detector is dlib's (histograms of oriented gradients; N. Dalal and B. Triggs, CVPR 2005), whose model is part of the
library: nothing is fetched at run time. It is the optional extra `faces`. A picture in which it finds no face of the
track has none: its crop is black and marked absent, never taken from a neighbour.

It is asked about eight pictures a second, as it takes longer than all the rest. Between two of them that show the same
faces, a face moves on a straight line; where they differ, it is asked about each picture between them as well, so that
a face comes and goes at its own picture.

T pictures, S side of a crop.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from crossfold.datasets.media.crops import Colour
from crossfold.datasets.media.video import decode_pictures, read_pictures
from crossfold.platform.core.errors import UserError

DETECTION_SIDE = 640
"""Longer side, in pixels, to which a picture is scaled before faces of at least 80 pixels are looked for."""
_ENLARGED = 2.0  # how much a small picture is enlarged at most
MARGIN = 1.3
"""Side of the crop over the side of the detector's box, which ends at brows and chin."""
REACH = 3
"""Detections on each side that the median, and after it the mean, run over."""
GAP_S = 0.5
"""A face that is lost for longer starts another track."""
_OVERLAP = 0.3  # least intersection over union of a face in two pictures
_FAINT = -0.25  # least score of a detection; one below 0 counts only in a track that also has one above
_SHORTEST_S = 0.2  # least length of a track; what flickers up is no face
LOOKS_A_SECOND = 8
"""Pictures a second in which the detector looks for a face in any case."""

FACE_FRONT_END = {
    "detector": "dlib frontal, HOG",
    "version": 3,
    "looks_a_second": LOOKS_A_SECOND,
    "look": DETECTION_SIDE,
    "enlarged": _ENLARGED,
    "margin": MARGIN,
    "reach": REACH,
    "gap_s": GAP_S,
    "overlap": _OVERLAP,
    "faint": _FAINT,
    "shortest_s": _SHORTEST_S,
}
"""Everything the crops depend on besides the video and the release of dlib, for the store's manifest."""
EARLIER_FACE_FRONT_END = {key: value for key, value in FACE_FRONT_END.items() if key != "looks_a_second"} | {
    "version": 2
}
"""That of stores whose faces were looked for in every picture; cells that were trained on them still predict so."""
WHOLE_FRAME = {"detector": "none, the whole picture is the crop", "version": 1, "margin": 1.0}
"""The front end of videos whose pictures are crops of a face."""


@dataclass(frozen=True)
class Box:
    """A face in one picture, in its pixels."""

    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0
    """How sure the detector is; above 0 by its own lights."""

    @property
    def area(self) -> float:
        """Pixels."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def overlap(self, other: "Box") -> float:
        """Intersection over union."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(0.0, across) * max(0.0, down)
        return common / max(self.area + other.area - common, 1e-9)

    def towards(self, other: "Box", part: float) -> "Box":
        """The box on a straight line to another, of which it has gone this part; as sure as the less sure one."""
        mixed = (
            (1 - part) * start + part * stop
            for start, stop in (
                (self.left, other.left),
                (self.top, other.top),
                (self.right, other.right),
                (self.bottom, other.bottom),
            )
        )
        left, top, right, bottom = mixed
        return Box(left, top, right, bottom, min(self.score, other.score))


Picture = TypeVar("Picture")
Side = Literal["", "left", "right"]
Detector = Callable[[np.ndarray], Sequence[Box]]
"""Finds the faces of a picture, uint8 [height, width, 3]."""


def available() -> str | None:
    """Release of the detector, or None where the extra is not installed."""
    try:
        import dlib
    except ImportError:
        return None
    return str(dlib.__version__)


def dlib_detector() -> Detector:
    """The frontal detector; raises `UserError` where the extra is not installed."""
    try:
        import dlib
    except ImportError:
        raise UserError("finding faces in a video needs dlib", "pip install 'crossfold[faces]'") from None
    search = dlib.get_frontal_face_detector()

    def detect(picture: np.ndarray) -> list[Box]:
        height, width = picture.shape[:2]
        scale = min(_ENLARGED, DETECTION_SIDE / max(height, width))
        size = (round(width * scale), round(height * scale))
        seen = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        places, scores, _ = search.run(seen, 0, _FAINT)
        return [
            Box(b.left() / scale, b.top() / scale, b.right() / scale, b.bottom() / scale, score)
            for b, score in zip(places, scores, strict=True)
        ]

    return detect


def find_track(
    video: Path, frames: int, fps: float, detect: Detector, side: Side = "", *, every: int | None = None
) -> np.ndarray:
    """The face to crop in every picture: float64 [T, 3] of centre x, centre y and side; not a number where lost.

    side: the half of the picture in which the subject sits, where a video shows two. every: the detector is asked about
    every how many-th picture; None: `looks_every` of the rate.
    """
    found: list[Sequence[Box]] = [()] * frames
    look = in_half(detect, side)
    pictures = ((index, make) for index, make in decode_pictures(video) if index < frames)
    for index, boxes in detections(pictures, lambda make: look(make()), every or looks_every(fps)):
        found[index] = boxes
    return smooth(follow(found, fps), fps)


def looks_every(fps: float) -> int:
    """The detector is asked about every how many-th picture, at this rate."""
    return max(1, int(fps / LOOKS_A_SECOND))


def in_half(detect: Detector, side: Side) -> Detector:
    """A detector that finds only faces in one half of a picture; all of them for the side ""."""

    def found(picture: np.ndarray) -> Sequence[Box]:
        middle = picture.shape[1] / 2
        return [box for box in detect(picture) if not side or ((box.left + box.right) / 2 < middle) == (side == "left")]

    return found


def detections(
    pictures: Iterable[tuple[int, Picture]], detect: Callable[[Picture], Sequence[Box]], every: int
) -> Iterator[tuple[int, Sequence[Box]]]:
    """The faces of each picture with its number, in order; holds back at most `every` pictures."""
    before: tuple[int, Sequence[Box]] | None = None
    held: list[tuple[int, Picture]] = []
    for picture in pictures:
        held.append(picture)
        if before is None or len(held) == every:
            before = yield from _filled(before, held, detect)
            held = []
    if held:
        yield from _filled(before, held, detect)


def _filled(
    before: tuple[int, Sequence[Box]] | None,
    held: Sequence[tuple[int, Picture]],
    detect: Callable[[Picture], Sequence[Box]],
) -> Generator[tuple[int, Sequence[Box]], None, tuple[int, Sequence[Box]]]:
    """Detections of the pictures after `before`, of which only the last is looked at where both show the same faces.

    Returns the last detection.
    """
    *between, (end, picture) = held
    last = (end, detect(picture))
    pairs = _same_faces(before[1], last[1]) if before is not None else None
    for index, skipped in between:
        if before is None or pairs is None:
            yield index, detect(skipped)
        else:
            part = (index - before[0]) / (end - before[0])
            yield index, [start.towards(stop, part) for start, stop in pairs]
    yield last
    return last


def _same_faces(before: Sequence[Box], after: Sequence[Box]) -> list[tuple[Box, Box]] | None:
    """Each face with itself a moment later; None where one came or went."""
    if len(before) != len(after):
        return None
    free, pairs = list(after), []
    for box in before:
        nearest = max(free, key=box.overlap)
        if box.overlap(nearest) < _OVERLAP:
            return None
        free.remove(nearest)
        pairs.append((box, nearest))
    return pairs


def whole_frames(video: Path, frames: int) -> np.ndarray:
    """The track of a video whose pictures are crops of a face: [T, 3], a square around all of each picture."""
    _, picture = next(read_pictures(video), (0, np.zeros((1, 1, 3), np.uint8)))
    return np.tile(whole_picture(picture), (frames, 1))


def whole_picture(picture: np.ndarray) -> np.ndarray:
    """The box [3] whose crop is a square around all of a picture."""
    height, width = picture.shape[:2]
    return np.array([width / 2, height / 2, max(width, height) / MARGIN])


def side_of_clip(name: str, video: str) -> Side:
    """Aff-Wild2's names for the two subjects of a video: `<video>_left` and `<video>_right`."""
    for side in ("left", "right"):
        if name != video and name.endswith(f"_{side}"):
            return side
    return ""


@dataclass
class _Track:
    """One face from picture to picture."""

    boxes: dict[int, Box] = field(default_factory=dict)
    area: float = 0.0
    """The sum over its boxes."""
    surest: float = -math.inf
    begin: int = 0
    end: int = 0

    def add(self, index: int, box: Box) -> None:
        if not self.boxes:
            self.begin = index
        self.boxes[index], self.end = box, index
        self.area += box.area
        self.surest = max(self.surest, box.score)

    def reaches_into(self, other: "_Track") -> bool:
        """Whether one of its boxes is in a picture between the begin and the end of the other."""
        if self.end < other.begin or other.end < self.begin:
            return False
        return any(other.begin <= index <= other.end for index in self.boxes)


class FaceTracks:
    """Faces that are followed from picture to picture, in order, and the one among them to crop.

    Boxes that overlap from picture to picture, with gaps of at most half a second, are one track; tracks of a few
    pictures, or without one sure detection, are none. The track with the largest total area is the subject's; where it
    does not reach, the next largest that is not there at the same time.
    """

    def __init__(self, fps: float) -> None:
        """`fps`: pictures a second."""
        self._tracks: list[_Track] = []
        self._gap = max(1, GAP_S * fps)
        self._shortest = _SHORTEST_S * fps

    def add(self, index: int, boxes: Sequence[Box]) -> None:
        """The detections of the picture with this number, which is above all earlier ones."""
        free = list(boxes)  # detections that no track has taken yet
        live = [track for track in self._tracks if index - track.end <= self._gap]
        pairs = [(box.overlap(track.boxes[track.end]), t, box) for t, track in enumerate(live) for box in boxes]
        taken: set[int] = set()
        for overlap, t, box in sorted(pairs, key=lambda pair: -pair[0]):  # greedy: the closest pair first
            if overlap >= _OVERLAP and t not in taken and box in free:
                live[t].add(index, box)
                taken.add(t)
                free.remove(box)
        for box in free:
            self._tracks.append(_Track())
            self._tracks[-1].add(index, box)

    def subject(self, begin: int, end: int) -> np.ndarray:
        """The face to crop in the pictures from `begin` up to `end`, float64 [T, 3], by all that were added."""
        tracks = [track for track in self._tracks if len(track.boxes) >= self._shortest and track.surest >= 0]
        chosen: list[_Track] = []
        for track in sorted(tracks, key=lambda track: -track.area):
            if not any(other.reaches_into(track) for other in chosen):
                chosen.append(track)
        boxes_T3 = np.full((end - begin, 3), np.nan)
        for track in chosen:
            for index in range(max(begin, track.begin), min(end, track.end + 1)):
                if (box := track.boxes.get(index)) is not None:
                    side = max(box.right - box.left, box.bottom - box.top)
                    boxes_T3[index - begin] = (box.left + box.right) / 2, (box.top + box.bottom) / 2, side
        return boxes_T3


def follow(found: Sequence[Sequence[Box]], fps: float) -> np.ndarray:
    """One face a picture, float64 [T, 3], of all that were found in each."""
    tracks = FaceTracks(fps)
    for index, boxes in enumerate(found):
        tracks.add(index, boxes)
    return tracks.subject(0, len(found))


def smooth(boxes: np.ndarray, fps: float) -> np.ndarray:
    """A running median, then a running mean, of the detections of [T, 3]; what was lost stays lost."""
    smoothed = boxes.copy()
    there = np.flatnonzero(~np.isnan(boxes[:, 0]))
    breaks = np.flatnonzero(np.diff(there) > max(1, GAP_S * fps)) + 1  # no average over a gap between tracks
    for run in np.split(there, breaks):
        for average in (np.median, np.mean):
            before = smoothed.copy()  # so that no average sees one of its own pass
            for index in run:
                near = run[np.abs(run - index) <= REACH]
                smoothed[index] = average(before[near], axis=0)
    return smoothed


def looks_ahead(fps: float, every: int) -> int:
    """Pictures after one by which its face is settled, as long as one face is seen; every: as of `find_track`."""
    return _settles(fps) + every - 1


def _settles(fps: float) -> int:
    """Pictures after one whose detections decide about its face: until a track counts, and smoothing sees it."""
    return 2 * REACH + math.ceil(_SHORTEST_S * fps)


def growing_face_chunks(
    pictures: Iterable[tuple[int, np.ndarray]],
    fps: float,
    detect: Detector | None,
    every: int,
    colour: Colour,
    size: int,
) -> Generator[tuple[np.ndarray, np.ndarray], None, int]:
    """As `face_chunks`, of pictures with their numbers that come one by one; returns how many it would crop otherwise
    now that it has seen them all.

    detect: None where the pictures are crops of a face. every: as of `find_track`.
    """
    held: dict[int, np.ndarray] = {}
    if detect is None:
        box: np.ndarray | None = None
        for _, picture in pictures:
            box = whole_picture(picture) if box is None else box
            yield crop_face(picture, box, colour, size)[None], np.ones(1, np.bool_)
        return 0

    def kept() -> Iterator[tuple[int, np.ndarray]]:
        for index, picture in pictures:
            held[index] = picture
            yield index, picture

    tracks, used, seen = FaceTracks(fps), np.zeros((0, 3)), 0

    def cropped(begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal used
        first = max(0, begin - 2 * REACH)
        boxes_T3 = smooth(tracks.subject(first, min(seen, end + 2 * REACH)), fps)[begin - first : end - first]
        used = np.concatenate([used, boxes_T3])
        crops = np.zeros((end - begin, size, size, *((3,) if colour == "RGB" else ())), np.uint8)
        present = ~np.isnan(boxes_T3[:, 0])
        for row, box_3 in enumerate(boxes_T3):
            picture = held.pop(begin + row)
            if present[row]:
                crops[row] = crop_face(picture, box_3, colour, size)
        return crops, present

    for index, boxes in detections(kept(), detect, every):
        tracks.add(index, boxes)
        seen = index + 1
        if (settled := seen - _settles(fps)) > len(used):
            yield cropped(len(used), settled)
    if seen > len(used):
        yield cropped(len(used), seen)
    known = smooth(tracks.subject(0, seen), fps)
    return int((~np.isclose(known, used, equal_nan=True).all(axis=1)).sum())


def face_chunks(
    video: Path, track: np.ndarray, colour: Colour, size: int, chunk: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops along a track [T, 3], in order, at most `chunk` at a time: uint8 [n, S, S(, 3)] and bool [n]."""
    pictures = decode_pictures(video)
    ahead = next(pictures, None)
    for begin in range(0, len(track), chunk):
        count = min(chunk, len(track) - begin)
        crops = np.zeros((count, size, size, *((3,) if colour == "RGB" else ())), np.uint8)
        present = np.zeros(count, np.bool_)
        while ahead is not None and ahead[0] < begin + count:
            index, make = ahead
            if not np.isnan(track[index, 0]):
                crops[index - begin] = crop_face(make(), track[index], colour, size)
                present[index - begin] = True
            ahead = next(pictures, None)
        yield crops, present


def crop_face(picture: np.ndarray, box: np.ndarray, colour: Colour, size: int) -> np.ndarray:
    """The square of `MARGIN` sides around a face [3]: uint8 [S, S(, 3)], black outside the picture."""
    across, down, side = box
    half = side * MARGIN / 2
    edges = [round(edge) for edge in (across - half, down - half, across + half, down + half)]
    cut = Image.fromarray(picture).crop((edges[0], edges[1], edges[2], edges[3])).convert(colour)
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR), np.uint8)
