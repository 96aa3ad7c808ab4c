"""Finding the files of RECOLA by their names, wherever they were unpacked, and what of them is missing."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from crossfold.datasets.corpora.discovery import VIDEOS, walk
from crossfold.datasets.corpora.embedded_truth import read_rows
from crossfold.datasets.corpora.findings import Finding, Severity, relative
from crossfold.datasets.media.transcripts import SUFFIXES as TRANSCRIPTS

DIMENSIONS = ("valence", "arousal")
"""Targets in the order of the labels' columns; each is a folder of ratings."""
OFFICIAL = {"train": 9, "validation": 9}
"""Recordings of each part that AVEC 2016 gave out with labels; its 9 test recordings have none."""
PARTITIONS = "partitions.csv"
_PARTS = {"train": "train", "dev": "validation", "validation": "validation", "test": "test"}
_GOLD = frozenset({"ratings_gold_standard", "gold_standard"})
_RATERS = frozenset({"ratings_individual", "emotional_behaviour"})
_CHALLENGE = re.compile(r"(train|dev|test)_\d+", re.IGNORECASE)
_PARTICIPANT = re.compile(r"P\d+", re.IGNORECASE)
_IGNORED = re.compile(r"(features|recordings)_(?!audio$|video$)\w+|features_(audio|video)\w*|.*physio.*|.*biosignals.*")


