"""Official splits and folds, by one of two named rules, and the files of folds that others can train on.

`grouped`: no video and no subject stands on both sides of a fold. `as_released`: the cuts of the papers' code, which
knows neither. Under both, fold k reports the trials at the place where fold k of the papers has them (E13).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.platform.core.cell import AS_RELEASED, EARLIER_FOLDS, FOLD_RULES, GIVEN_FOLDS, GROUPED
from crossfold.platform.core.errors import DataError, UserError, did_you_mean
from crossfold.platform.core.yaml_files import parse_json, read_json_text

OUTER_FOLDS = 6
"""Fold 0 is the official split; fold k of 1-5 reports chunk 6-k of the training clips (E13)."""


@dataclass(frozen=True)
class Fold:
    """Names of the clips that train and of those that are reported."""

    index: int
    train: tuple[str, ...]
    validation: tuple[str, ...]


class FoldTable(NamedTuple):
    """Folds, and the rule that they follow."""

    folds: tuple[Fold, ...]
    rule: str
    """A key of `FOLD_RULES`."""


def make_folds(clips: Sequence[ClipInfo], count: int = OUTER_FOLDS, rule: str = GROUPED) -> tuple[Fold, ...]:
    """Folds 0..count-1 of a corpus with an official train/validation split.

    The official training clips, in order of name, are cut into count-1 chunks. Fold k >= 1 reports chunk count-k and
    trains on the rest together with the official validation clips, as the released code does by rolling a list whose
    last chunk is the official validation part. With too few clips or groups there are fewer folds.
    rule: `grouped` or `as_released`; 356 names are cut at 71, 142, 213, 284 and 356 by the latter. Raises `UserError`
    for another rule, and `DataError` where the official split itself puts a video or subject on both sides.
    """
    if rule not in (GROUPED, AS_RELEASED, EARLIER_FOLDS):
        raise UserError(f"fold rule {rule!r}", f"choose {GROUPED} or {AS_RELEASED}")
    train = [clip for clip in clips if clip.partition == "train"]
    validation = [clip for clip in clips if clip.partition == "validation"]
    if not train or not validation:
        raise DataError(
            f"{len(train)} training and {len(validation)} validation clips",
            "a corpus needs both; check the partition folders",
        )
    folds = [Fold(0, _names(train), _names(validation))]
    chunks = _released_chunks(train, count - 1) if rule == AS_RELEASED else _chunks(train, count - 1)
    if len(chunks) > 1:
        for index, chunk in enumerate(chunks if rule == EARLIER_FOLDS else reversed(chunks), start=1):
            reported = {clip.name for clip in chunk}
            rest = [clip for clip in (*train, *validation) if clip.name not in reported]
            folds.append(Fold(index, _names(rest), _names(chunk)))
    for fold in folds[:1] if rule == AS_RELEASED else folds:
        check_leakage(clips, fold)
    return tuple(folds)


def choose_folds(clips: Sequence[ClipInfo], own: Sequence[Fold] | None, rule: str | None) -> FoldTable:
    """The folds of a corpus: those that it lists itself, else by the rule that is asked for, else `grouped`.

    Raises `UserError` where a rule is asked for and the corpus lists folds.
    """
    if own and rule is not None:
        raise UserError(f"fold rule {rule} for a corpus that lists its own folds", "leave the rule out")
    return (
        FoldTable(tuple(own), GIVEN_FOLDS)
        if own
        else FoldTable(make_folds(clips, rule=rule or GROUPED), rule or GROUPED)
    )


def recognise_folds(clips: Sequence[ClipInfo], folds: Sequence[Fold]) -> str:
    """The rule of folds that were stored without one: `grouped`, `grouped_upwards`, or `given`."""
    for rule in (GROUPED, EARLIER_FOLDS):
        try:
            if tuple(folds) == make_folds(clips, rule=rule):
                return rule
        except DataError:  # the corpus has no official split
            break
    return GIVEN_FOLDS


def inner_fold(clips: Sequence[ClipInfo], outer: Fold, index: int, of: int) -> Fold:
    """Inner fold `index` of `of`, made of the training clips of `outer` and of nothing else."""
    inside = [clip for clip in clips if clip.name in set(outer.train)]
    chunks = _chunks(inside, of)
    if len(chunks) < of:
        raise UserError(
            f"{of} inner folds of fold {outer.index}, which has {len(_groups(inside))} independent videos to train on",
            "ask for fewer inner folds",
        )
    chunk = chunks[index]
    rest = [clip for clip in inside if clip not in chunk]  # nothing of the outer validation part
    return Fold(outer.index, _names(rest), _names(chunk))


def hold_out(clips: Sequence[ClipInfo], fold: Fold, share: float) -> tuple[Fold, tuple[str, ...]]:
    """Takes about `share` of the training groups away to pick the epoch; the reported split is untouched."""
    inside = [clip for clip in clips if clip.name in set(fold.train)]
    groups = _groups(inside)
    if len(groups) < 2:
        raise UserError(
            f"fold {fold.index} trains on {len(groups)} independent video", "`held_out` selection needs at least two"
        )
    wanted = max(1, round(share * len(groups)))
    # Every k-th group rather than the last ones: names often follow recording sessions.
    step = len(groups) / wanted
    chosen = {name for pick in range(wanted) for name in groups[int(pick * step)]}
    held = tuple(name for name in fold.train if name in chosen)
    return Fold(fold.index, tuple(name for name in fold.train if name not in chosen), fold.validation), held


def check_leakage(clips: Sequence[ClipInfo], fold: Fold) -> None:
    """Raises `DataError` if a video or subject is on both sides of a fold."""
    by_name = {clip.name: clip for clip in clips}
    for what in ("video", "subject"):
        left = {getattr(by_name[name], what): name for name in fold.train}
        for name in fold.validation:
            shared = getattr(by_name[name], what)
            if shared in left:
                raise DataError(
                    f"fold {fold.index}: {what} {shared!r} is in training ({left[shared]}) and in validation ({name})",
                    "move one of the clips, or correct the subject names",
                )


def fold_file(corpus: str, table: FoldTable, left_out: Sequence[str] = ()) -> str:
    """Folds as a file that others can train on exactly the same with: JSON, clip names in order, and their SHA-256.

    left_out: clips of the corpus that are in no fold on purpose, such as those of a test part.
    """
    content = {"rule": table.rule, "folds": [asdict(fold) for fold in table.folds], "left_out": sorted(left_out)}
    return json.dumps({"corpus": corpus, "sha256": _digest(content), **content}, indent=1, ensure_ascii=False) + "\n"


def read_fold_file(path: Path, clips: Sequence[ClipInfo]) -> FoldTable:
    """The folds of a file for a corpus of these clips, checked for leaks. A file of one's own needs no SHA-256 or rule.

    Raises `UserError` where the file was changed after it was written, names a clip that the corpus lacks, leaves one
    out without saying so, or has other folds than its rule makes; `DataError` where a video or subject is on both
    sides and the rule is not `as_released`.
    """
    again = f"`crossfold folds CORPUS --out {path.name}` writes one"
    try:
        data: dict[str, Any] = parse_json(read_json_text(path))
        content = {key: data[key] for key in ("rule", "folds", "left_out") if key != "rule" or key in data}
        folds = tuple(Fold(int(f["index"]), tuple(f["train"]), tuple(f["validation"])) for f in data["folds"])
        left_out = [str(name) for name in data["left_out"]]
        digest = str(data.get("sha256", _digest(content)))  # a file written by hand needs none
        rule = str(data.get("rule", GIVEN_FOLDS))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(repr(error).split())[:120]
        raise UserError(f"{path} is not a file of folds ({reason})", again) from None
    if digest != _digest(content):
        raise UserError(
            f"{path}: its folds are not those of its sha256 {digest[:12]}...", "fetch it again, or write it again"
        )
    if [fold.index for fold in folds] != list(range(len(folds))) or not folds:
        raise UserError(f"{path}: folds {[fold.index for fold in folds]}", "number them from 0 without gaps")
    known = {clip.name for clip in clips}
    named = set(left_out).union(*(fold.train for fold in folds), *(fold.validation for fold in folds))
    if strange := sorted(named - known):
        problem = f"{path}: {len(strange)} clips that the corpus does not have, such as {strange[0]!r}"
        raise UserError(problem + did_you_mean(strange[0], known), "is it the same edition of the corpus?")
    if missing := sorted(known - named):
        problem = f"{path}: {len(missing)} clips of the corpus are in no fold, such as {missing[0]!r}"
        raise UserError(problem, "add them to a fold, or to `left_out`")
    if rule not in FOLD_RULES:
        raise UserError(f"{path}: fold rule {rule!r}", f"write one of {', '.join(FOLD_RULES)}, or leave it out")
    if rule != GIVEN_FOLDS and folds != make_folds(clips, rule=rule):
        raise UserError(
            f"{path}: its folds are not those of its rule {rule!r}", f"write the rule {GIVEN_FOLDS!r}, or: {again}"
        )
    for fold in folds:
        if not fold.train or not fold.validation or set(fold.train) & set(fold.validation):
            problem = (
                f"{path}: fold {fold.index} has {len(fold.train)} training and {len(fold.validation)} validation clips"
            )
            raise UserError(problem, "both sides need clips, and none may be on both")
        if rule != AS_RELEASED:
            check_leakage(clips, fold)
    return FoldTable(folds, recognise_folds(clips, folds) if rule == GIVEN_FOLDS else rule)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _names(clips: Sequence[ClipInfo]) -> tuple[str, ...]:
    return tuple(sorted(clip.name for clip in clips))


def _groups(clips: Sequence[ClipInfo]) -> list[list[str]]:
    """Names of clips joined by a shared video or subject, in order of their first name."""
    from scipy.cluster.hierarchy import DisjointSet  # slow to import, and most commands need no groups

    joined = DisjointSet(clip.name for clip in clips)
    first: dict[tuple[str, str], str] = {}
    for clip in clips:
        for key in (("video", clip.video), ("subject", clip.subject)):
            joined.merge(first.setdefault(key, clip.name), clip.name)
    return sorted(sorted(group) for group in joined.subsets())


def _chunks(clips: Sequence[ClipInfo], count: int) -> list[list[ClipInfo]]:
    """`count` chunks of whole groups in order of name, the last ones one group larger (71, 71, 71, 71, 72)."""
    groups = _groups(clips)
    by_name = {clip.name: clip for clip in clips}
    count = min(count, len(groups))
    chunks, start = [], 0
    for index in range(count):
        size = (len(groups) + index) // count  # rounds down for the first chunks, up for the last
        chunks.append([by_name[name] for group in groups[start : start + size] for name in group])
        start += size
    return chunks


def _released_chunks(clips: Sequence[ClipInfo], count: int) -> list[list[ClipInfo]]:
    """`count` chunks of equally many clips in order of name; the last one also takes what is left over."""
    ordered = sorted(clips, key=lambda clip: clip.name)
    count = min(count, len(ordered))
    size = len(ordered) // count
    return [ordered[size * i : size * (i + 1) if i < count - 1 else None] for i in range(count)]
