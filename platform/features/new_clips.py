"""A clip that is in no store, from its files to the features that its store would hold of it, bit for bit.

A clip is read once (`NewClip.read`); what a fold fitted is applied afterwards (`NewClip.features`), so that an ensemble
over folds decodes a video once.

N frames, I features.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from crossfold.datasets.corpora.clips import ClipInfo, MediaClip
from crossfold.datasets.corpora.manifest.features import SUFFIXES, read_clip
from crossfold.datasets.media.crops import crop_files
from crossfold.datasets.media.face_tracking import EARLIER_FACE_FRONT_END, WHOLE_FRAME, available
from crossfold.datasets.media.sound import sound_seconds
from crossfold.datasets.media.stamps import read_stamps
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.datasets.store.feature_store import Normalisation
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.features.extractors import Extractor, Origin, face_constants, find_extractor
from crossfold.platform.features.fold_fitting import FoldTask, encode_folds, measured, stored
from crossfold.platform.features.pca_faces import LightEncoder
from crossfold.platform.features.read_clip import ClipTask
from crossfold.platform.features.read_clip import read_clip as read_media

_NAME = "clip"
_NO_TEXT = "give the features of its words as a file, or choose a system without text"


@dataclass(frozen=True)
class ReadingOptions:
    """What the files of a clip do not say."""

    weights: Path | None = None
    """The folder of pretrained weights, where a front end is a network."""
    whole_frame: bool = False
    """The pictures of a video are crops of a face already: none is looked for."""
    rate: float | None = None
    """Frames per second of a clip without video; None: the rate that the cell was trained at."""

    def rate_or(self, fps: float) -> float:
        """The rate, by default that of the cell's corpus. Raises `UserError` where it is none."""
        rate = self.rate if self.rate is not None else fps
        if rate <= 0:
            raise UserError(f"--rate {rate:g} is no rate", "give the frames per second, such as 25")
        return rate


@dataclass(frozen=True)
class Features:
    """A clip as a cell reads it."""

    values: Mapping[str, np.ndarray]
    """float32 [N, I] of each modality, before normalisation."""
    present: Mapping[str, np.ndarray]
    """bool [N] of each modality."""


class NewClip:
    """One clip that was read: a video, sound, a folder of crops, or features."""

    def __init__(self, path: Path, axis: TimeAxis, extractors: Mapping[str, Extractor], given: Features) -> None:
        self.path, self.axis = path, axis
        self.notes: tuple[str, ...] = ()
        """What is said about the clip: modalities that it lacks, a detector of another release."""
        self._extractors, self._given = extractors, given
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._task: ClipTask | None = None

    @classmethod
    def read(
        cls, path: Path, origin: Mapping[str, Any], fps: float, options: ReadingOptions | None = None
    ) -> "NewClip":
        """Reads a clip with the front ends that `origin`, of a store's manifest, names for each modality.

        fps: the rate of the cell's corpus, for sound and crops without one. Raises `UserError` for a file that is no
        clip, a video without a face, a front end of another version or without its weights.
        """
        options = options or ReadingOptions()
        path = path.absolute()
        rate = options.rate_or(fps)
        if (features := _feature_files(path)) is not None:
            given = _read_features(features, rate)
            frames = len(next(iter(given.values.values())))
            return cls(path, TimeAxis(np.arange(frames) / rate, rate), {}, given)
        extractors, weights = front_ends(origin, options.weights, path.name)
        clip = _media_clip(path, rate)
        made_clip = cls(path, _axis(clip), extractors, Features({}, {}))
        faces = faces_asked(origin, options)
        made_clip._make(clip, faces, weights)
        made_clip._check(clip, origin, faces)
        return made_clip

    def features(self, fitted: Mapping[str, LightEncoder | Normalisation | None]) -> Features:
        """The features under what one fold fitted for each modality that is fitted."""
        if self._task is None:
            return self._given
        values, present = {}, {}
        for modality, extractor in self._extractors.items():
            array, present[modality] = stored(self._task.scratch, self._task.clip, modality)
            own = fitted.get(modality)
            if extractor.per_fold and own is None:
                raise UserError(
                    f"the store of the cell does not hold the encoder that its fold fitted for {modality}",
                    "run `crossfold prepare` again on the corpus, with this version: the store and its cells stay",
                )
            # As `prepare` does: the number of threads decides the last bit of a matrix product.
            with threadpool_limits(1):
                if isinstance(own, LightEncoder):
                    values[modality] = own.encode(measured(array), present[modality])
                elif isinstance(own, Normalisation):
                    values[modality] = self._encoded(self._task, extractor, own)
                else:
                    values[modality] = np.array(array)
        return Features(values, present)

    def _encoded(self, task: ClipTask, extractor: Extractor, standard: Normalisation) -> np.ndarray:
        work = FoldTask(task, extractor, {0: standard})
        (file,) = work.files.values()
        file.unlink(missing_ok=True)  # of another fold
        encode_folds(work)
        return np.array(np.load(file))

    def _make(self, clip: MediaClip, faces: str, weights: Origin | None) -> None:
        """Reads the media into a scratch folder that lives as long as this object."""
        self._scratch = tempfile.TemporaryDirectory(prefix="crossfold-predict-")
        wants_face = any(extractor.modality == "visual" for extractor in self._extractors.values())
        if wants_face and clip.video is not None and clip.crops is None and faces != "whole" and available() is None:
            remedy = "pip install 'crossfold[faces]', or give --whole-frame where its pictures are crops of a face"
            raise UserError(f"finding the face in {self.path.name} needs dlib", remedy)
        self._task = ClipTask(clip, tuple(self._extractors.values()), Path(self._scratch.name), faces, weights)
        if (error := read_media(self._task)) is not None:
            raise error

    def _check(self, clip: MediaClip, origin: Mapping[str, Any], faces: str) -> None:
        assert self._task is not None
        there = {m: bool(stored(self._task.scratch, clip, m)[1].any()) for m in self._extractors}
        if "visual" in there and clip.crops is None and clip.video is not None:
            self.notes += face_notes(origin, faces)
        if not any(there.values()):
            raise UserError(f"{self.path} holds none of {', '.join(there)}", "give a clip that holds one of them")
        for modality in (m for m, is_there in there.items() if not is_there):
            self.notes += (f"{self.path.name} holds no {modality}: it is absent in every frame",)


