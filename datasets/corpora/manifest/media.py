"""Media of the corpus `manifest`: what a row's video, sound and crops are, and which frames its clip has.

A video gives the frames and their times. Without one, column `rate` does, and the sound or the last crop says how many.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.findings import Finding, attempt, relative
from crossfold.datasets.corpora.manifest.frames import TOLERANCE, Axis
from crossfold.datasets.corpora.media_checks import check_crops
from crossfold.datasets.media.crops import crop_files
from crossfold.datasets.media.sound import sound_seconds
from crossfold.datasets.media.video import VideoFacts, probe

_APART = 1.0
"""Seconds by which sound and pictures may differ in length before it is worth a word."""
_SAME_RATE = 0.01


@dataclass(frozen=True)
class MediaFiles:
    """The files that a row names."""

    line: int
    video: Path | None
    audio: Path | None
    crops: Path | None
    rate: float | None


@dataclass(frozen=True)
class Media:
    """A clip's media after a look at each file."""

    axis: Axis
    times: np.ndarray | None
    """As `MediaClip.times`."""
    audio: Path | None


def look(files: MediaFiles, root: Path, findings: list[Finding], *, deep: bool) -> Media | None:
    """The frames and the sound of a clip; nothing, and findings, where a file is of no use."""
    facts = attempt(probe, files.video, "video-readable", root, findings)
    # A damaged video that is also named as the sound is one finding.
    audio = None if files.audio == files.video and facts is None else files.audio
    seconds = attempt(sound_seconds, audio, "sound-readable", root, findings)
    if (files.video and not facts) or any(finding.severity == "error" for finding in findings):
        return None
    if files.audio is not None and seconds is None:
        name = relative(files.audio, root)
        findings.append(Finding(name, "sound-there", "has no sound track", "name a file with sound, or leave it empty"))
        return None
    axis = _of_video(facts, files, findings) if facts is not None else _of_rate(files, seconds, root, findings)
    if axis is None:
        return None
    if files.audio is not None and seconds is not None and abs(seconds - axis.seconds) > _APART:
        problem = f"lasts {seconds:.1f} s, the pictures of its clip {axis.seconds:.1f} s"
        remedy = "both begin at 0; where there is no sound it is marked absent. Check that they are of one cut"
        findings.append(Finding(relative(files.audio, root), "sound-length", problem, remedy, "warning"))
    if files.crops is not None:
        findings += check_crops(files.crops, axis.frames, TOLERANCE, root, decode=deep)
    elif files.video is not None:
        problem = f"line {files.line}: a video without crops"
        remedy = "faces are cut out of it where a detector is installed; else name their folder in column crops"
        findings.append(Finding("manifest.csv", "crops-there", problem, remedy, "warning"))
    sound = files.audio or (files.video if facts is not None and facts.has_sound else None)
    return Media(axis, facts.times if facts is not None else None, sound)


def _of_video(facts: VideoFacts, files: MediaFiles, findings: list[Finding]) -> Axis:
    if files.rate is not None and abs(files.rate - facts.fps) > _SAME_RATE * facts.fps:
        problem = f"line {files.line}: rate {files.rate:g}, its video has {facts.fps:.4g} frames a second"
        findings.append(Finding("manifest.csv", "rate", problem, "nothing to do: the video's is taken", "warning"))
    return Axis(facts.times, facts.fps)


def _of_rate(files: MediaFiles, seconds: float | None, root: Path, findings: list[Finding]) -> Axis | None:
    if files.rate is None:
        problem = f"line {files.line}: no video, and no rate"
        remedy = "give the frames a second at which labels and predictions are wanted, in column rate"
        findings.append(Finding("manifest.csv", "rate", problem, remedy))
        return None
    if seconds is not None:
        frames = int(seconds * files.rate + 1e-6)
    else:
        assert files.crops is not None
        frames = max(crop_files(files.crops), default=0)
    if frames == 0:
        what = files.audio or files.crops
        assert what is not None
        findings.append(Finding(relative(what, root), "frames", "is shorter than a frame", "name another file"))
        return None
    return Axis(np.arange(frames) / files.rate, files.rate)
