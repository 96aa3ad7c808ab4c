"""Files of unpacked corpora: one walk over their folders, and which file is taken where there are several or none."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossfold.datasets.corpora.findings import Finding, relative
from crossfold.datasets.corpora.media_checks import check_transcript
from crossfold.datasets.media.transcripts import SUFFIXES as TRANSCRIPTS
from crossfold.datasets.media.video import VideoFacts

VIDEOS = (".mp4", ".avi", ".mkv", ".mov")


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of folders, names of files) from `root` down, sorted, each folder once, hidden ones left out.

    As with `os.walk`, a name taken out of the list of folders is not entered.
    """
    seen: set[str] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        # Data are often linked in, and a link may lead back up.
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield Path(name), folders, sorted(files)


def take_crops(
    clip: str, folders: Sequence[Path], others: bool, file: str, root: Path, findings: list[Finding]
) -> Path | None:
    """The folder of crops of a clip, of those found; adds to `findings`, under the name `file`.

    others: whether other clips have crops, so that one without is an error.
    """
    if not folders and others:
        remedy = f"put its crops into cropped_aligned/{clip}"
        findings.append(Finding(file, "crops-there", f"{clip} has no folder of crops", remedy))
    if len(folders) > 1:
        names = " and ".join(relative(folder, root) for folder in folders)
        remedy = f"{relative(folders[0], root)} is taken; remove the other"
        findings.append(Finding(file, "crops-once", f"crops in {names}", remedy, "warning"))
    return folders[0] if folders else None


def take_transcript(paths: Sequence[Path], seconds: float, root: Path, findings: list[Finding]) -> Path | None:
    """The transcript of a clip of so many seconds, of those found; adds to `findings`."""
    if not paths:
        return None
    # Of several, json comes first: tables are often made from it.
    path = min(paths, key=lambda path: (TRANSCRIPTS.index(path.suffix.lower()), str(path)))
    findings += check_transcript(path, seconds, root)
    return path


def sound_of_video(
    video: Path, facts: VideoFacts, wav: str, others: bool, root: Path, findings: list[Finding]
) -> Path | None:
    """The video itself, if it has sound, where a clip has no wav file; adds to `findings`.

    wav: the file that there might be; others: whether other clips have theirs, so that none at all is an error.
    """
    file = relative(video, root)
    if facts.has_sound:
        if others:
            remedy = "nothing to do: the sound of the video is taken"
            findings.append(Finding(file, "sound-there", "has no wav file", remedy, "warning"))
        return video
    problem = "has no wav file, and no sound track of its own"
    if others:
        remedy = f"put {wav} beside the others (one without samples if it truly is mute)"
        findings.append(Finding(file, "sound-there", problem, remedy))
    else:
        findings.append(Finding(file, "sound-there", problem, "audio is marked absent in this clip", "warning"))
    return None
