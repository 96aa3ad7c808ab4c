"""Finding the files of RECOLA by their names, wherever they were unpacked, and what of them is missing."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from crossfold.datasets.corpora.discovery import VIDEOS, MediaListing, existing, walk
from crossfold.datasets.corpora.embedded_truth import read_rows
from crossfold.datasets.corpora.findings import Finding, Report, and_more, relative

DIMENSIONS = ("valence", "arousal")
"""Targets in the order of the labels' columns; each is a folder of ratings."""
OFFICIAL = {"train": 9, "validation": 9}
"""Recordings of each part that AVEC 2016 gave out with labels; its 9 test recordings have none."""
PARTITIONS = "partitions.csv"
_PARTS = {"train": "train", "dev": "validation", "validation": "validation", "test": "test"}
_GOLD = frozenset({"ratings_gold_standard", "gold_standard"})
_RATERS = frozenset({"ratings_individual", "emotional_behaviour"})
_CHALLENGE = re.compile(r"(train|dev|test)_\d+", re.IGNORECASE)  # names of AVEC 2016
_PARTICIPANT = re.compile(r"P\d+", re.IGNORECASE)  # names of the whole RECOLA
_IGNORED = re.compile(r"(features|recordings)_(?!audio$|video$)\w+|features_(audio|video)\w*|.*physio.*|.*biosignals.*")


def _by_dimension() -> dict[str, dict[str, list[Path]]]:
    return defaultdict(lambda: defaultdict(list))


@dataclass
class Listing:
    """The files of a corpus by the name of their recording, from one walk."""

    gold: dict[str, dict[str, list[Path]]] = field(default_factory=_by_dimension)
    """Gold standards by recording and dimension: an arff, a csv, or both."""
    raters: dict[str, dict[str, list[Path]]] = field(default_factory=_by_dimension)
    """The raters' own traces, likewise."""
    media: MediaListing = field(default_factory=MediaListing)
    ignored: list[Path] = field(default_factory=list)
    """Folders with physiology or extracted features."""
    unnamed: list[Path] = field(default_factory=list)
    """Files of ratings whose name is none of a recording, such as `train_all.arff`."""

    @property
    def rated(self) -> list[str]:
        """Recordings with ratings, in order of part and number."""
        return sorted(self.gold.keys() | self.raters.keys(), key=_in_order)


def recording(stem: str) -> str | None:
    """The recording that a file belongs to, by the name of the file: `train_1`, `dev_9`, `P16`; else nothing."""
    if _CHALLENGE.fullmatch(stem):
        return stem.lower()
    return stem.upper() if _PARTICIPANT.fullmatch(stem) else None


def list_files(root: Path) -> Listing:
    """One walk; folders of crops, physiology and features are not entered."""
    listing = Listing()
    for folder, folders, files in walk(root):
        # Tables of the truth are csv files, but none of ratings.
        if folder == root and "truth" in folders:
            folders.remove("truth")
        listing.ignored += [folder / inside for inside in folders if _IGNORED.fullmatch(inside.lower())]
        folders[:] = [inside for inside in folders if not _IGNORED.fullmatch(inside.lower())]
        listing.media.add_crops(folder, folders, recording)
        for path in (folder / file for file in files):
            key = recording(path.stem)
            if path.suffix.lower() in (".arff", ".csv") and folder.name != "transcripts":
                _add_ratings(listing, root, path, key)
            elif key is not None:
                listing.media.add(path, key)
    return listing