def front_ends(origin: Mapping[str, Any], folder: Path | None, name: str) -> tuple[dict[str, Extractor], Origin | None]:
    """The front ends that `origin` names for each modality, and where the weights of networks among them are.

    folder: of pretrained weights; name: of the clip of media that they are for. Raises `UserError` where there are
    none, or where they are of another version.
    """
    if origin.get("features") == "as given":
        made = f"the cell was trained on features that were given, and {name} holds none"
        raise UserError(made, f"give a folder or an .npz of features: {', '.join(SUFFIXES)}")
    weights = _weights(origin, folder)
    return {modality: _extractor(modality, facts, weights) for modality, facts in origin.items()}, weights


def faces_asked(origin: Mapping[str, Any], options: ReadingOptions) -> str:
    """How faces get out of a video (`ClipTask.faces`): as asked, else as those of the corpus did."""
    wanted = origin.get("visual", {}).get("faces") or {}
    if options.whole_frame or wanted == WHOLE_FRAME:
        return "whole"
    return "find_in_each" if wanted.get("version") == EARLIER_FACE_FRONT_END["version"] else "find"


def face_notes(origin: Mapping[str, Any], faces: str) -> tuple[str, ...]:
    """What is said where faces of the corpus were found by another detector, or another release of it."""
    wanted, release = origin["visual"].get("faces"), available() or ""
    now = {**EARLIER_FACE_FRONT_END, "dlib": release} if faces == "find_in_each" else face_constants(release, faces)
    if faces == "whole" or wanted in (None, now):
        return ()
    return (f"faces of the corpus were found with {wanted}, here with {now}",)


def _feature_files(path: Path) -> dict[str, Path] | None:
    """The files of features of a clip by modality; None where `path` is of media."""
    if path.is_dir():
        found = {p.stem: p for p in sorted(path.iterdir()) if p.stem in MODALITIES and p.suffix.lower() in SUFFIXES}
        return found or None
    if not path.is_file():
        raise UserError(f"there is no {path}", "give a video, a wav file, a folder of crops, or features")
    if path.suffix.lower() == ".npz":
        with np.load(path) as archive:
            return dict.fromkeys(archive.files, path)
    if path.suffix.lower() in SUFFIXES:
        remedy = f"put {path.name} into a folder as audio{path.suffix}, visual{path.suffix} or text{path.suffix}"
        raise UserError(f"{path} does not say which modality it is of", remedy)
    return None


