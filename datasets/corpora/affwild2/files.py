"""Finding the files of Aff-Wild2's layout, wherever they were unpacked, and what of it is missing or there twice."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from crossfold.datasets.corpora.discovery import VIDEOS, take_crops, take_transcript, walk
from crossfold.datasets.corpora.findings import Finding, relative
from crossfold.datasets.media.transcripts import SUFFIXES as TRANSCRIPTS

_PARTITIONS = {
    "train_set": "train",
    "training_set": "train",
    "validation_set": "validation",
    "val_set": "validation",
}
TEST = "test"
"""The part whose clips have no labels; their place in `Listing.labels` is a name under the list that names them."""
_ORDER = ("train", "validation", TEST)
_TEST_LIST = re.compile(r"valence.*_test_set_release\.txt", re.IGNORECASE)
"""The list of the VA track; those of expressions and action units name other clips."""
_PERSON = re.compile(r"_(left|right)(_\d+)?$")


@dataclass
class Listing:
    """The files of a corpus by what they are, from one walk."""

    annotations: list[Path] = field(default_factory=list)
    labels: list[tuple[str, Path]] = field(default_factory=list)
    """(partition, file), in order of partition and name."""
    crops: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    videos: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    sounds: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    transcripts: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    tests: list[Path] = field(default_factory=list)
    """Lists of the clips of the test part, whose labels the owners keep."""


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order."""
    root = root.resolve()
    listing = list_files(root)
    media = chain(*listing.videos.values(), *listing.sounds.values(), *listing.transcripts.values())
    truth = [root / "puppets.json", root / "truth" / "spans.csv", root / "truth" / "clips.csv"]
    crops = (Path(entry) for folder in chain(*listing.crops.values()) for entry in os.scandir(folder))
    labels = (path for _, path in listing.labels)
    return sorted(path for path in chain(labels, media, truth, crops, listing.tests) if path.is_file())


def list_files(root: Path) -> Listing:
    """One walk; crop folders are entered only where a clip's crops are needed: there are millions of them."""
    listing = Listing()
    for folder, folders, files in walk(root):
        if folder.name.lower() == "va_estimation_challenge":
            listing.annotations.append(folder)
        if folder.name.startswith("cropped_aligned"):
            for clip in folders:
                if not clip.startswith("cropped_aligned"):
                    listing.crops[clip].append(folder / clip)
            folders[:] = [f for f in folders if f.startswith("cropped_aligned")]
        partition = _PARTITIONS.get(folder.name.lower())
        for path in (folder / file for file in files):
            kind = path.suffix.lower()
            if kind == ".txt" and partition and folder.parent.name.lower() == "va_estimation_challenge":
                listing.labels.append((partition, path))
            elif _TEST_LIST.fullmatch(path.name):
                listing.tests.append(path)
                listing.labels += [(TEST, path / f"{name}.txt") for name in _names_in(path)]
            elif kind in VIDEOS:
                listing.videos[path.stem].append(path)
            elif kind == ".wav":
                listing.sounds[path.stem].append(path)
            elif kind in TRANSCRIPTS and folder.name == "transcripts":
                listing.transcripts[path.stem].append(path)
    listing.labels.sort(key=lambda entry: (_ORDER.index(entry[0]), entry[1].name))
    return listing


