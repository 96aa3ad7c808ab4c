"""Aff-Wild2, VA challenge, in the layout in which its owners give it out.

    <anywhere>/VA_Estimation_Challenge/Train_Set|Validation_Set/<clip>.txt    header, then `valence,arousal` a frame
    <anywhere>/Valence*_test_set_release.txt                                   optional; test clips, one a line
    <anywhere>/cropped_aligned*/<clip>/00001.jpg                              a missing number is a frame without face
    <anywhere>/<video>.mp4|avi|mkv|mov                                        batch1, batch2, videos, ...
    <anywhere>/<video>.wav                                                    optional; else the video's own sound
    <anywhere>/transcripts/<video>.json|csv                                   optional; words with times

`<clip>` is `<video>`, or `<video>_left`, `_right`, `_left_2` where several people are annotated.

Line i of the labels, crop number i and the i-th picture of the video are the same frame; nothing is ever shifted.
A clip has as many frames as labels. Pictures after the last label are dropped; labels after the last picture become
unlabelled. More than `TOLERANCE` frames of either is an error: then the files are not of one video.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.affwild2.files import (
    TEST,
    Listing,
    check_folders,
    check_split,
    find_crops,
    find_split,
    find_transcript,
    find_video,
    list_files,
    source_files,
    video_name,
)
from crossfold.datasets.corpora.clips import UNLABELLED, VALENCE_AROUSAL, ClipInfo, MediaClip, Span
from crossfold.datasets.corpora.discovery import sound_of_video
from crossfold.datasets.corpora.embedded_truth import read_spans, read_subjects
from crossfold.datasets.corpora.findings import Finding, attempt, check_targets, relative
from crossfold.datasets.corpora.frame_labels import read_labels
from crossfold.datasets.corpora.media_checks import check_crops, check_wav
from crossfold.datasets.corpora.registry import CORPORA, Corpus, Inspection
from crossfold.datasets.media.video import VideoFacts, probe

TOLERANCE = 5
"""Frames by which labels, pictures and crops may differ in length."""


@dataclass(frozen=True)
class _Truth:
    """What the embedded corpus says about its clips; empty for real data."""

    spans: Mapping[str, Sequence[Span]]
    subjects: Mapping[str, str]


def inspect_affwild2(root: Path, *, deep: bool) -> Inspection:
    """Clips of a data folder, training part first, each in order of name; `deep` also reads every crop."""
    root = root.resolve()
    corpus = "puppets" if (root / "puppets.json").is_file() else "affwild2"
    listing = list_files(root)
    findings = check_folders(root, listing)
    if not listing.labels or not listing.videos:
        return Inspection(corpus, [], tuple(findings))
    truth = _Truth(read_spans(root, findings), read_subjects(root, findings))

    def evaluate(entry: tuple[str, Path]) -> tuple[MediaClip | None, list[Finding]]:
        return _examine(root, listing, truth, *entry, deep=deep)

    # Pictures and packets are read outside the interpreter's lock, so threads do.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        examined = list(pool.map(evaluate, listing.labels))
    findings += chain.from_iterable(found for _, found in examined)
    clips = [clip for clip, _ in examined if clip is not None]
    findings += check_targets([clip.labels for clip in clips], VALENCE_AROUSAL)
    split = find_split(listing) if corpus == "affwild2" else None
    if split is not None:
        findings += check_split(root, listing, split)
    origin = {"split": split.says} if split is not None else {}
    # Two people of one video bring the same finding about it.
    return Inspection(corpus, clips, tuple(dict.fromkeys(findings)), origin=origin)


def _examine(
    root: Path, listing: Listing, truth: _Truth, partition: str, file: Path, *, deep: bool
) -> tuple[MediaClip | None, list[Finding]]:
    """One clip and what is wrong with its files; no clip where that is an error."""
    name, video = file.stem, video_name(file.stem)
    labels, findings = (_no_labels(0), []) if partition == TEST else read_labels(file, root)
    crops = find_crops(root, listing, file, findings)
    path = find_video(root, listing, file, findings)
    facts = attempt(probe, path, "video-readable", root, findings)
    if partition == TEST and facts is not None:
        labels = _no_labels(facts.frames)
    if crops is not None and len(labels):
        # Where labels and pictures differ, that is one finding and not a second one about the crops.
        frames = max(len(labels), facts.frames if facts is not None else 0)
        findings += check_crops(crops, frames, TOLERANCE, root, decode=deep)
    if path is None or facts is None:
        return None, findings
    audio = _find_sound(root, listing, file, path, facts, findings)
    if len(labels):
        findings += _check_length(file, path, len(labels), facts.frames, root)
    transcript = find_transcript(root, listing, name, facts.seconds, findings)
    if any(finding.severity == "error" for finding in findings):
        return None, findings
    labels[facts.frames :] = UNLABELLED
    info = ClipInfo(
        name=name,
        video=video,
        subject=truth.subjects.get(name, video),
        partition=partition,
        fps=facts.fps,
        frames=len(labels),
    )
    spans = tuple(truth.spans.get(name, ()))
    clip = MediaClip(
        info=info,
        labels=labels,
        crops=crops,
        audio=audio,
        video=path,
        spans=spans,
        times=_times(facts, info),
        transcript=transcript,
    )
    return clip, findings


def _no_labels(frames: int) -> np.ndarray:
    return np.full((frames, 2), UNLABELLED, np.float32)


def _find_sound(
    root: Path, listing: Listing, file: Path, video: Path, facts: VideoFacts, findings: list[Finding]
) -> Path | None:
    """The wav of the clip or of its video, else the video if it has sound, else nothing."""
    wavs = listing.sounds.get(file.stem) or listing.sounds.get(video_name(file.stem), [])
    if wavs:
        findings += check_wav(wavs[0], root)
        return wavs[0]
    return sound_of_video(video, facts, f"{video_name(file.stem)}.wav", bool(listing.sounds), root, findings)


def _check_length(file: Path, video: Path, labels: int, pictures: int, root: Path) -> list[Finding]:
    if labels == pictures:
        return []
    problem = f"has {labels} labels, {relative(video, root)} has {pictures} frames"
    if abs(labels - pictures) > TOLERANCE:
        remedy = "they are not of the same cut; fetch both again"
        return [Finding(relative(file, root), "label-length", problem, remedy)]
    remedy = "the labels after the last frame are left out" if labels > pictures else "the last frames are left out"
    return [Finding(relative(file, root), "label-length", problem, f"nothing to do: {remedy}", "warning")]


def _times(facts: VideoFacts, info: ClipInfo) -> np.ndarray:
    """Seconds at which each labelled frame is shown; frames after the last picture go on at the video's rate."""
    extra = info.frames - facts.frames
    tail = facts.times[-1] + np.arange(1, extra + 1) / facts.fps
    times: np.ndarray = np.concatenate([facts.times[: info.frames], tail])
    return times


_LAYOUT = "VA_Estimation_Challenge/{Train,Validation}_Set/*.txt, cropped_aligned*/<clip>/*.jpg, videos, audio/*.wav"

CORPORA.register("affwild2", origin=__name__)(
    Corpus(
        description="Aff-Wild2, VA challenge: 594 videos in the wild, valence and arousal of every frame",
        layout=_LAYOUT,
        needs="a licence of its owners, for academic research: annotations, cropped_aligned, videos",
        inspect=inspect_affwild2,
        sources=source_files,
    )
)
CORPORA.register("puppets", origin=__name__)(
    Corpus(
        description="rendered faces and synthesised speech with known valence and arousal, in Aff-Wild2's layout",
        layout=f"puppets.json, {_LAYOUT}",
        needs="nothing: `crossfold corpus puppets OUT` makes it",
        inspect=inspect_affwild2,
        sources=source_files,
    )
)