def _read_features(files: Mapping[str, Path], rate: float) -> Features:
    read = read_clip(files, rate)
    values: dict[str, np.ndarray] = {}
    for modality, array in read.items():
        if isinstance(array, DataError):
            raise DataError(f"{files[modality]}: {array.problem}", array.remedy)
        values[modality] = array
    # A row of zeros stands for nothing there, as in a corpus.
    return Features(values, {modality: np.abs(array).max(axis=1) > 0 for modality, array in values.items()})


def _media_clip(path: Path, rate: float) -> MediaClip:
    """What the files of a clip are. A folder of crops may hold the sound, or the video, of the clip as well."""
    crops, media = (path, _media_in(path)) if path.is_dir() else (None, path)
    stamps = read_stamps(media) if media is not None else None
    sound = media if stamps is not None and stamps.sound is not None else None
    if media is not None and stamps is not None and len(stamps.clock):
        axis, video = TimeAxis(stamps.times, stamps.fps), media
        times: np.ndarray | None = axis.times
    else:
        numbers = crop_files(crops) if crops is not None else {}
        seconds = sound_seconds(sound) if sound is not None else None
        # Frames of the pictures, where there are some; else whole frames of the sound.
        frames = max(numbers, default=0) or int((seconds or 0) * rate + 1e-6)
        axis, video, times = TimeAxis(np.arange(frames) / rate, rate), None, None
    if axis.frames == 0:
        if crops is not None:
            remedy = "number crops from 1: 00001.jpg, or name features by modality: audio.npy, visual.npy"
            raise UserError(f"{path} holds neither face crops nor features", remedy)
        raise UserError(f"{path} is shorter than a frame, which lasts {1 / rate:.2g} s", "give a longer recording")
    info = ClipInfo(name=_NAME, video=_NAME, subject=_NAME, partition="test", fps=axis.fps, frames=axis.frames)
    labels = np.zeros((axis.frames, 0), np.float32)
    return MediaClip(info=info, labels=labels, crops=crops, audio=sound, video=video, times=times)


def _axis(clip: MediaClip) -> TimeAxis:
    times = clip.times if clip.times is not None else np.arange(clip.info.frames) / clip.info.fps
    return TimeAxis(times, clip.info.fps)


def _media_in(folder: Path) -> Path | None:
    """The one file of sound or video in a folder of crops."""
    pictures = set(crop_files(folder).values())
    media = [path for path in sorted(folder.iterdir()) if path.is_file() and path not in pictures]
    media = [path for path in media if not path.name.startswith(".")]
    if len(media) > 1:
        listed = ", ".join(path.name for path in media[:4])
        raise UserError(f"{folder} holds {len(media)} files next to its crops: {listed}", "leave one: sound or video")
    return media[0] if media else None


def _weights(origin: Mapping[str, Any], folder: Path | None) -> Origin | None:
    """Where the weights of the networks among the front ends are; None where there is none."""
    networks = [facts for facts in origin.values() if "extractor" in facts]
    if not networks:
        return None
    from crossfold.platform.modeling.pretrained_files import weights_folder

    seeds = [facts["weights"]["random"] for facts in networks if "random" in facts["weights"]]
    return Origin(str(weights_folder(folder)), seeds[0] if seeds else None)


def _extractor(modality: str, facts: Mapping[str, Any], weights: Origin | None) -> Extractor:
    """The extractor that made a modality. Raises `UserError` where this version or these weights differ from it."""
    if "extractor" not in facts:
        own = {key: value for key, value in facts.items() if key != "faces"}
        names = [_BY_KIND[own["kind"]]] if own.get("kind") in _BY_KIND else [f"raw:{own.get('input')}"]
        extractor = find_extractor(modality, names[0])
        now: Mapping[str, Any] = dict(extractor.front_end)
    else:
        if modality == "text" and "vosk" not in facts["extractor"]:
            raise UserError("the cell reads words from transcripts, which a new clip does not have", _NO_TEXT)
        from crossfold.platform.features.frozen_backbone import extractor_facts

        assert weights is not None
        extractor = find_extractor(modality, facts["extractor"])
        own = {key: value for key, value in facts.items() if key not in ("faces", "device")}
        made = extractor_facts(extractor, weights, "cpu")
        now = {key: value for key, value in made.items() if key != "device"}
    if (now := json.loads(json.dumps(now))) != own:
        differ = sorted(key for key in {*now, *own} if now.get(key) != own.get(key))
        problem = f"{modality} of the cell was made by another version of {extractor.name}: {', '.join(differ)} differ"
        raise UserError(problem, "prepare the corpus and train again with this version, or predict with the older one")
    return extractor


_BY_KIND = {"log-mel": "logmel", "mfcc": "mfcc", "edges-grey-pca": "light"}
