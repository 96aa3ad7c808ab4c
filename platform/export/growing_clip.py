"""A clip that still grows, in the features that the store of a cell would hold of it, block by block.

A face is followed with the pictures after it, and sound is heard some frames ahead, so features come with a delay. They
equal those of the finished clip as long as one face is seen: which of two is the subject, the finished clip alone can
say.

N frames of a block, I features.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossfold.datasets.media.crops import CROP, Colour
from crossfold.datasets.media.face_tracking import growing_face_chunks, looks_ahead, looks_every
from crossfold.datasets.media.growing import GrowingRecording
from crossfold.datasets.media.spectrograms import DECIBELS
from crossfold.datasets.store.feature_store import Normalisation
from crossfold.datasets.store.input_kinds import clip_kind
from crossfold.platform.core.errors import UserError
from crossfold.platform.features.extractors import Extractor, Origin, side_of
from crossfold.platform.features.fold_fitting import standardised_input
from crossfold.platform.features.frozen_backbone import FrozenBackbone, frozen
from crossfold.platform.features.new_clips import Features
from crossfold.platform.features.pca_faces import LightEncoder, measure
from crossfold.platform.features.read_clip import CHUNK, NO_FACE, Chunks, detector, gathered, rate_of, sound_chunks

_BLOCK_S = 0.2
"""Seconds of frames that are predicted together: frame by frame takes several times as long."""
_ENDS = 1.5  # frames by which sound must be known after the begin of one


@dataclass(frozen=True)
class Block:
    """Consecutive frames of a clip, before what a fold fitted is applied."""

    begin: int
    times: np.ndarray
    """float64 [N], seconds after the first frame of the clip."""
    raw: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    """bool [N] of each modality."""


@dataclass(frozen=True)
class _Reach:
    """The sound that the feature of a frame needs besides its own."""

    behind_s: float = 0.0
    ahead_s: float = 0.0
    frames: int = 1
    """Frames on each side that it is computed with: how long one is shown depends on the next."""


class GrowingClip:
    """A recording with the front ends of a cell."""

    def __init__(
        self,
        recording: GrowingRecording,
        extractors: Mapping[str, Extractor],
        weights: Origin | None,
        *,
        rate: float,
        faces: str,
    ) -> None:
        """rate: frames a second of a recording without pictures. faces: as of `ClipTask`.

        Raises `UserError` for what cannot stream.
        """
        held = {"visual": recording.fps > 0, "audio": recording.has_sound}
        if not any(held.get(modality) for modality in extractors):
            raise UserError(
                f"{recording.name} holds none of {', '.join(extractors)}", "give one that holds one of them"
            )
        for modality, extractor in extractors.items():
            if modality == "text":
                raise UserError("words are recognised in whole recordings only", "choose a system without text")
            if extractor.hub is not None:
                raise UserError(
                    f"{extractor.name} reads a recording in long stretches", "predict it when it is finished"
                )
        self.fps = recording.fps or rate
        self.notes: tuple[str, ...] = ()
        """What is to be said about the clip, complete at its end."""
        self._recording, self._extractors = recording, extractors
        self._faces = faces
        self._every = 1 if faces == "find_in_each" else looks_every(self.fps)
        self._times: list[float] = []
        self._networks: dict[str, FrozenBackbone] = {}
        for modality, extractor in extractors.items():
            if extractor.backbone is not None:
                assert weights is not None
                self._networks[modality] = frozen(extractor.backbone, weights, "cpu")

    @property
    def times(self) -> np.ndarray:
        """float64 [frames]: when each frame so far is shown, in seconds after the first."""
        return np.array(self._times)

    @property
    def delay(self) -> float:
        """Seconds from the begin of a frame until enough is recorded to compute its features."""
        frames = [1.0]
        if "visual" in self._extractors and self._recording.fps and self._faces != "whole":
            frames.append(1.0 + looks_ahead(self.fps, self._every))
        if "audio" in self._extractors and self._recording.has_sound:
            reach = _reach(self._extractors["audio"])
            frames.append(1 + reach.frames + _ENDS + reach.ahead_s * self.fps)
        return max(frames) / self.fps + _BLOCK_S

    def blocks(self) -> Iterator[Block]:
        """The frames in order, as soon as their features are settled. Raises `UserError`."""
        seen = "visual" in self._extractors and self._recording.fps > 0
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        begin = there = 0
        any_there = dict.fromkeys(self._extractors, False)
        for chunk in self._chunks(seen):
            if chunk is not None:
                waiting.append(chunk)
                there += len(chunk[1])
            end = min(there, self._heard()) if chunk is not None else there
            if end <= begin or (chunk is not None and end - begin < _BLOCK_S * self.fps):
                continue
            rows, present = (np.concatenate(part) for part in zip(*waiting, strict=True))
            count = end - begin
            waiting = [(rows[count:], present[count:])]
            block = self._block(begin, end, rows[:count], present[:count])
            any_there = {m: any_there[m] or bool(block.present[m].any()) for m in self._extractors}
            begin = end
            yield block
        self._finish(any_there, seen)

    def encode(
        self, block: Block, fitted: Mapping[str, LightEncoder | Normalisation | None], widths: Mapping[str, int]
    ) -> Features:
        """The features of a block under what one fold fitted; widths: I of each modality."""
        values = {}
        for modality, extractor in self._extractors.items():
            raw, present, own = block.raw[modality], block.present[modality], fitted.get(modality)
            if extractor.per_fold and own is None:
                raise UserError(
                    f"the store of the cell does not hold the encoder that its fold fitted for {modality}",
                    "run `crossfold prepare` again on the corpus, with this version: the store and its cells stay",
                )
            if not present.any():
                values[modality] = np.zeros((len(present), widths[modality]), np.float32)
            elif isinstance(own, LightEncoder):
                values[modality] = own.encode(measure(raw), present)
            elif isinstance(own, Normalisation):
                values[modality] = self._encoded(modality, standardised_input(raw, present, own), present)
            else:
                values[modality] = raw
        return Features(values, block.present)

    def _encoded(self, modality: str, raw: np.ndarray, present: np.ndarray) -> np.ndarray:
        network = self._networks[modality]
        parts = [
            network.encode(raw[begin : begin + network.batch], whole_batch=False)
            for begin in range(0, len(raw), network.batch)
        ]
        return np.where(present[:, None], np.concatenate(parts), np.float32(0))

    def _block(self, begin: int, end: int, rows: np.ndarray, present: np.ndarray) -> Block:
        raw, there = {"visual": rows}, {"visual": present}
        if "audio" in self._extractors:
            raw["audio"], there["audio"] = self._sound_of(begin, end)
        for modality, extractor in self._extractors.items():
            if modality in self._networks and not extractor.per_fold and there[modality].any():
                raw[modality] = self._encoded(modality, raw[modality], there[modality])
        return Block(begin, np.array(self._times[begin:end]), raw, there)

    def _chunks(self, seen: bool) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        """Crops of new frames, or of no size where none are looked at; None at the end."""
        if not seen:
            done = 0
            for _ in self._pictures(every_step=True):
                if (count := len(self._times) - done) > 0:
                    yield np.zeros((count, 0), np.uint8), np.zeros(count, np.bool_)
                    done += count
        else:
            extractor = self._extractors["visual"]
            clips = clip_kind(extractor.reads)
            crops = self._crops(extractor)
            yield from crops if clips is None else gathered(clips, crops)
        yield None

    def _crops(self, extractor: Extractor) -> Chunks:
        colour: Colour = "L" if extractor.reads == "crops" else "RGB"
        side = CROP if extractor.reads == "crops" else side_of(extractor.reads)
        finder = None if self._faces == "whole" else detector()
        pictures = ((index, picture) for index, picture in self._pictures() if picture is not None)
        other = yield from growing_face_chunks(pictures, self.fps, finder, self._every, colour, side)
        if other:
            self.notes += (f"in {other} frames the finished recording shows another face as the subject's",)

    def _pictures(self, *, every_step: bool = False) -> Iterator[tuple[int, np.ndarray | None]]:
        """New pictures with their numbers, whose times are noted; with `every_step` also (0, None) for new sound."""
        for pictures in self._recording.steps():
            for time, picture in pictures:
                self._times.append(time)
                yield len(self._times) - 1, picture
            if not self._recording.fps:
                self._count_frames()
            if every_step:
                yield 0, None
        if not self._recording.fps:
            self._count_frames()
            yield 0, None

    def _count_frames(self) -> None:
        """Frames of a recording without pictures: those that its sound covers."""
        if (sound := self._recording.sound) is not None:
            known = sound.known(rate_of(self._extractors["audio"])) if "audio" in self._extractors else 0.0
            self._times += [n / self.fps for n in range(len(self._times), int(known * self.fps + 1e-6))]

    def _heard(self) -> int:
        """The number of frames whose sound is settled."""
        sound = self._recording.sound
        if "audio" not in self._extractors or not self._recording.has_sound:
            return len(self._times)
        if sound is None:
            return 0
        reach = _reach(self._extractors["audio"])
        known = sound.known(rate_of(self._extractors["audio"])) - reach.ahead_s - _ENDS / self.fps
        return max(0, bisect_right(self._times, known) - reach.frames - 1)

    def _sound_of(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The front end of sound for these frames, as far as no fold has to standardise it, and where there is any."""
        extractor, sound = self._extractors["audio"], self._recording.sound
        reach = _reach(extractor)
        first, last = max(0, begin - reach.frames), min(len(self._times), end + reach.frames + 1)
        times = np.array(self._times[first:last])
        second = max(0, math.floor(times[0] - reach.behind_s))
        heard = sound.since(second, rate_of(extractor)) if sound is not None else None
        if sound is not None:
            sound.forget(second)
        chunks = sound_chunks(extractor, heard, times - second, self.fps, CHUNK)
        rows, present = (np.concatenate(part) for part in zip(*chunks, strict=True))
        own = slice(begin - first, end - first)
        return np.where(present[own].reshape(-1, *[1] * (rows.ndim - 1)), rows[own], rows.dtype.type(0)), present[own]

    def _finish(self, any_there: Mapping[str, bool], seen: bool) -> None:
        if seen and not any_there["visual"]:
            raise UserError(f"no face was found in {self._recording.name}", NO_FACE)
        lacking: Sequence[str] = [m for m, there in any_there.items() if not there and not (seen and m == "visual")]
        self.notes += tuple(f"the recording holds no {modality}: it is absent in every frame" for modality in lacking)


def _reach(extractor: Extractor) -> _Reach:
    if extractor.name == "mfcc":
        return _Reach(ahead_s=0.03, frames=5)  # two differences over two neighbours, of windows of 25 ms
    if extractor.reads == "vggish":
        return _Reach(ahead_s=1.0)  # 96 columns from the frame on
    if extractor.reads in DECIBELS:
        kind = DECIBELS[extractor.reads]
        return _Reach(behind_s=kind.samples / kind.rate)
    return _Reach()
