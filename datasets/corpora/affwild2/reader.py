"""Aff-Wild2, VA challenge, in the layout in which its owners give it out.

    <anywhere>/VA_Estimation_Challenge/Train_Set|Validation_Set/<clip>.txt    header, then `valence,arousal` per frame
    <anywhere>/Valence*_test_set_release.txt                                   optional; test clips, one per line
    <anywhere>/cropped_aligned*/<clip>/00001.jpg                              a missing number is a frame without face
    <anywhere>/<video>.mp4|avi|mkv|mov                                        batch1, batch2, videos, ...
    <anywhere>/<video>.wav                                                    optional; else the video's own sound
    <anywhere>/transcripts/<video>.json|csv                                   optional; words with times

`<clip>` is `<video>`, or `<video>_left`, `_right`, `_left_2` where several people are annotated.

Line i of the labels, crop number i and the i-th picture of the video are the same frame; nothing is ever shifted.
A clip has as many frames as labels. Pictures after the last label are dropped; labels after the last picture become
unlabelled. More than `TOLERANCE` frames of either is an error: then the files are not of one video.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.affwild2.files import (
    TEST,
    Listing,
    check_folders,
    check_split,
    find_split,
    find_video,
    list_files,
    of_clip,
    source_files,
    video_name,
)
from crossfold.datasets.corpora.clips import UNLABELLED, VALENCE_AROUSAL, ClipInfo, MediaClip, Span
from crossfold.datasets.corpora.discovery import composed, examine_clips, sound_of_video, take_crops, take_transcript
from crossfold.datasets.corpora.embedded_truth import embedded_name, read_spans, read_subjects
from crossfold.datasets.corpora.findings import Finding, Report, check_targets, has_errors, relative
from crossfold.datasets.corpora.frame_labels import read_labels
from crossfold.datasets.corpora.media_checks import TOLERANCE, check_crops, check_video, check_wav, constant_rate_remedy
from crossfold.datasets.corpora.registry import CORPORA, Corpus, Inspection
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.datasets.media.video import VideoFacts


@dataclass(frozen=True)
class _Folder:
    """What is known of the whole folder when one clip is examined."""

    root: Path
    listing: Listing
    deep: bool
    spans: Mapping[str, Sequence[Span]]
    subjects: Mapping[str, str]
    """What an embedded corpus says about its clips; empty for real data."""


def inspect_affwild2(root: Path, *, deep: bool) -> Inspection:
    """Clips of a data folder, training part first, each in order of name; `deep` also reads every crop."""
    root = root.resolve()
    corpus = embedded_name(root) if (root / "puppets.json").is_file() else "affwild2"
    listing = list_files(root)
    findings = check_folders(root, listing)
    if not listing.labels or not listing.media.videos:
        return Inspection(corpus, [], tuple(findings))
    folder = _Folder(root, listing, deep, read_spans(root, findings), read_subjects(root, findings))
    clips, found = examine_clips(lambda entry: _examine(folder, *entry), listing.labels)
    findings += [*found, *check_targets([clip.labels for clip in clips], VALENCE_AROUSAL)]
    split = find_split(listing) if corpus == "affwild2" else None
    if split is not None:
        findings += check_split(root, listing, split)
    origin = {"split": split.description} if split is not None else {}
    # Two people of one video bring the same finding about it.
    return Inspection(corpus, clips, tuple(dict.fromkeys(findings)), origin=origin)


def _examine(folder: _Folder, partition: str, file: Path) -> tuple[MediaClip | None, list[Finding]]:
    """One clip and what is wrong with its files; no clip where that is an error."""
    root, media, name = folder.root, folder.listing.media, composed(file.stem)
    labels, findings = (_no_labels(0), []) if partition == TEST else read_labels(file, root)
    report = Report(relative(file, root), findings)
    crops = take_crops(name, media.crops.get(name, []), bool(media.crops), report.file, root, findings)
    video = find_video(root, folder.listing, name, report)
    facts = check_video(video, root, findings)
    if partition == TEST and facts is not None:  # no label file says how many frames
        labels = _no_labels(facts.frames)
    if crops is not None and len(labels):
        # Where labels and pictures differ, that is one finding and not a second one about the crops.
        frames = max(len(labels), facts.frames if facts is not None else 0)
        findings += check_crops(crops, frames, TOLERANCE, root, decode=folder.deep)
    if video is None or facts is None:
        return None, findings
    audio = _find_sound(folder, name, video, facts, findings)
    if len(labels):
        _check_length(len(labels), facts.axis, relative(video, root), report)
    transcript = take_transcript(of_clip(media.transcripts, name), facts.seconds, root, findings)
    if has_errors(findings):
        return None, findings
    # Labels after the last picture have nothing to be learnt from; those of the test part are all empty.
    labels[facts.frames :] = UNLABELLED
    times, spans = _times(facts.axis, len(labels)), tuple(folder.spans.get(name, ()))
    source, fps = video_name(name), facts.fps
    subject = folder.subjects.get(name, source)
    info = ClipInfo(name=name, video=source, subject=subject, partition=partition, fps=fps, frames=len(labels))
    clip = MediaClip(
        info=info, labels=labels, crops=crops, audio=audio, video=video, spans=spans, times=times, transcript=transcript
    )
    return clip, findings


def _no_labels(frames: int) -> np.ndarray:
    return np.full((frames, 2), UNLABELLED, np.float32)


def _find_sound(folder: _Folder, clip: str, video: Path, facts: VideoFacts, findings: list[Finding]) -> Path | None:
    """The wav of the clip or of its video, else the video if it has sound, else nothing."""
    root, sounds = folder.root, folder.listing.media.sounds
    wavs = of_clip(sounds, clip)
    if wavs:
        findings += check_wav(wavs[0], root)
        return wavs[0]
    return sound_of_video(video, facts, f"{video_name(clip)}.wav", bool(sounds), root, findings)


def _check_length(labels: int, axis: TimeAxis, video: str, report: Report) -> None:
    pictures = axis.frames
    if labels == pictures:
        return
    problem = f"has {labels} labels, {video} has {pictures} frames"
    if abs(labels - pictures) > TOLERANCE:
        remedy = constant_rate_remedy(labels, axis) or "they are not of the same cut; fetch both again"
        report.error("label-length", problem, remedy)
        return
    what = "the labels after the last frame" if labels > pictures else "the last frames"
    report.warning("label-length", problem, f"nothing to do: {what} are left out")


def _times(axis: TimeAxis, frames: int) -> np.ndarray:
    """Seconds at which each labelled frame is shown; frames after the last picture go on at the video's rate."""
    tail = axis.times[-1] + np.arange(1, frames - axis.frames + 1) / axis.fps
    times: np.ndarray = np.concatenate([axis.times[:frames], tail])
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
