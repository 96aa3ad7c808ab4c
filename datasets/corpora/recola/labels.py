"""Labels of RECOLA: gold standards as given, or made of the raters; and which label holds at which frame."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.findings import Finding, Severity, relative
from crossfold.datasets.corpora.recola.files import DIMENSIONS, Listing, find_one
from crossfold.datasets.corpora.recola.gold_standard import gold_standard
from crossfold.datasets.corpora.recola.rating_files import RATE, read_ratings

RATERS = ("FM1", "FM2", "FM3", "FF1", "FF2", "FF3")
"""The owners' names of the six raters, three men and three women."""
TOLERANCE_S = 1.0
"""Seconds by which the ends of labels, video and sound of one recording may lie apart."""
_EXACT_S = 0.1
"""Ends this close are taken as the same: a label more or less, a frame more or less."""
_ROUNDED = 5e-4
"""By how much arff and csv may differ: one of them may be written with three digits."""
SPARE = 0.25
"""Parts of a label's period by which a frame's time stamp may be early."""


def labels_at(grid: np.ndarray, times: np.ndarray, shifts: Sequence[int]) -> np.ndarray:
    """Labels in force at `times` (float64 [frames], seconds): float32 [frames, targets], `UNLABELLED` where none is.

    grid: float64 [labels, targets], row k from k / `RATE` on, not a number where there is no label.
    shifts: labels by which each target is moved towards the past.
    """
    now = np.floor(times * RATE + SPARE).astype(np.int64)
    labels = np.full((len(times), grid.shape[1]), UNLABELLED, np.float32)
    for column, shift in enumerate(shifts):
        rows = now + shift
        there = np.flatnonzero((rows >= 0) & (rows < len(grid)))
        values = grid[rows[there], column]
        labels[there, column] = np.where(np.isnan(values), UNLABELLED, values)
    return labels


def read_labels(root: Path, listing: Listing, key: str, findings: list[Finding]) -> np.ndarray | None:
    """float64 [labels, targets] of a recording; nothing where a target is missing or damaged."""
    columns = []
    for dimension in DIMENSIONS:
        gold = listing.gold.get(key, {}).get(dimension, [])
        raters = listing.raters.get(key, {}).get(dimension, [])
        if gold:
            columns.append(_read_gold(root, key, gold, findings))
        elif raters:
            columns.append(_combine_raters(root, key, raters, findings))
        else:
            remedy = f"put {key}.arff (or .csv) into ratings_gold_standard/{dimension}"
            findings.append(
                Finding(where(root, listing, key), "label-there", f"{key} has no ratings of {dimension}", remedy)
            )
            columns.append(None)
    there = [column for column in columns if column is not None]
    if len(there) < len(DIMENSIONS):
        return None
    found = compare_ends(
        where(root, listing, key), "valence", len(there[0]) / RATE, "arousal", len(there[1]) / RATE, "label-rows"
    )
    findings += found
    if any(finding.severity == "error" for finding in found):
        return None
    grid = np.full((max(len(column) for column in there), len(there)), np.nan)
    for index, column in enumerate(there):
        grid[: len(column), index] = column
    return grid


def _read_gold(root: Path, key: str, paths: list[Path], findings: list[Finding]) -> np.ndarray | None:
    """float64 [labels] of one dimension; where arff and csv are there, they must say the same."""
    kinds = [[path for path in paths if path.suffix.lower() == kind] for kind in (".arff", ".csv")]
    chosen = [find_one(key, "label", kind, root, findings) for kind in kinds if kind]
    read = []
    for path in filter(None, chosen):
        found: list[Finding] = []
        read.append((path, read_ratings(path, root, found)))
        # Both files have the same gaps, or are refused below; one word about them is enough.
        findings += [finding for finding in found if finding.severity == "error" or len(read) == 1]
    traces = []
    for path, ratings in read:
        if ratings is not None and len(ratings.columns) > 1:
            problem = f"has {len(ratings.columns)} columns of ratings: {', '.join(ratings.columns)[:60]}"
            remedy = "a gold standard has one; files of several raters belong into ratings_individual"
            findings.append(Finding(relative(path, root), "label-format", problem, remedy))
        elif ratings is not None:
            traces.append(ratings.values[:, 0])
    if len(traces) < len([kind for kind in kinds if kind]):
        return None
    if len(traces) == 2 and (problem := _disagree(*traces)):
        problem = f"and {relative(read[1][0], root)} {problem}"
        remedy = "they should be the same ratings; keep the right one"
        findings.append(Finding(relative(read[0][0], root), "label-agree", problem, remedy))
        return None
    return traces[0]