def _add_ratings(listing: Listing, root: Path, path: Path, key: str | None) -> None:
    """Takes a file of ratings by the folders that it lies in, such as `ratings_gold_standard/arousal`."""
    above = [part.lower() for part in reversed(path.relative_to(root).parts[:-1])]
    dimension = next((part for part in above if part in DIMENSIONS), None)
    sort = next((part for part in above if part in _GOLD | _RATERS), None)
    if dimension is None or sort is None:
        return
    if key is None:
        listing.unnamed.append(path)
    else:
        (listing.gold if sort in _GOLD else listing.raters)[key][dimension].append(path)


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order."""
    root = root.resolve()
    listing = list_files(root)
    ratings = chain(*(paths for sort in (listing.gold, listing.raters) for d in sort.values() for paths in d.values()))
    return existing(root, ratings, listing.media.files(), [root / PARTITIONS])


def read_partitions(root: Path, listing: Listing, findings: list[Finding]) -> dict[str, str]:
    """The part of each rated recording: by its name, or, for those named P16 and the like, by `partitions.csv`."""
    path = root / PARTITIONS
    named: dict[str, str] = {}
    try:
        for row in read_rows(path, ("recording", "partition")):
            part = _PARTS.get(row["partition"].strip().lower())
            if part is None:
                raise ValueError(f"{row['recording']} is of partition {row['partition']!r}, none of train, dev, test")
            named[recording(row["recording"].strip()) or row["recording"]] = part  # however the case is written
    except (ValueError, OSError) as error:
        problem, remedy = f"is not the table it should be: {error}", "write rows such as `P16,train` below its header"
        Report(PARTITIONS, findings).error("partition-known", problem, remedy)
    parts = {}
    unknown = []
    for key in listing.rated:
        part = named.get(key) or _PARTS.get(key.partition("_")[0])  # the table goes before the name
        if part is None:
            unknown.append(key)
        else:
            parts[key] = part
    if unknown and not any(finding.file == PARTITIONS for finding in findings):
        names = ", ".join(unknown[:5]) + and_more(len(unknown) - 4)
        problem = f"nothing says to which part {names} belong{'s' if len(unknown) == 1 else ''}"
        remedy = (
            f"write {PARTITIONS} with the header `recording,partition` and rows such as `P16,train`, "
            "as the owners' table of participants has it, or rename the files to train_1, dev_1, ..."
        )
        Report(".", findings).error("partition-known", problem, remedy)
    return parts


def check_folders(root: Path, listing: Listing, parts: Mapping[str, str], *, embedded: bool) -> list[Finding]:
    """What is missing or of no use, before any single recording is looked at."""
    findings: list[Finding] = []
    report = Report(relative(root, root), findings)
    for path in listing.ignored:
        problem = "physiology or features, not read"
        Report(relative(path, root), findings).note("ignored", problem, "nothing to do: video and sound are used")
    for path in listing.unnamed:
        problem = "is named like no recording"
        Report(relative(path, root), findings).warning("label-name", problem, "nothing to do: it is left out")
    if not listing.rated:
        problem = "no ratings_gold_standard/{arousal,valence} and no ratings_individual/{arousal,valence} under it"
        remedy = "unpack the ratings there, or give the folder that has them as --root"
        report.error("annotations-there", problem, remedy)
    if not listing.media.videos:
        remedy = f"put the videos ({', '.join(VIDEOS)}) under it"
        report.error("video-there", "no video train_1, dev_1, P16, ...", remedy)
    if listing.rated and not listing.media.crops:
        remedy = (
            "`prepare` cuts faces out of the videos (extra `faces`), or does without (--no-faces); crops of your own "
            "go into cropped_aligned/<recording>/00001.jpg, numbered as the frames of the video"
        )
        report.warning("crops-there", "no face crops", remedy)
    for key in sorted(listing.media.videos.keys() - set(listing.rated)) if listing.rated else ():
        video = Report(relative(listing.media.videos[key][0], root), findings)
        if key.startswith("test_"):
            problem = "has no ratings: those of the test part are withheld"
            video.note("label-there", problem, "nothing to do: it is left out")
        elif _CHALLENGE.fullmatch(key):
            video.error("label-there", "has no ratings", f"put {key}.arff (or .csv) where the others are")
        else:
            video.warning("label-there", "has no ratings", "nothing to do: it is left out")
    count = {part: sum(value == part for value in parts.values()) for part in OFFICIAL}
    for part, number in count.items():
        if parts and len(parts) == len(listing.rated) and not number:
            report.error("partition-there", f"no rated recording of the {part} part", "unpack the ratings again")
    if all(count.values()) and count != OFFICIAL and not embedded:
        problem = f"{count['train']} train and {count['validation']} dev recordings; AVEC 2016 has 9 and 9"
        remedy = "results do not compare with printed ones; fetch what is missing"
        report.warning("partition-official", problem, remedy)
    return findings


def _in_order(key: str) -> tuple[int, str, int]:
    """train before dev before test before participants, and by number."""
    head, number = re.fullmatch(r"(\D+)(\d+)", key).groups()  # type: ignore[union-attr]
    rank = {"train_": 0, "dev_": 1, "test_": 2}.get(head, 3)
    return rank, head, int(number)
