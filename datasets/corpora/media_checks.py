"""Checks of a corpus that open its media files."""

from pathlib import Path

from PIL import Image

from crossfold.datasets.corpora.findings import Finding, attempt, relative
from crossfold.datasets.media.crops import crop_files
from crossfold.datasets.media.sound import check_wav_length
from crossfold.datasets.media.transcripts import read_transcript

_BEYOND_SECONDS = 1.0


def check_transcript(path: Path, seconds: float, root: Path) -> list[Finding]:
    """A transcript can be read, and is one of a recording of this length."""
    findings: list[Finding] = []
    words = attempt(read_transcript, path, "transcript-readable", root, findings)
    if words is None:
        return findings
    beyond = [word for word in words if word.start > seconds + _BEYOND_SECONDS]
    if not beyond:
        return []
    last = max(word.start for word in beyond)
    problem = f"has {len(beyond)} of {len(words)} words after the end, up to {last:.1f} s of {seconds:.1f} s"
    if len(beyond) > len(words) / 2:
        remedy = "it is not of this video, or its times are not in seconds; fetch or make it again"
        return [Finding(relative(path, root), "transcript-length", problem, remedy)]
    remedy = "nothing to do: they are left out"
    return [Finding(relative(path, root), "transcript-length", problem, remedy, "warning")]


def check_wav(path: Path, root: Path) -> list[Finding]:
    """A wav file is a wav file, and whole."""
    findings: list[Finding] = []
    attempt(check_wav_length, path, "sound-readable", root, findings)
    return findings


def check_crops(folder: Path, frames: int, tolerance: int, root: Path, *, decode: bool) -> list[Finding]:
    """Crops are numbered from 1, do not go beyond the frames, and, with `decode`, can all be read."""
    files = crop_files(folder)
    name = relative(folder, root)
    if not files:
        return [Finding(name, "crops-there", "holds no crop", "unpack the crops of this clip again")]
    findings = []
    if 0 in files:
        findings.append(
            Finding(name, "crops-from-1", "has a crop number 0", "crops count from 1, as labels do; renumber them")
        )
    beyond = [number for number in files if number > frames]
    if beyond and max(beyond) > frames + tolerance:
        findings.append(
            Finding(
                name,
                "crops-within-clip",
                f"has crops up to number {max(beyond)}, the clip has {frames} frames",
                "crops and labels are not of the same cut; fetch both again",
            )
        )
    elif beyond:
        findings.append(
            Finding(
                name,
                "crops-within-clip",
                f"has {len(beyond)} crop(s) after the last of {frames} frames",
                "nothing to do: they are left out",
                "warning",
            )
        )
    if decode:
        findings += [finding for path in files.values() for finding in _check_picture(path, root)]
    return findings


def _check_picture(path: Path, root: Path) -> list[Finding]:
    try:
        with Image.open(path) as image:
            # Draft mode reads every byte of a JPEG, so it sees a cut file, and skips most of the arithmetic.
            image.draft("L", (1, 1))
            image.load()
    except (OSError, SyntaxError, ValueError):
        return [
            Finding(
                relative(path, root),
                "crop-readable",
                "not a readable picture",
                "fetch the crop again, or delete it: then the frame has no face",
            )
        ]
    return []