def _disagree(first: np.ndarray, second: np.ndarray) -> str:
    """How the ratings of two files differ; empty where they are the same but for rounding."""
    if len(first) != len(second):
        return f"have {len(first)} and {len(second)} ratings"
    same = np.isclose(first, second, rtol=0, atol=_ROUNDED * 1.001, equal_nan=True)
    at = int(np.argmin(same))
    return "" if same.all() else f"differ from {at / RATE:g} s on ({first[at]:g} and {second[at]:g})"


def _combine_raters(root: Path, key: str, paths: list[Path], findings: list[Finding]) -> np.ndarray | None:
    """float64 [labels] of one dimension from the raters' own traces (see `gold_standard.py`)."""
    path = find_one(key, "label", paths, root, findings)
    ratings = read_ratings(path, root, findings) if path is not None else None
    if path is None or ratings is None:
        return None

    def note(rule: str, problem: str, remedy: str, severity: Severity = "warning") -> None:
        findings.append(Finding(relative(path, root), rule, problem, remedy, severity))

    silent = np.isnan(ratings.values).all(0)
    heard = [name for name, nothing in zip(ratings.columns, silent, strict=True) if not nothing]
    if not heard:
        note("label-empty", "has no rating", "fetch the file again", "error")
        return None
    if len(heard) < len(RATERS):
        gone = [name for name in RATERS if name not in {column.upper() for column in heard}]
        who = f": without {', '.join(gone)}" if len(gone) == len(RATERS) - len(heard) else ""
        note(
            "rater-missing",
            f"has {len(heard)} of {len(RATERS)} raters{who}",
            "the others make the gold standard; fetch the file again for the owners' one",
        )
    values = ratings.values[:, ~silent]
    rated = ~np.isnan(values).any(1)
    partly = ~np.isnan(values).all(1) & ~rated
    if partly.any():
        at = int(np.argmax(partly)) / RATE
        note("rater-gap", f"lacks ratings of some raters, first at {at:g} s", "nothing to do: there is no label then")
    if not rated.any():
        note("label-empty", "has no time that all raters rated", "fetch the file again", "error")
        return None
    made = gold_standard(values[rated])
    if not made.weighted:
        note("rater-agreement", "has raters who do not agree at all", "their level is the plain mean of theirs")
    trace = np.full(len(values), np.nan)
    trace[rated] = np.clip(made.values, -1, 1)
    return trace


def compare_ends(file: str, what: str, seconds: float, other: str, others: float, rule: str) -> list[Finding]:
    """Whether two things that begin together also end together."""
    if abs(seconds - others) <= _EXACT_S:
        return []
    problem = f"{what} end{'' if what == 'labels' else 's'} at {seconds:.2f} s, {other} at {others:.2f} s"
    if abs(seconds - others) > TOLERANCE_S:
        remedy = "one is cut or of another recording; fetch both again, or cut the longer one if they begin together"
        return [Finding(file, rule, problem, remedy)]
    return [Finding(file, rule, problem, "nothing to do: what is beyond the shorter one is left out", "warning")]


def where(root: Path, listing: Listing, key: str) -> str:
    """The file that findings about a recording as a whole name: its first file of ratings."""
    files = chain(*listing.gold.get(key, {}).values(), *listing.raters.get(key, {}).values())
    return relative(min(files), root)
