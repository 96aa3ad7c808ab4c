"""Labels of RECOLA: gold standards as given, or made of the raters; and which label holds at which frame."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.discovery import take_one
from crossfold.datasets.corpora.findings import Finding, Report, relative
from crossfold.datasets.corpora.recola.files import DIMENSIONS, Listing
from crossfold.datasets.corpora.recola.gold_standard import gold_standard
from crossfold.datasets.corpora.recola.rating_files import RATE, read_ratings

RATERS = ("FM1", "FM2", "FM3", "FF1", "FF2", "FF3")
"""The owners' names of the six raters, three men and three women."""
TOLERANCE_S = 1.0
"""Seconds by which the ends of labels, video and sound of one recording may lie apart."""
_EXACT_S = 0.1  # ends this close are taken as the same: a label more or less, a frame more or less
_ROUNDED = 5e-4  # by how much arff and csv may differ: one of them may be written with three digits
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
        rows = now + shift  # a later label is about this frame
        there = np.flatnonzero((rows >= 0) & (rows < len(grid)))
        values = grid[rows[there], column]
        labels[there, column] = np.where(np.isnan(values), UNLABELLED, values)
    return labels


def read_labels(root: Path, listing: Listing, key: str, findings: list[Finding]) -> np.ndarray | None:
    """float64 [labels, targets] of a recording; nothing where a target is missing or damaged."""
    report = Report(where(root, listing, key), findings)
    columns = []
    for dimension in DIMENSIONS:
        gold = listing.gold.get(key, {}).get(dimension, [])
        raters = listing.raters.get(key, {}).get(dimension, [])
        if gold:
            columns.append(_read_gold(root, gold, findings))
        elif raters:
            columns.append(_combine_raters(root, raters, findings))
        else:
            remedy = f"put {key}.arff (or .csv) into ratings_gold_standard/{dimension}"
            report.error("label-there", f"{key} has no ratings of {dimension}", remedy)
    there = [column for column in columns if column is not None]
    if len(there) < len(DIMENSIONS):
        return None
    ends = [len(column) / RATE for column in there]
    if not compare_ends(report, ("valence", ends[0]), ("arousal", ends[1]), "label-rows"):
        return None
    grid = np.full((max(len(column) for column in there), len(there)), np.nan)
    for index, column in enumerate(there):
        grid[: len(column), index] = column  # the shorter one ends in gaps
    return grid


def _read_gold(root: Path, paths: list[Path], findings: list[Finding]) -> np.ndarray | None:
    """float64 [labels] of one dimension; where arff and csv are there, they must have the same ratings."""
    kinds = [same for kind in (".arff", ".csv") if (same := [p for p in paths if p.suffix.lower() == kind])]
    reports: list[Report] = []
    traces = []
    for kind in kinds:
        report = Report(relative(kind[0], root), findings)
        path = take_one(kind, "label-once", root, report)
        found: list[Finding] = []
        ratings = read_ratings(path, root, found) if path is not None else None
        # Both files have the same gaps, or are refused below; one word about them is enough.
        findings += [finding for finding in found if finding.severity == "error" or not reports]
        reports.append(report)
        if ratings is not None and len(ratings.columns) > 1:
            problem = f"has {len(ratings.columns)} columns of ratings: {', '.join(ratings.columns)[:60]}"
            remedy = "a gold standard has one; files of several raters belong into ratings_individual"
            report.error("label-format", problem, remedy)
        elif ratings is not None:
            traces.append(ratings.values[:, 0])
    if len(traces) < len(kinds):
        return None
    if len(traces) == 2 and (problem := _disagree(*traces)):
        remedy = "they should be the same ratings; keep the right one"
        reports[0].error("label-agree", f"and {reports[1].file} {problem}", remedy)
        return None
    return traces[0]


def _disagree(first: np.ndarray, second: np.ndarray) -> str:
    """How the ratings of two files differ; empty where they are the same but for rounding."""
    if len(first) != len(second):
        return f"have {len(first)} and {len(second)} ratings"
    same = np.isclose(first, second, rtol=0, atol=_ROUNDED * 1.001, equal_nan=True)
    at = int(np.argmin(same))
    return "" if same.all() else f"differ from {at / RATE:g} s on ({first[at]:g} and {second[at]:g})"


def _combine_raters(root: Path, paths: list[Path], findings: list[Finding]) -> np.ndarray | None:
    """float64 [labels] of one dimension from the raters' own traces (see `gold_standard`)."""
    report = Report(relative(paths[0], root), findings)
    path = take_one(paths, "label-once", root, report)
    ratings = read_ratings(path, root, findings) if path is not None else None
    if ratings is None:
        return None
    silent = np.isnan(ratings.values).all(0)
    active = [name for name, nothing in zip(ratings.columns, silent, strict=True) if not nothing]
    if len(active) < len(RATERS):
        gone = [name for name in RATERS if name not in {column.upper() for column in active}]
        who = f": without {', '.join(gone)}" if len(gone) == len(RATERS) - len(active) else ""
        remedy = "the others make the gold standard; fetch the file again for the owners' one"
        report.warning("rater-missing", f"has {len(active)} of {len(RATERS)} raters{who}", remedy)
    values = ratings.values[:, ~silent]
    rated = ~np.isnan(values).any(1)
    partly = ~np.isnan(values).all(1) & ~rated
    if partly.any():
        problem = f"lacks ratings of some raters, first at {int(np.argmax(partly)) / RATE:g} s"
        report.warning("rater-gap", problem, "nothing to do: there is no label then")
    if not rated.any():
        report.error("label-empty", "has no time that all raters rated", "fetch the file again")
        return None
    made = gold_standard(values[rated])
    if not made.weighted:
        remedy = "their level is the plain mean of theirs"
        report.warning("rater-agreement", "has raters who do not agree at all", remedy)
    trace = np.full(len(values), np.nan)
    trace[rated] = np.clip(made.values, -1, 1)  # centring may lead out of the scale
    return trace


def compare_ends(report: Report, one: tuple[str, float], other: tuple[str, float], rule: str) -> bool:
    """Whether two things, (name, seconds) each, that begin together also end within `TOLERANCE_S` of each other."""
    apart = abs(one[1] - other[1])
    if apart <= _EXACT_S:
        return True
    verb = "end" if one[0] == "labels" else "ends"
    problem = f"{one[0]} {verb} at {one[1]:.2f} s, {other[0]} at {other[1]:.2f} s"
    if apart > TOLERANCE_S:
        remedy = "one is cut or of another recording; fetch both again, or cut the longer one if they begin together"
        report.error(rule, problem, remedy)
        return False
    report.warning(rule, problem, "nothing to do: what is beyond the shorter one is left out")
    return True


def where(root: Path, listing: Listing, key: str) -> str:
    """The file that findings about a recording as a whole name: its first file of ratings."""
    files = chain(*listing.gold.get(key, {}).values(), *listing.raters.get(key, {}).values())
    return relative(min(files), root)
