"""Checks of a corpus that open its media files."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.findings import Finding, Report, attempt, relative
from crossfold.datasets.media.crops import crop_files, open_picture
from crossfold.datasets.media.jpeg import JpegCheck
from crossfold.datasets.media.stamps import check_wav_length
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.datasets.media.transcripts import parse_transcript
from crossfold.datasets.media.video import VideoFacts, probe

TOLERANCE = 5
"""Frames by which labels, pictures and crops without time stamps may differ in length, as in Aff-Wild2."""
_BEYOND_SECONDS = 1.0
_UNEVEN = 0.25  # share of its mean by which a step between pictures differs before the rate is called variable
_UNEVEN_STEPS = 0.02  # share of such steps; a first or last picture that stays longer is no variable rate
_LATE_SECONDS = 0.5
_CONSTANT = [Fraction(fps) for fps in (5, 10, 12, 15, 20, 24, 25, 30, 50, 60)]
_CONSTANT += [Fraction(1000 * fps, 1001) for fps in (24, 30, 60)]


def check_video(path: Path | None, root: Path, findings: list[Finding]) -> VideoFacts | None:
    """What a container says of its pictures; nothing, and an error, where they cannot be read.

    A variable rate, pictures that cannot be decoded and sound that begins late are warnings: they say what is done.
    """
    facts = attempt(probe, path, "video-readable", root, findings)
    if facts is None or path is None:
        return facts
    report = Report(relative(path, root), findings)
    steps = np.diff(facts.times)
    if _is_variable(facts.axis):
        apart = f"{1000 * steps.min():.0f} to {1000 * steps.max():.0f} ms"
        problem = f"has a variable rate: pictures are {apart} apart, {facts.fps:.4g} a second on average"
        remedy = "nothing to do: each picture is a frame at its own time, and sound, words and labels are put there"
        report.warning("variable-rate", problem, remedy)
    if facts.keyless:
        problem = f"begins with {facts.keyless} frames that cannot be decoded, before its first key frame"
        report.warning("key-frame", problem, "nothing to do: they show no face, and all others keep their time")
    if facts.missing > _LATE_SECONDS:
        problem = f"ends {facts.missing:.1f} s before its header says"
        report.warning("video-length", problem, "it may be cut short: fetch it again; what is there is read")
    if facts.sound is not None and facts.sound[0] > _LATE_SECONDS:
        problem = f"has sound from {facts.sound[0]:.1f} s on only"
        report.warning("sound-begin", problem, "nothing to do: it is silent until then")
    return facts


def _is_variable(axis: TimeAxis) -> bool:
    steps = np.diff(axis.times)
    return bool((np.abs(steps * axis.fps - 1) > _UNEVEN).sum() > max(1, _UNEVEN_STEPS * len(steps)))


def constant_rate_remedy(rows: int, axis: TimeAxis) -> str:
    """What to do where labels, one per frame, fit a constant rate and the pictures come at a variable one.

    Empty where that is not so.
    """
    rate = min(_CONSTANT, key=lambda rate: abs(rows - axis.seconds * rate))
    if not _is_variable(axis) or abs(rows - axis.seconds * rate) > TOLERANCE:
        return ""
    command = f"ffmpeg -i FILE -r {rate} NEW.mp4"
    return f"the rows fit frames of a constant rate, {float(rate):.4g} a second: write the video so, by `{command}`"


def check_transcript(path: Path, seconds: float, root: Path) -> list[Finding]:
    """A transcript can be read, and is one of a recording of this length."""
    findings: list[Finding] = []
    transcript = attempt(parse_transcript, path, "transcript-readable", root, findings)
    words = transcript.words if transcript is not None else ()
    if transcript is not None and transcript.left_out:
        count, of = len(transcript.left_out), len(transcript.left_out) + len(words)
        problem = f"{transcript.left_out[0]}; so {count} of {of} entries have no word with a time"
        remedy = "nothing to do: they are left out"
        Report(relative(path, root), findings).warning("transcript-word", problem, remedy)
    # Recognisers give the last word a second too much now and then.
    beyond = [word.start for word in words if word.start > seconds + _BEYOND_SECONDS]
    if not words or not beyond:
        return findings
    report = Report(relative(path, root), findings)
    problem = f"has {len(beyond)} of {len(words)} words after the end, up to {max(beyond):.1f} s of {seconds:.1f} s"
    if len(beyond) > len(words) / 2:
        remedy = "it is not of this video, or its times are not in seconds; fetch or make it again"
        report.error("transcript-length", problem, remedy)
    else:
        report.warning("transcript-length", problem, "nothing to do: they are left out")
    return findings


def check_wav(path: Path, root: Path) -> list[Finding]:
    """A wav file is a wav file, and whole."""
    findings: list[Finding] = []
    attempt(check_wav_length, path, "sound-readable", root, findings)
    return findings


def check_crops(folder: Path, frames: int, tolerance: int, root: Path, *, decode: bool) -> list[Finding]:
    """Crops are numbered from 1, do not go beyond the frames, and, with `decode`, can all be read."""
    files = crop_files(folder)
    findings: list[Finding] = []
    report = Report(relative(folder, root), findings)
    if not files:
        problem = "holds no crop: no picture has the number of its frame for a name, as 00001.jpg has"
        report.error("crops-there", problem, "unpack the crops of this clip again, or rename them")
        return findings
    if 0 in files:
        report.error("crops-from-1", "has a crop number 0", "crops count from 1, as labels do; renumber them")
    last, beyond = max(files), sum(number > frames for number in files)
    if last > frames + tolerance:
        problem = f"has crops up to number {last}, the clip has {frames} frames"
        report.error("crops-within-clip", problem, "crops and labels are not of the same cut; fetch both again")
    elif beyond:
        problem = f"has {beyond} crop(s) after the last of {frames} frames"
        report.warning("crops-within-clip", problem, "nothing to do: they are left out")
    if decode:
        jpegs = JpegCheck()
        for path in files.values():
            if not _is_picture(path, jpegs):
                remedy = "fetch the crop again, or delete it: then the frame has no face"
                Report(relative(path, root), findings).error("crop-readable", "not a readable picture", remedy)
    return findings


def _is_picture(path: Path, jpegs: JpegCheck) -> bool:
    try:
        if jpegs.passes(path):
            return True
        with open_picture(path) as image:
            # Draft mode reads every byte of a JPEG, so it sees a cut file, and skips most of the arithmetic.
            image.draft("L", (1, 1))
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True
