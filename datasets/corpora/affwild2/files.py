"""Finding the files of Aff-Wild2's layout, wherever they were unpacked, and what of it is missing or there twice."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from crossfold.datasets.corpora.discovery import VIDEOS, MediaListing, composed, existing, take_one, walk
from crossfold.datasets.corpora.findings import Finding, Report, relative
from crossfold.datasets.media.delimited_text import NotCells, read_text

_PARTITIONS = {"train_set": "train", "training_set": "train", "validation_set": "validation", "val_set": "validation"}
TEST = "test"
"""The part whose clips have no labels; their place in `Listing.labels` is a name under the list that names them."""
_ORDER = ("train", "validation", TEST)
# The list of the VA track; those of expressions and action units name other clips.
_TEST_LIST = re.compile(r"valence.*_test_set_release\.txt", re.IGNORECASE)
_PERSON = re.compile(r"_(left|right)(_\d+)?$")  # one of two people in a video, and which of their clips


@dataclass
class Listing:
    """The files of a corpus by what they are, from one walk."""

    annotations: list[Path] = field(default_factory=list)
    labels: list[tuple[str, Path]] = field(default_factory=list)
    """(partition, file), in order of partition and name."""
    media: MediaListing = field(default_factory=MediaListing)
    """Crops by clip; videos, sounds and transcripts by clip or video."""
    tests: list[Path] = field(default_factory=list)
    """Lists of the clips of the test part, whose labels the owners keep."""


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order."""
    root = root.resolve()
    listing = list_files(root)
    return existing(root, (path for _, path in listing.labels), listing.tests, listing.media.files())


def list_files(root: Path) -> Listing:
    """One walk over everything but the pictures of crops."""
    listing = Listing()
    for folder, folders, files in walk(root):
        if folder.name.lower() == "va_estimation_challenge":
            listing.annotations.append(folder)
        listing.media.add_crops(folder, folders, str)
        partition = _PARTITIONS.get(folder.name.lower())
        annotated = partition is not None and folder.parent.name.lower() == "va_estimation_challenge"
        for path in (folder / file for file in files):
            if partition is not None and annotated and path.suffix.lower() == ".txt":
                listing.labels.append((partition, path))
            elif _TEST_LIST.fullmatch(path.name):
                listing.tests.append(path)
                listing.labels += [(TEST, path / f"{name}.txt") for name in _names_in(path)]
            else:
                listing.media.add(path, path.stem)
    listing.labels.sort(key=lambda entry: (_ORDER.index(entry[0]), entry[1].name))
    return listing


def _names_in(path: Path) -> list[str]:
    """Clips of a list, one a line, each once."""
    try:
        text = read_text(path)
    except NotCells:
        text = path.read_text(encoding="utf-8", errors="replace")
    lines = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(line.removesuffix(".mp4") for line in lines if line))


def check_folders(root: Path, listing: Listing) -> list[Finding]:
    """What is missing or there twice, before any single clip is looked at."""
    findings: list[Finding] = []
    report = Report(".", findings)
    if not listing.annotations:
        remedy = "unpack the annotations there, or give the folder that has them as --root"
        report.error("annotations-there", "no folder VA_Estimation_Challenge anywhere under it", remedy)
    elif len(listing.annotations) > 1:
        names = ", ".join(relative(path, root) for path in listing.annotations)
        report.error("annotations-once", f"several sets of annotations: {names}", "keep one, or narrow --root")
    else:
        there = {partition for partition, _ in listing.labels}
        folder = Report(relative(listing.annotations[0], root), findings)
        for partition, name in (("train", "Train_Set"), ("validation", "Validation_Set")):
            if partition not in there:
                folder.error("partition-there", f"no label files in {name}", "unpack the annotations again")
    if not listing.media.crops:
        report.error("crops-there", "no folder cropped_aligned with crops", "unpack cropped_aligned.zip under it")
    if not listing.media.videos:
        report.error("video-there", "no video file", f"put the videos ({', '.join(VIDEOS)}) anywhere under it")
    return findings + _check_partitions(root, listing)


def _check_partitions(root: Path, listing: Listing) -> list[Finding]:
    """No video is in both partitions, by the names of its clips."""
    first: dict[str, tuple[str, Path]] = {}
    findings: list[Finding] = []
    for partition, path in listing.labels:
        other, where = first.setdefault(video_name(path.stem), (partition, path))
        if other != partition:
            problem = f"is cut from the same video as {relative(where, root)} in the other partition"
            remedy = "models would be scored on what they learnt from; keep one of the two"
            Report(relative(path, root), findings).error("partitions-apart", problem, remedy)
    return findings


PRINTED_SPLITS = {(356, 76): "001, 002 and 003", (360, 72): "000"}
"""Training and validation videos as the papers print them, and by which (C17); 162 test videos come without labels."""
_WHOLE = 400  # fewer annotated videos than this are a part of the corpus, not an edition of it


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
    def description(self) -> str:
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
    return clips if clips.papers and not videos.papers else videos  # videos come first: the papers count them


def check_split(root: Path, listing: Listing, split: Split) -> list[Finding]:
    """Says which printed split a whole corpus has; nothing of a part of it."""
    if not listing.annotations or split.train + split.validation < _WHOLE:
        return []
    folder = relative(listing.annotations[0], root)
    if split.papers:
        remedy = "nothing to do: this split is used, and stands in the store"
        return [Finding(folder, "split-printed", split.description, remedy, "note")]
    printed = " and ".join(f"{train}/{validation}" for train, validation in PRINTED_SPLITS)
    remedy = f"results compare with no printed number; the papers have {printed}"
    return [Finding(folder, "split-printed", split.description, remedy, "warning")]


def video_name(clip: str) -> str:
    """The video that a clip was cut from."""
    return _PERSON.sub("", composed(clip))


def of_clip(paths: dict[str, list[Path]], clip: str) -> list[Path]:
    """The files of a clip, or else of the video that it was cut from."""
    return paths.get(clip) or paths.get(video_name(clip), [])


def find_video(root: Path, listing: Listing, clip: str, report: Report) -> Path | None:
    """The video of a clip."""
    paths = of_clip(listing.media.videos, clip)
    if not paths:
        remedy = "put it there: its frame rate says which sound belongs to which label"
        report.error("video-there", f"no video {video_name(clip)} anywhere under the root", remedy)
    return take_one(paths, "video-once", root, report)
