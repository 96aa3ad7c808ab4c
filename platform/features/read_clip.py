"""One clip from its files to arrays in the scratch folder: what a worker of `prepare` does.

A clip's arrays stand in a folder of its name, `<modality>.npy` and `<modality>.present.npy`; the folder appears whole
or not at all. Pictures pass in chunks, so memory does not grow with the length of a clip; only its sound is held whole.

T frames, K pictures of a clip of a clip network.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from crossfold.datasets.corpora.clips import MediaClip
from crossfold.datasets.media.crops import CROP, Colour, crop_chunks
from crossfold.datasets.media.face_tracking import dlib_detector, face_chunks, find_track, side_of_clip, whole_frames
from crossfold.datasets.media.sound import RATE, covered_frames, frame_seconds, log_mel, read_sound
from crossfold.datasets.media.spectrograms import DECIBELS, VggishSpectrum, decibels, mfcc
from crossfold.datasets.store.array_file import ArrayFile, write_array
from crossfold.datasets.store.input_kinds import ClipKind, clip_kind
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, whole_folder
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.features.extractors import Extractor, Origin, side_of
from crossfold.platform.features.pca_faces import measure

if TYPE_CHECKING:
    from crossfold.platform.features.frozen_backbone import FrozenBackbone


CHUNK = 128
"""Frames of raw input that are in memory at a time."""

NO_FACE = "give --whole-frame where the pictures are crops of a face; else leave the video out, or give its crops"
"""What to do about a video in which no face is found."""

Chunks = Iterator[tuple[np.ndarray, np.ndarray]]
"""Consecutive frames [n, ...] with bool [n], which are there; n at most a chunk."""


@dataclass(frozen=True)
class ClipTask:
    """A clip and what to make of it; everything a worker needs, wherever it runs."""

    clip: MediaClip
    extractors: tuple[Extractor, ...]
    scratch: Path
    faces: str = "given"
    """Where there are no crops: `find` cuts faces out of the video, `find_in_each` does so as earlier versions did, by
    looking at every picture, and `whole` takes its pictures for crops."""
    weights: Origin | None = None
    """Of the networks among the extractors; None where there is none."""
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()
    """Files that register backbones, for workers that are processes of their own."""


def clip_folder(scratch: Path, clip: MediaClip) -> Path:
    """Where the arrays of a clip are."""
    return path_inside(scratch, clip.info.name)


def read_clip(task: ClipTask) -> UserError | None:
    """Reads and encodes one clip; returns, rather than raises, an error of its files."""
    try:
        with threadpool_limits(1), whole_folder(clip_folder(task.scratch, task.clip)) as draft:
            for extractor in task.extractors:
                _write(draft, extractor.modality, _made(task, extractor), task.clip.info.frames)
    except UserError as error:
        return error
    return None


def _write(folder: Path, modality: str, chunks: Chunks, frames: int) -> None:
    present: list[np.ndarray] = []
    with ExitStack() as opened:
        file: ArrayFile | None = None
        for rows, there in chunks:
            # The first chunk decides type and shape.
            if file is None:
                place = folder / f"{modality}.npy"
                file = opened.enter_context(ArrayFile(place, rows.dtype, (frames, *rows.shape[1:])))
            # The store must not depend on what a decoder gives for a frame without a face.
            file.append(np.where(there.reshape(-1, *[1] * (rows.ndim - 1)), rows, rows.dtype.type(0)))
            present.append(there)
        assert file is not None
    write_array(folder / f"{modality}.present.npy", np.concatenate(present).astype(np.bool_))


def _made(task: ClipTask, extractor: Extractor) -> Chunks:
    """What the scratch folder keeps: features, or what the fitting of each fold still needs."""
    if extractor.modality == "text":
        return _text(task, extractor)
    if extractor.hub is not None:
        return _hub(task, extractor, extractor.hub)
    if extractor.name == "light":
        # Here, where several clips are read at a time; what the folds fit to these numbers is quick.
        return ((measure(faces), present) for faces, present in _visual(task, extractor, CHUNK))
    if extractor.backbone is None:
        return _visual(task, extractor, CHUNK) if extractor.modality == "visual" else _audio(task, extractor, CHUNK)
    if extractor.per_fold:
        return _audio(task, extractor, CHUNK)
    network = network_of(task, extractor)
    read = _visual if extractor.modality == "visual" else _audio
    return ((network.encode(raw), present) for raw, present in read(task, extractor, network.batch))


def network_of(task: ClipTask, extractor: Extractor) -> "FrozenBackbone":
    """The backbone of an extractor, loaded. Torch takes seconds to import, so only a network imports it."""
    from crossfold.platform.features.frozen_backbone import frozen

    assert extractor.backbone is not None
    assert task.weights is not None
    for plugin in task.plugins:
        _load_once(plugin)
    return frozen(extractor.backbone, task.weights, task.device)


def _hub(task: ClipTask, extractor: Extractor, source: str) -> Chunks:
    """Features of a network of transformers, on the frames of the clip."""
    from crossfold.platform.features.hub_network import hub_network

    assert task.weights is not None
    network = hub_network(source, extractor.modality, task.weights, task.device)
    if extractor.modality == "audio":
        clip, times = task.clip, _times(task.clip)
        sound = read_sound(clip.audio, network.rate) if clip.audio is not None else None
        sound = sound if sound is not None else np.zeros(0, np.float32)
        lengths = frame_seconds(times, clip.info.fps)
        present = covered_frames(len(sound), times, clip.info.fps, network.rate)
        yield network.encode_sound(sound, times, lengths), present
        return
    crops = _crops(task, "RGB", network.side, network.batch)
    if network.pictures > 1:
        crops = gathered(ClipKind("", network.pictures, 1, network.side), crops)
    for raw, present in crops:
        yield network.encode_pictures(raw), present


def _times(clip: MediaClip) -> np.ndarray:
    return clip.times if clip.times is not None else np.arange(clip.info.frames) / clip.info.fps


def _audio(task: ClipTask, extractor: Extractor, chunk: int) -> Chunks:
    """Front ends of sound."""
    clip = task.clip
    sound = read_sound(clip.audio, rate_of(extractor)) if clip.audio is not None else None
    return sound_chunks(extractor, sound, _times(clip), clip.info.fps, chunk)


def rate_of(extractor: Extractor) -> int:
    """Samples a second of the sound that an extractor of our own, or the input of a backbone, is made of."""
    kind = DECIBELS.get(extractor.reads)
    # Spectrograms of a backbone have the rate that it was trained at.
    return kind.rate if kind is not None else RATE


def sound_chunks(extractor: Extractor, sound: np.ndarray | None, times: np.ndarray, fps: float, chunk: int) -> Chunks:
    """The front end of an extractor for frames at `times`; sound float32 [samples] that is not there is absent, and
    zero.
    """
    if extractor.name == "logmel":
        yield log_mel(sound, times, fps)
        return
    if sound is None:
        sound = np.zeros(0, np.float32)
    present = covered_frames(len(sound), times, fps, rate_of(extractor))
    if extractor.name == "mfcc":
        yield mfcc(sound, times, fps), present
        return
    cut = _front_end(extractor, sound, times, fps)
    for begin in range(0, len(times), chunk):
        rows = slice(begin, begin + chunk)
        yield cut(rows), present[rows]


def _front_end(extractor: Extractor, sound: np.ndarray, times: np.ndarray, fps: float) -> Callable[[slice], np.ndarray]:
    """From a stretch of frames to the input of a network for them."""
    if extractor.reads == "vggish":
        spectrum = VggishSpectrum(sound)
        return lambda rows: spectrum.examples(times[rows])
    if extractor.reads in DECIBELS:
        kind, ends = DECIBELS[extractor.reads], times + frame_seconds(times, fps)
        return lambda rows: decibels(sound, ends[rows], kind)
    raise UserError(f"extractor {extractor.name} reads {extractor.reads!r}", "no front end makes that of sound")


def _visual(task: ClipTask, extractor: Extractor, chunk: int) -> Chunks:
    """Crops in the form of `light` or of a backbone, or gathered to clips that end at each frame."""
    if extractor.reads == "crops":
        yield from _crops(task, "L", CROP, chunk)
        return
    crops = _crops(task, "RGB", side_of(extractor.reads), chunk)
    clips = clip_kind(extractor.reads)
    yield from crops if clips is None else gathered(clips, crops)


def gathered(kind: ClipKind, crops: Chunks) -> Chunks:
    """Crops -> clips [n, K, S, S, 3] that end at each of them, as `WindowSource` gathers them from a store."""
    reach = (kind.length - 1) * kind.step
    behind: np.ndarray | None = None
    for rows, present in crops:
        if behind is None:
            behind = np.repeat(rows[:1], reach, axis=0)
        held = np.concatenate([behind, rows])
        ends = np.arange(len(rows)) + reach
        yield held[kind.rows(ends, np.zeros_like(ends))], present
        # The last pictures of this chunk, which the first clips of the next one begin with.
        behind = held[len(held) - reach :]


def _crops(task: ClipTask, colour: Colour, side: int, chunk: int) -> Chunks:
    clip, frames = task.clip, task.clip.info.frames
    if clip.crops is not None:
        yield from crop_chunks(clip.crops, frames, colour, side, chunk)
        return
    if clip.video is not None and task.faces == "whole":
        yield from face_chunks(clip.video, whole_frames(clip.video, frames), colour, side, chunk)
        return
    if clip.video is not None and task.faces.startswith("find"):
        half = side_of_clip(clip.info.name, clip.info.video)
        every = 1 if task.faces == "find_in_each" else None
        track = find_track(clip.video, frames, clip.info.fps, detector(), half, every=every)
        if np.isnan(track).all():
            raise UserError(f"no face was found in {clip.video}{f', {half} half' if half else ''}", NO_FACE)
        yield from face_chunks(clip.video, track, colour, side, chunk)
        return
    shape = (side, side, 3) if colour == "RGB" else (side, side)
    for begin in range(0, frames, chunk):
        count = min(chunk, frames - begin)
        yield np.zeros((count, *shape), np.uint8), np.zeros(count, np.bool_)


detector = functools.cache(dlib_detector)
"""That of this process."""
_load_once = functools.cache(load_plugin)


def _text(task: ClipTask, extractor: Extractor) -> Chunks:
    """Features of words on the frames in which they are said; a clip without words has none."""
    from crossfold.platform.features.frozen_backbone import word_encoder
    from crossfold.platform.features.transcribe import clip_text

    assert task.weights is not None
    kept = path_inside(task.scratch, f"{task.clip.info.name}.words.json")
    encode = word_encoder(task.weights, task.device)
    folder = Path(task.weights.folder)
    yield clip_text(task.clip, extractor.name, folder, kept, _times(task.clip), encode, task.device)
