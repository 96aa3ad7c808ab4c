"""Media of the corpus `manifest`: what a row's video, sound and crops are, and which frames its clip has.

A video gives the frames and their times. Without one, column `rate` does, and the sound or the last crop says how many.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.findings import Finding, Refusal, Report, attempt, has_errors, relative
from crossfold.datasets.corpora.manifest.paths import MANIFEST
from crossfold.datasets.corpora.media_checks import TOLERANCE, check_crops, check_video
from crossfold.datasets.media.crops import crop_files
from crossfold.datasets.media.sound import sound_seconds
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.datasets.media.video import VideoFacts

_APART = 1.0  # seconds by which sound and pictures may differ in length before it is reported
_SPARSE = 1000  # frames for each crop of a clip; more are no numbers of frames
_SAME_RATE = 0.01  # 29.97 and 30 are taken for the same


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

    axis: TimeAxis
    times: np.ndarray | None
    """As `MediaClip.times`."""
    audio: Path | None


def inspect_media(files: MediaFiles, root: Path, findings: list[Finding], *, deep: bool) -> Media | None:
    """The frames and the sound of a clip; nothing, and findings, where a file is of no use."""
    facts = check_video(files.video, root, findings)
    # A damaged video that is also named as the sound is one finding.
    audio = None if files.audio == files.video and facts is None else files.audio
    seconds = attempt(sound_seconds, audio, "sound-readable", root, findings)
    if (files.video and not facts) or has_errors(findings):
        return None
    report = Report(MANIFEST, findings)
    sound = Report(relative(files.audio, root) if files.audio else "", findings)
    if files.audio is not None and seconds is None:
        sound.error("sound-there", "has no sound track", "name a file with sound, or leave it empty")
        return None
    axis = None
    with report:
        axis = _of_video(facts, files, report) if facts is not None else _of_rate(files, seconds)
    if axis is None:
        return None
    if seconds is not None and abs(seconds - axis.seconds) > _APART:
        problem = f"lasts {seconds:.1f} s, the pictures of its clip {axis.seconds:.1f} s"
        remedy = "both begin at 0; where there is no sound it is marked absent. Check that they are of one cut"
        sound.warning("sound-length", problem, remedy)
    if files.crops is not None:
        findings += check_crops(files.crops, axis.frames, TOLERANCE, root, decode=deep)
    elif files.video is not None:
        remedy = "faces are cut out of it where a detector is installed; else name their folder in column crops"
        report.warning("crops-there", f"line {files.line}: a video without crops", remedy)
    own = files.video if facts is not None and facts.has_sound else None
    return Media(axis, axis.times if facts is not None else None, files.audio or own)


def _of_video(facts: VideoFacts, files: MediaFiles, report: Report) -> TimeAxis:
    fps = facts.axis.fps
    if files.rate is not None and abs(files.rate - fps) > _SAME_RATE * fps:
        problem = f"line {files.line}: rate {files.rate:g}, its video has {fps:.4g} frames per second"
        report.warning("rate", problem, "nothing to do: the video's is taken")
    return facts.axis


def _of_rate(files: MediaFiles, seconds: float | None) -> TimeAxis:
    """The frames of a clip without video. Raises `Refusal`."""
    if files.rate is None:
        remedy = "give the frames per second at which labels and predictions are wanted, in column rate"
        raise Refusal("rate", f"line {files.line}: no video, and no rate", remedy)
    if seconds is not None:
        frames = int(seconds * files.rate + 1e-6)  # whole frames only
    else:
        numbers = crop_files(files.crops) if files.crops is not None else {}
        frames = max(numbers, default=0)
        if frames > _SPARSE * (len(numbers) + _SPARSE):
            problem = f"line {files.line}: {len(numbers)} crops, the last of number {frames}"
            raise Refusal("frames", problem, "number crops as frames, from 1; a time is no number of a frame")
    if frames == 0:
        what = "sound" if files.audio is not None else "folder of crops"
        raise Refusal("frames", f"line {files.line}: its {what} is shorter than a frame", "name another file")
    return TimeAxis(np.arange(frames) / files.rate, files.rate)
