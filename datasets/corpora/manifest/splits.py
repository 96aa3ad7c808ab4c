"""Who trains and who is scored, as columns `partition` and `fold` of a manifest say it, and whether anything leaks."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from crossfold.datasets.corpora.findings import Refusal, Report
from crossfold.datasets.corpora.partitions import Fold
from crossfold.datasets.corpora.tables import MISSING
from crossfold.platform.core.errors import did_you_mean

PARTITIONS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), "validation"),
    "test": "test",
}
"""Spellings of the three partitions, in any case."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Where a clip stands, as the manifest writes it."""

    line: int
    clip: str
    video: str
    subject: str
    partition: str
    fold: str

    @property
    def who(self) -> str:
        """The subject; unknown ones are named after their video."""
        return self.video if self.subject.lower() in MISSING else self.subject

    @property
    def part(self) -> str:
        """train, validation, test, or nothing."""
        return PARTITIONS.get(self.partition.lower(), "")

    @property
    def number(self) -> int | None:
        """The fold, where there is one."""
        return int(self.fold) if self.fold.isascii() and self.fold.isdecimal() and len(self.fold) < 4 else None


def check_sides(sides: Sequence[Side], columns: Collection[str], report: Report) -> None:
    """Every rule that rows break together: names, partitions, folds, and subjects on both sides."""
    _check_names(sides, report)
    if not {"partition", "fold"} & set(columns):
        remedy = "add partition (train, validation, test), or fold (0, 1, ...): which clips are scored together"
        report.error("partition-there", "has neither a column partition nor fold", remedy)
        return
    if not any(side.subject.lower() not in MISSING for side in sides):
        remedy = "nothing to do if every clip has a subject of its own; else add column subject, or scores will flatter"
        report.warning("subject-there", "does not say who is in a clip", remedy)
    known = [_words_are_known(side, report) for side in sides]
    if all(known):
        with report:
            _check_parts(sides)
    _check_leaks(sides, report)
    _check_alike(sides, report)


def _check_names(sides: Sequence[Side], report: Report) -> None:
    first: dict[str, Side] = {}
    for side in sides:
        # Some file systems take `A.npz` and `a.npz` for one file.
        other = first.setdefault(side.clip.casefold(), side)
        if other is not side:
            problem = f"line {side.line}: clip {side.clip!r} is in line {other.line} already"
            report.error("clip-once", problem, "give each row a name of its own, or take one out")


def _words_are_known(side: Side, report: Report) -> bool:
    """Whether the partition and the fold of a row are such, and go together."""
    before = len(report.findings)
    if side.partition and not side.part:
        hint = did_you_mean(side.partition.lower(), PARTITIONS)
        problem = f"line {side.line}: partition {side.partition!r}{hint}"
        report.error("partition-known", problem, "write train, validation or test")
    if side.fold and side.number is None:
        problem = f"line {side.line}: fold {side.fold!r}"
        report.error("fold-known", problem, "write a whole number; folds count from 0")
    if side.number is not None and side.part == "test":
        problem = f"line {side.line}: clip {side.clip!r} is of the test part and of fold {side.number}"
        report.error("fold-known", problem, "leave its fold empty: test clips are in no fold")
    return len(report.findings) == before


def _check_parts(sides: Sequence[Side]) -> None:
    """Raises `Refusal` where a part that training or scoring needs is missing."""
    parts = [side.part for side in sides]
    official = "validation" in parts
    numbered = [side for side in sides if side.number is not None]
    if not numbered or official:
        if missing := [part for part in ("train", "validation") if part not in parts]:
            counts = ", ".join(f"{parts.count(part)} {part}" for part in ("train", "validation", "test"))
            remedy = f"mark some clips as {missing[0]}, or give folds"
            raise Refusal("partition-there", f"has {counts} clips", remedy)
        if bare := [side for side in sides if not side.part]:
            problem = f"line {bare[0].line}: clip {bare[0].clip!r} has no partition"
            raise Refusal("partition-there", problem, "write train, validation or test in every row")
    if not numbered:
        return
    wanted = [side for side in sides if side.part != "test" and (side.part == "train" or not official)]
    if bare := [side for side in wanted if side.number is None]:
        problem = f"line {bare[0].line}: clip {bare[0].clip!r} has no fold"
        raise Refusal("fold-there", problem, "give every clip that trains a fold, or none")
    begin = 1 if official else 0  # fold 0 is the official validation part
    have = sorted({side.number for side in wanted if side.number is not None})
    if have != list(range(begin, begin + len(have))) or len(have) < 2:
        why = "fold 0 is the official partition" if official else "one fold is scored while the others train"
        remedy = f"number them {begin}, {begin + 1}, ... without gaps: {why}"
        raise Refusal("fold-there", f"has folds {', '.join(map(str, have))}", remedy)
    if official and (astray := [s for s in sides if s.part == "validation" and s.number not in (None, 0)]):
        problem = f"line {astray[0].line}: validation clip {astray[0].clip!r} is in fold {astray[0].number}"
        raise Refusal("fold-known", problem, "leave it empty, or 0: the official validation part is fold 0")


def _check_leaks(sides: Sequence[Side], report: Report) -> None:
    """No subject and no video is in two partitions or two folds."""
    for what in ("subject", "video"):
        first: dict[str, Side] = {}
        for side in sides:
            shared = side.who if what == "subject" else side.video
            other = first.setdefault(shared, side)
            if (other.part, other.number or 0) == (side.part, side.number or 0):
                continue
            if what == "video" and other.who == side.who:  # reported for the subject
                continue
            here, there = (f"{s.part or 'fold'} {'' if s.number is None else s.number}".strip() for s in (side, other))
            problem = f"line {side.line}: {what} {shared!r} is in {here} here and in {there} in line {other.line}"
            remedy = "models would be scored on whom they learnt from; move one of the two"
            report.error(f"{what}-apart", problem, remedy)


def _check_alike(sides: Sequence[Side], report: Report) -> None:
    """Says where subjects on different sides have nearly one name, as 01 and the 1 that a spreadsheet makes of it."""
    first: dict[str, Side] = {}
    said = set()
    for side in sides:
        if side.subject.lower() in MISSING:
            continue
        words = re.sub(r"[\W_]+", " ", side.subject.casefold().removesuffix(".0")).strip()
        bare = re.sub(r"(?<!\d)0+(?=\d)", "", words)
        other = first.setdefault(bare, side)
        apart = (other.part, other.number or 0) != (side.part, side.number or 0)
        if other.who != side.who and apart and bare not in said:
            said.add(bare)
            problem = f"line {side.line}: subject {side.who!r} is nearly {other.who!r} of line {other.line}"
            remedy = "if they are one person, write the name alike: models would be scored on whom they learnt from"
            report.warning("subject-alike", problem, remedy)


def folds_of(sides: Sequence[Side]) -> tuple[Fold, ...] | None:
    """The folds that a sound manifest numbers; nothing where it gives a partition alone."""
    numbers = sorted({side.number for side in sides if side.number is not None and side.part != "test"})
    official = any(side.part == "validation" for side in sides)
    inside = [side for side in sides if side.part != "test"]
    if not numbers:
        return None

    def fold(index: int, reported: Collection[str]) -> Fold:
        train = sorted(side.clip for side in inside if side.clip not in reported)
        return Fold(index, tuple(train), tuple(sorted(reported)))

    found = []
    if official:
        found.append(fold(0, {side.clip for side in inside if side.part == "validation"}))
    for number in numbers:
        reported = {side.clip for side in inside if side.number == number and not (official and number == 0)}
        if reported:
            found.append(fold(number, reported))
    return tuple(found)
