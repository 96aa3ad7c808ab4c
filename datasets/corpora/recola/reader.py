"""RECOLA, the part that AVEC 2016 gave out: 9 train and 9 dev recordings of 5 minutes, 25 labels per second.

    <anywhere>/ratings_gold_standard/arousal|valence/train_1.arff ...    also .csv; either will do, both must agree
    <anywhere>/ratings_individual/arousal|valence/train_1.csv ...        a column a rater, for want of gold standards
    <anywhere>/train_1.mp4|avi|mkv|mov ... dev_9                         in recordings_video/ or elsewhere
    <anywhere>/train_1.wav ...                                           optional; else the sound of the video
    <anywhere>/transcripts/train_1.json|csv                              optional; words with times
    <anywhere>/cropped_aligned*/train_1/00001.jpg ...                    optional; a number is a frame of the video

Recordings named as their participants (P16.mp4, emotional_behaviour/arousal/P16.csv) are read too, with
`partitions.csv` (recording,partition) to say which part they are in. Physiology and features are left alone.

A clip has the frames of its video. Label k holds from k / 25 s until label k + 1; a frame takes the label that holds
when it is shown, by its time stamp and never by its number, with a quarter of 40 ms to spare for rounded stamps. At 25
frames a second label k and frame k are the same; 7,501 labels for 7,500 frames, from 0 s to 300 s, is how files are.

`label_shift` moves labels towards what they rate, since annotators lag: the frame at t takes the label of t + shift.
The release of 004 shifts by 58 labels (valence) and 68 (arousal), that is 2.32 s and 2.72 s (G1e); the default is 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from crossfold.datasets.corpora.clips import ClipInfo, MediaClip, Span
from crossfold.datasets.corpora.discovery import examine_clips, sound_of_video, take_crops, take_one, take_transcript
from crossfold.datasets.corpora.embedded_truth import read_spans, read_subjects
from crossfold.datasets.corpora.findings import Finding, Report, attempt, has_errors, relative
from crossfold.datasets.corpora.media_checks import check_crops, check_video
from crossfold.datasets.corpora.recola.files import (
    DIMENSIONS,
    OFFICIAL,
    Listing,
    check_folders,
    list_files,
    read_partitions,
    source_files,
)
from crossfold.datasets.corpora.recola.labels import SPARE, compare_ends, labels_at, read_labels, where
from crossfold.datasets.corpora.recola.rating_files import RATE
from crossfold.datasets.corpora.registry import CORPORA, Corpus, Inspection
from crossfold.datasets.media.sound import sound_seconds
from crossfold.datasets.media.video import VideoFacts
from crossfold.platform.core.base_model import FrozenModel


class RecolaOptions(FrozenModel):
    """How the labels of RECOLA are read; stated in the store and part of its hash."""

    label_shift: float = Field(0.0, ge=0, le=10)
    """Seconds by which labels are moved back to what they rate; rounded to whole labels of 40 ms."""
    label_shift_valence: float | None = Field(None, ge=0, le=10)
    """The same for valence alone."""
    label_shift_arousal: float | None = Field(None, ge=0, le=10)
    """The same for arousal alone."""

    def rows(self) -> tuple[int, ...]:
        """Labels to shift by, in the order of the targets."""
        own = {"valence": self.label_shift_valence, "arousal": self.label_shift_arousal}
        shifts = (self.label_shift if own[name] is None else own[name] for name in DIMENSIONS)
        return tuple(round((shift or 0.0) * RATE) for shift in shifts)


@dataclass(frozen=True)
class _Folder:
    """What is known of the whole folder when one recording is examined."""

    root: Path
    listing: Listing
    parts: Mapping[str, str]
    shifts: tuple[int, ...]
    deep: bool
    subjects: Mapping[str, str]
    spans: Mapping[str, Sequence[Span]]


def inspect_recola(root: Path, *, deep: bool, options: RecolaOptions | None = None) -> Inspection:
    """Clips and findings of a data folder; `deep` also reads every crop."""
    root = root.resolve()
    embedded = (root / "puppets.json").is_file()
    shifts = (options or RecolaOptions()).rows()
    listing = list_files(root)
    findings: list[Finding] = []
    parts = read_partitions(root, listing, findings)
    findings += check_folders(root, listing, parts, embedded=embedded)
    spans, subjects = read_spans(root, findings), read_subjects(root, findings)
    folder = _Folder(root, listing, parts, shifts, deep, subjects, spans)
    names = [key for key in listing.rated if parts.get(key) != "test"] if listing.media.videos else []
    clips, found = examine_clips(lambda key: _examine(folder, key), names)
    clips.sort(key=lambda clip: (clip.info.partition, clip.info.name))  # the order of the store
    combined = _note_combined(listing, names)
    origin = _origin(names, parts, shifts, combined=bool(combined), embedded=embedded)
    return Inspection("puppets-recola" if embedded else "recola", clips, (*findings, *found, *combined), origin=origin)


def _examine(folder: _Folder, key: str) -> tuple[MediaClip | None, list[Finding]]:
    """One recording and what is wrong with its files; no clip where that is an error."""
    root, media = folder.root, folder.listing.media
    findings: list[Finding] = []
    report = Report(where(root, folder.listing, key), findings)
    grid = read_labels(root, folder.listing, key, findings)
    video, facts = _find_video(folder, key, report)
    crops = take_crops(key, media.crops.get(key, []), bool(media.crops), report.file, root, findings)
    if facts is None or video is None:
        return None, findings
    if crops is not None:
        # No tolerance: numbers are frames.
        findings += check_crops(crops, facts.frames, 0, root, decode=folder.deep)
    audio = _find_sound(folder, key, video, facts, findings)
    transcript = take_transcript(media.transcripts.get(key, []), facts.seconds, root, findings)
    if grid is not None:
        compare_ends(report, ("labels", len(grid) / RATE), ("video", facts.seconds), "label-length")
    if grid is None or key not in folder.parts or has_errors(findings):
        return None, findings
    # Frames after the last label are left out; what is a frame is said by the stamps of the video alone.
    frames = int(np.searchsorted(facts.times, (len(grid) - SPARE) / RATE))
    times = facts.times[:frames]
    labels, spans = labels_at(grid, times, folder.shifts), tuple(folder.spans.get(key, ()))
    subject, part, fps = folder.subjects.get(key, key), folder.parts[key], facts.fps
    info = ClipInfo(name=key, video=key, subject=subject, partition=part, fps=fps, frames=frames)
    clip = MediaClip(
        info=info, labels=labels, crops=crops, audio=audio, video=video, spans=spans, times=times, transcript=transcript
    )
    return clip, findings


def _note_combined(listing: Listing, names: Sequence[str]) -> list[Finding]:
    """One finding for all recordings whose gold standard is made here."""
    made = [key for key in names if any(d not in listing.gold.get(key, {}) for d in listing.raters.get(key, {}))]
    if not made:
        return []
    few = f" ({', '.join(made[:5])}{', ...' if len(made) > 5 else ''})"
    problem = f"no gold standard of {len(made)} recording{'s' if len(made) > 1 else ''}{few}"
    remedy = "made from the raters as for AVEC 2016: mean of centred traces, level weighted by agreement (CCC)"
    return [Finding(".", "gold-standard", problem, remedy, "warning")]


def _origin(
    names: Sequence[str], parts: Mapping[str, str], shifts: Sequence[int], *, combined: bool, embedded: bool
) -> Mapping[str, str]:
    """What the store says about its labels."""
    count = {part: sum(parts.get(key) == part for key in names) for part in OFFICIAL}
    whose = "puppets" if embedded else "official, AVEC 2016" if count == OFFICIAL else "a part of AVEC 2016's"
    shifted = ", ".join(
        f"{name} {rows / RATE:g} s ({rows} labels)" for name, rows in zip(DIMENSIONS, shifts, strict=True)
    )
    return {
        "partition": f"{whose}: {count['train']} train and {count['validation']} dev recordings",
        "labels": "from the raters, as for AVEC 2016" if combined else "gold standard as given",
        "label_shift": shifted,
    }


def _find_video(folder: _Folder, key: str, report: Report) -> tuple[Path | None, VideoFacts | None]:
    paths, root = folder.listing.media.videos.get(key, []), folder.root
    if not paths:
        remedy = f"put {key}.mp4 there: its time stamps say which sound and which face belong to which label"
        report.error("video-there", f"no video {key} anywhere under the root", remedy)
        return None, None
    video = take_one(paths, "video-once", root, Report(relative(paths[0], root), report.findings))
    return video, check_video(video, root, report.findings)


def _find_sound(folder: _Folder, key: str, video: Path, facts: VideoFacts, findings: list[Finding]) -> Path | None:
    """The wav of the recording, else the video if it has sound, else nothing."""
    root, sounds = folder.root, folder.listing.media.sounds
    wavs = sounds.get(key, [])
    if not wavs:
        return sound_of_video(video, facts, f"{key}.wav", bool(sounds), root, findings)
    report = Report(relative(wavs[0], root), findings)
    wav = take_one(wavs, "sound-once", root, report)
    seconds = attempt(sound_seconds, wav, "sound-readable", root, findings)
    if seconds is not None:
        compare_ends(report, ("sound", seconds), ("video", facts.seconds), "sound-length")
    return wav


CORPORA.register("recola", origin=__name__)(
    Corpus(
        description="RECOLA, AVEC 2016 part: 18 recordings of 5 minutes of remote talk, 25 labels per second",
        layout="ratings_gold_standard|ratings_individual/{arousal,valence}/*.{arff,csv}, train_1.{mp4,wav}, ...",
        needs="a licence of its owners, for academic research: recordings and ratings",
        inspect=inspect_recola,
        sources=source_files,
        options=RecolaOptions,
    )
)