@dataclass
class Listing:
    """The files of a corpus by the name of their recording, from one walk."""

    gold: dict[str, dict[str, list[Path]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """Gold standards by recording and dimension: an arff, a csv, or both."""
    raters: dict[str, dict[str, list[Path]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """The raters' own traces, likewise."""
    crops: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    videos: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    sounds: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    transcripts: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    ignored: list[Path] = field(default_factory=list)
    """Folders with physiology or ready-made features."""
    strange: list[Path] = field(default_factory=list)
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
        if folder == root and "truth" in folders:
            folders.remove("truth")
        listing.ignored += [folder / inside for inside in folders if _IGNORED.fullmatch(inside.lower())]
        folders[:] = [inside for inside in folders if not _IGNORED.fullmatch(inside.lower())]
        if folder.name.startswith("cropped_aligned"):
            for clip in folders:
                if key := recording(clip):
                    listing.crops[key].append(folder / clip)
            folders[:] = [inside for inside in folders if inside.startswith("cropped_aligned")]
        for file in files:
            _place(listing, root, folder / file)
    return listing


def _place(listing: Listing, root: Path, path: Path) -> None:
    kind, key = path.suffix.lower(), recording(path.stem)
    if path.parent.name == "transcripts":
        if key is not None and kind in TRANSCRIPTS:
            listing.transcripts[key].append(path)
        return
    if kind in (".arff", ".csv"):
        above = [part.lower() for part in path.relative_to(root).parts[:-1]]
        dimension = next((part for part in reversed(above) if part in DIMENSIONS), None)
        sort = next((part for part in reversed(above) if part in _GOLD | _RATERS), None)
        if dimension is None or sort is None:
            return
        if key is None:
            listing.strange.append(path)
        else:
            (listing.gold if sort in _GOLD else listing.raters)[key][dimension].append(path)
    elif key is not None and kind in VIDEOS:
        listing.videos[key].append(path)
    elif key is not None and kind == ".wav":
        listing.sounds[key].append(path)


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order."""
    root = root.resolve()
    listing = list_files(root)
    media = chain(*listing.videos.values(), *listing.sounds.values(), *listing.transcripts.values())
    ratings = chain(*(paths for sort in (listing.gold, listing.raters) for d in sort.values() for paths in d.values()))
    truth = [root / "puppets.json", root / PARTITIONS, root / "truth" / "spans.csv", root / "truth" / "clips.csv"]
    crops = (Path(entry) for folder in chain(*listing.crops.values()) for entry in os.scandir(folder))
    return sorted(path for path in chain(ratings, media, truth, crops) if path.is_file())


def read_partitions(root: Path, listing: Listing, findings: list[Finding]) -> dict[str, str]:
    """The part of each rated recording: by its name, or, for those named P16 and the like, by `partitions.csv`."""
    path = root / PARTITIONS
    named: dict[str, str] = {}
    try:
        for row in read_rows(path, ("recording", "partition")):
            part = _PARTS.get(row["partition"].strip().lower())
            if part is None:
                raise ValueError(f"{row['recording']} is of partition {row['partition']!r}, none of train, dev, test")
            named[recording(row["recording"].strip()) or row["recording"]] = part
    except (ValueError, OSError) as error:
        problem, remedy = f"is not the table it should be: {error}", "write rows such as `P16,train` below its header"
        findings.append(Finding(PARTITIONS, "partition-known", problem, remedy))
    parts = {}
    unknown = []
    for key in listing.rated:
        part = named.get(key) or _PARTS.get(key.partition("_")[0])
        if part is None:
            unknown.append(key)
        else:
            parts[key] = part
    if unknown and not any(finding.file == PARTITIONS for finding in findings):
        problem = f"nothing says to which part {_names(unknown)} belong{'s' if len(unknown) == 1 else ''}"
        remedy = (
            f"write {PARTITIONS} with the header `recording,partition` and rows such as `P16,train`, "
            "as the owners' table of participants has it, or rename the files to train_1, dev_1, ..."
        )
        findings.append(Finding(".", "partition-known", problem, remedy))
    return parts


def check_folders(root: Path, listing: Listing, parts: Mapping[str, str], *, embedded: bool) -> list[Finding]:
    """What is missing or of no use, before any single recording is looked at."""
    findings: list[Finding] = []

    def tell(path: Path, rule: str, problem: str, remedy: str, severity: Severity = "error") -> None:
        findings.append(Finding(relative(path, root), rule, problem, remedy, severity))

    for path in listing.ignored:
        tell(path, "ignored", "physiology or features, not read", "nothing to do: video and sound are used", "note")
    for path in listing.strange:
        tell(path, "label-name", "is named like no recording", "nothing to do: it is left out", "warning")
    if not listing.rated:
        problem = "no ratings_gold_standard/{arousal,valence} and no ratings_individual/{arousal,valence} under it"
        remedy = "unpack the ratings there, or give the folder that has them as --root"
        tell(root, "annotations-there", problem, remedy)
    if not listing.videos:
        remedy = f"put the videos ({', '.join(VIDEOS)}) under it"
        tell(root, "video-there", "no video train_1, dev_1, P16, ...", remedy)
    if listing.rated and not listing.crops:
        remedy = (
            "`prepare` cuts faces out of the videos (extra `faces`), or does without (--no-faces); crops of your own "
            "go into cropped_aligned/<recording>/00001.jpg, numbered as the frames of the video"
        )
        tell(root, "crops-there", "no face crops", remedy, "warning")
    for key in sorted(listing.videos.keys() - set(listing.rated)) if listing.rated else ():
        video = listing.videos[key][0]
        if key.startswith("test_"):
            problem = "has no ratings: those of the test part are withheld"
            tell(video, "label-there", problem, "nothing to do: it is left out", "note")
        elif _CHALLENGE.fullmatch(key):
            tell(video, "label-there", "has no ratings", f"put {key}.arff (or .csv) beside the others")
        else:
            tell(video, "label-there", "has no ratings", "nothing to do: it is left out", "warning")
    count = {part: sum(value == part for value in parts.values()) for part in OFFICIAL}
    for part, number in count.items():
        if parts and len(parts) == len(listing.rated) and not number:
            tell(root, "partition-there", f"no rated recording of the {part} part", "unpack the ratings again")
    if all(count.values()) and count != OFFICIAL and not embedded:
        problem = f"{count['train']} train and {count['validation']} dev recordings; AVEC 2016 has 9 and 9"
        remedy = "results do not compare with printed ones; fetch what is missing"
        tell(root, "partition-official", problem, remedy, "warning")
    return findings


def find_one(key: str, what: str, paths: list[Path], root: Path, findings: list[Finding]) -> Path | None:
    """The only file of its kind for a recording; several that differ in size are an error."""
    if len({path.stat().st_size for path in paths}) > 1:
        names = " and ".join(relative(path, root) for path in paths)
        findings.append(
            Finding(relative(paths[0], root), f"{what}-once", f"different files {names}", f"keep the right {key}")
        )
        return None
    return paths[0] if paths else None


def _names(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _in_order(key: str) -> tuple[int, str, int]:
    """train before dev before test before participants, and by number."""
    head, number = re.fullmatch(r"(\D+)(\d+)", key).groups()  # type: ignore[union-attr]
    rank = {"train_": 0, "dev_": 1, "test_": 2}.get(head, 3)
    return rank, head, int(number)