def _names_in(path: Path) -> list[str]:
    """Clips of a list, one a line, each once."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return list(dict.fromkeys(line.removesuffix(".mp4") for line in lines if line))


def check_folders(root: Path, listing: Listing) -> list[Finding]:
    """What is missing or there twice, before any single clip is looked at."""

    def found(rule: str, problem: str, remedy: str, file: str = ".") -> Finding:
        return Finding(file, rule, problem, remedy)

    findings = []
    if not listing.annotations:
        findings.append(
            found(
                "annotations-there",
                "no folder VA_Estimation_Challenge anywhere under it",
                "unpack the annotations there, or give the folder that has them as --root",
            )
        )
    elif len(listing.annotations) > 1:
        names = ", ".join(relative(path, root) for path in listing.annotations)
        findings.append(
            found("annotations-once", f"several sets of annotations: {names}", "keep one, or narrow --root")
        )
    else:
        have = {partition for partition, _ in listing.labels}
        folder = relative(listing.annotations[0], root)
        findings += [
            found("partition-there", f"no label files in {name}", "unpack the annotations again", folder)
            for partition, name in (("train", "Train_Set"), ("validation", "Validation_Set"))
            if partition not in have
        ]
    if not listing.crops:
        findings.append(
            found("crops-there", "no folder cropped_aligned with crops", "unpack cropped_aligned.zip under it")
        )
    if not listing.videos:
        findings.append(
            found("video-there", "no video file", f"put the videos ({', '.join(VIDEOS)}) anywhere under it")
        )
    return findings + _check_partitions(root, listing)


def _check_partitions(root: Path, listing: Listing) -> list[Finding]:
    """No video is in both partitions, by the names of its clips."""
    first: dict[str, tuple[str, Path]] = {}
    findings = []
    for partition, path in listing.labels:
        other, where = first.setdefault(video_name(path.stem), (partition, path))
        if other != partition:
            problem = f"is cut from the same video as {relative(where, root)} in the other partition"
            remedy = "models would be scored on what they learnt from; keep one of the two"
            findings.append(Finding(relative(path, root), "partitions-apart", problem, remedy))
    return findings


PRINTED_SPLITS = {(356, 76): "001, 002 and 003", (360, 72): "000"}
"""Training and validation videos as the papers print them, and by which (C17); 162 test videos come without labels."""
_WHOLE = 400
"""Fewer annotated videos than this are somebody's part of the corpus, not an edition of it."""


@dataclass(frozen=True)
class Split:
    """How the annotated videos are divided, and which printed split that is."""

    train: int
    validation: int

    @property
    def papers(self) -> str | None:
        """The papers that print this split."""
        return PRINTED_SPLITS.get((self.train, self.validation))

    @property
    def says(self) -> str:
        """In words, for the store."""
        counts = f"{self.train} training and {self.validation} validation videos"
        return f"{counts}, as printed in {self.papers}" if self.papers else f"{counts}, as in no paper"


def find_split(listing: Listing) -> Split:
    """The split of the annotation folders: of videos, or of label files where their number is a printed one.

    Clips of two people in one video make the two counts differ; the papers count videos, some editions files.
    """
    files = [[path.stem for part, path in listing.labels if part == name] for name in ("train", "validation")]
    videos = Split(*(len({video_name(stem) for stem in stems}) for stems in files))
    clips = Split(*(len(stems) for stems in files))
    return clips if clips.papers and not videos.papers else videos


def check_split(root: Path, listing: Listing, split: Split) -> list[Finding]:
    """Says which printed split a whole corpus has; nothing of a part of it."""
    if not listing.annotations or split.train + split.validation < _WHOLE:
        return []
    folder = relative(listing.annotations[0], root)
    if split.papers:
        remedy = "nothing to do: this split is used, and stands in the store"
        return [Finding(folder, "split-printed", split.says, remedy, "note")]
    printed = " and ".join(f"{train}/{validation}" for train, validation in PRINTED_SPLITS)
    remedy = f"results compare with no printed number; the papers have {printed}"
    return [Finding(folder, "split-printed", split.says, remedy, "warning")]


def video_name(clip: str) -> str:
    """The video that a clip was cut from."""
    return _PERSON.sub("", clip)


def find_crops(root: Path, listing: Listing, file: Path, findings: list[Finding]) -> Path | None:
    """The folder of crops of the clip whose label file is `file`; adds to `findings`."""
    folders = listing.crops.get(file.stem, [])
    return take_crops(file.stem, folders, bool(listing.crops), relative(file, root), root, findings)


def find_video(root: Path, listing: Listing, file: Path, findings: list[Finding]) -> Path | None:
    """The video of the clip whose label file is `file`; adds to `findings`."""
    paths = listing.videos.get(file.stem) or listing.videos.get(video_name(file.stem), [])
    if not paths:
        problem = f"no video {video_name(file.stem)} anywhere under the root"
        remedy = "put it there: its frame rate says which sound belongs to which label"
        findings.append(Finding(relative(file, root), "video-there", problem, remedy))
        return None
    if len({path.stat().st_size for path in paths}) > 1:
        names = " and ".join(relative(path, root) for path in paths)
        findings.append(Finding(relative(file, root), "video-once", f"different videos {names}", "keep the right one"))
        return None
    return paths[0]


def find_transcript(root: Path, listing: Listing, clip: str, seconds: float, findings: list[Finding]) -> Path | None:
    """The transcript of a clip or else of its video, if there is one; adds to `findings`."""
    paths = listing.transcripts.get(clip) or listing.transcripts.get(video_name(clip), [])
    return take_transcript(paths, seconds, root, findings)
