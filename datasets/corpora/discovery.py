"""Files of unpacked corpora: one walk over their folders, and which file is taken where there are several or none."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

from crossfold.datasets.corpora.clips import MediaClip
from crossfold.datasets.corpora.findings import Finding, Report, relative
from crossfold.datasets.corpora.media_checks import check_transcript
from crossfold.datasets.media.transcripts import SUFFIXES as TRANSCRIPTS
from crossfold.datasets.media.video import VideoFacts

VIDEOS = (".mp4", ".avi", ".mkv", ".mov")
Entry = TypeVar("Entry")


class MediaListing:
    """The media of a corpus by the name of their clip, recording or video, in the order in which they were found."""

    def __init__(self) -> None:
        self.crops, self.videos, self.sounds, self.transcripts = (defaultdict[str, list[Path]](list) for _ in range(4))

    def add(self, path: Path, name: str) -> None:
        """Takes a file that is a video, a wav file or, in a folder `transcripts`, a transcript; no other."""
        kind, name = path.suffix.lower(), composed(name)
        if kind in TRANSCRIPTS and path.parent.name == "transcripts":
            self.transcripts[name].append(path)
        elif kind in VIDEOS:
            self.videos[name].append(path)
        elif kind == ".wav":
            self.sounds[name].append(path)

    def add_crops(self, folder: Path, folders: list[str], name_of: Callable[[str], str | None]) -> None:
        """Takes the folders of crops out of `folders`: there are millions of pictures, and no walk enters them."""
        if not folder.name.startswith("cropped_aligned"):
            return
        for inside in folders:
            name = None if inside.startswith("cropped_aligned") else name_of(inside)
            if name is not None:
                self.crops[composed(name)].append(folder / inside)
        folders[:] = [inside for inside in folders if inside.startswith("cropped_aligned")]

    def files(self) -> Iterator[Path]:
        """Every file, crops included."""
        yield from chain(*self.videos.values(), *self.sounds.values(), *self.transcripts.values())
        for folder in chain(*self.crops.values()):
            yield from (Path(entry) for entry in os.scandir(folder) if is_data(entry.name))


def composed(name: str) -> str:
    """A name in the normal form NFC: a Mac writes `ü` as two code points, other systems as one."""
    return unicodedata.normalize("NFC", name)


def is_data(name: str) -> bool:
    """Whether a file or folder is none that an operating system added: `._name`, `.DS_Store`, `__MACOSX`."""
    return not name.startswith(".") and name not in ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir")


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of folders, names of files) from `root` down, sorted, each folder once, without what is no data.

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
        folders[:] = sorted(filter(is_data, folders))
        yield Path(name), folders, sorted(filter(is_data, files))


def existing(root: Path, *paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that are files, in order, with those that say what an embedded corpus is."""
    truth = (root / "puppets.json", root / "truth" / "spans.csv", root / "truth" / "clips.csv")
    return sorted(path for path in chain(truth, *paths) if path.is_file())


def examine_clips(
    examine: Callable[[Entry], tuple[MediaClip | None, list[Finding]]], entries: Iterable[Entry]
) -> tuple[list[MediaClip], list[Finding]]:
    """The clips that can be used, and all findings, in the order of the entries; several are examined at a time."""
    # Pictures and packets are read outside the interpreter's lock, so threads do.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        examined = list(pool.map(examine, entries))
    return [clip for clip, _ in examined if clip is not None], [f for _, found in examined for f in found]


def take_one(paths: Sequence[Path], rule: str, root: Path, report: Report) -> Path | None:
    """The only file of its kind; several that differ in size are an error under `rule`."""
    if len({path.stat().st_size for path in paths}) > 1:
        names = " and ".join(relative(path, root) for path in paths)
        report.error(rule, f"different files {names}", "keep the right one")
        return None
    return paths[0] if paths else None


def take_crops(
    clip: str, folders: Sequence[Path], others: bool, file: str, root: Path, findings: list[Finding]
) -> Path | None:
    """The folder of crops of a clip, of those found; adds to `findings`, under the name `file`.

    others: whether other clips have crops, so that one without is an error.
    """
    report = Report(file, findings)
    if not folders and others:
        report.error("crops-there", f"{clip} has no folder of crops", f"put its crops into cropped_aligned/{clip}")
    if len(folders) > 1:
        names = " and ".join(relative(folder, root) for folder in folders)
        report.warning("crops-once", f"crops in {names}", f"{relative(folders[0], root)} is taken; remove the other")
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
    report = Report(relative(video, root), findings)
    if facts.has_sound:
        if others:
            report.warning("sound-there", "has no wav file", "nothing to do: the sound of the video is taken")
        return video
    problem = "has no wav file, and no sound track of its own"
    if others:
        report.error("sound-there", problem, f"put {wav} next to the others (without samples if it is truly mute)")
    else:
        report.warning("sound-there", problem, "audio is marked absent in this clip")
    return None
