"""Labels of the corpus `manifest`: any names and ranges, at the rate of frames, of spans or of whole clips.

A table of labels has a column per target, and says where its rows belong as `table_places` knows it; `placing` puts
them on frames. An .npy file of [frames] or [frames, targets] has its columns in the order of manifest.yaml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED, Target
from crossfold.datasets.corpora.findings import Finding, Refusal, Report, has_errors, relative
from crossfold.datasets.corpora.manifest.paths import MANIFEST
from crossfold.datasets.corpora.table_places import Places, find_places
from crossfold.datasets.corpora.tables import read_table
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.yaml_files import parse_yaml, read_yaml_text


class _Range(FrozenModel):
    low: float
    high: float
    unit: str = ""


class Declared(FrozenModel):
    """`manifest.yaml`: what a table of files cannot say."""

    name: str | None = None
    """The corpus's own name, for its store and for sweeps; else `manifest`."""
    targets: dict[str, _Range] | None = None
    """Every target with the range its annotators had; else the columns found, in [-1, 1]."""
    first_frame: Literal[0, 1] | None = None
    """Whether numbers of frames in tables count from 0 or from 1; else each table has to show it."""


@dataclass(frozen=True)
class Declaration:
    """What `manifest.yaml` says; nothing where it is not there."""

    name: str | None = None
    targets: tuple[Target, ...] | None = None
    first_frame: int | None = None


def read_declared(root: Path, findings: list[Finding]) -> Declaration:
    """What `manifest.yaml` declares."""
    path = root / "manifest.yaml"
    if not path.is_file():
        return Declaration()
    report = Report("manifest.yaml", findings)
    try:
        data = parse_yaml(read_yaml_text(path, "manifest.yaml"), "manifest.yaml", "correct the file")
        declared = Declared.parse({} if data is None else data, "manifest.yaml")
        targets = {name: Target(name, r.low, r.high, r.unit) for name, r in (declared.targets or {}).items()}
        return Declaration(declared.name, tuple(targets.values()) or None, declared.first_frame)
    except UserError as error:
        report.error("declared", error.problem, "keys: name; targets: {name: {low, high}}; first_frame: 0 or 1")
    except ValueError as error:
        report.error("declared", str(error), "give the lower end first")
    return Declaration()


@dataclass(frozen=True)
class Labels:
    """Labels as they were read, before they are put on frames: a table or an array, and values for the whole clip."""

    file: str
    """As findings name it; `manifest.csv` where the clip has no file of labels."""
    columns: Mapping[str, np.ndarray]
    """float64 [rows] per target."""
    places: Places
    """Where the rows belong."""
    whole: Mapping[str, float]
    """Values that hold for every frame."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        return (*self.columns, *self.whole)


def read_label_file(
    path: Path, root: Path, declared: Sequence[Target] | None, findings: list[Finding]
) -> tuple[dict[str, np.ndarray], Places]:
    """Columns by target, and the places of the rows; no columns where the file is of no use."""
    found: list[Finding] = []
    columns: dict[str, np.ndarray] = {}
    places = Places()
    with Report(relative(path, root), found):
        if path.suffix.lower() == ".npy":
            columns = _read_array(path, declared)
        elif (table := read_table(path, root, found, numeric=True)) is not None:
            places, names = find_places(table, found, "label-place", [target.name for target in declared or ()])
            if not names:
                shown = ", ".join(table.columns)[:80]
                problem = f"has no column of values among {shown}"
                raise Refusal("label-none", problem, "add one, named after its target, or declare it in manifest.yaml")
            columns = {c.removeprefix("label:"): table.numbers(c, found, "label-number") for c in names}
            places = replace(places, said=(table.written, *places.said))
    findings += found
    return ({}, Places()) if has_errors(found) else (columns, places)


def _read_array(path: Path, declared: Sequence[Target] | None) -> dict[str, np.ndarray]:
    """Columns of an .npy file in the order of the targets. Raises `Refusal`."""
    if declared is None:
        remedy = "declare `targets` in manifest.yaml, in their order"
        raise Refusal("label-array", "is an array, whose columns have no names", remedy)
    try:
        array = np.load(path, allow_pickle=False)
    except Exception:  # NumPy raises many kinds for a damaged header
        problem = "is not a whole .npy file of numbers"
        raise Refusal("label-array", problem, "write it again with numpy.save") from None
    array = array[:, None] if array.ndim == 1 else array  # one target
    if array.ndim != 2 or array.shape[1] != len(declared) or array.dtype.kind not in "fiu":
        remedy = f"write numbers of [frames, {len(declared)}], as manifest.yaml has the targets"
        raise Refusal("label-array", f"holds {array.dtype} {list(array.shape)}", remedy)
    if np.isinf(array).any():
        raise Refusal("label-array", "has infinite values", "write not-a-number where there is no annotation")
    return {target.name: array[:, t].astype(np.float64) for t, target in enumerate(declared)}


def settle_targets(
    declared: Sequence[Target] | None, read: Sequence[Labels], findings: list[Finding]
) -> tuple[Target, ...]:
    """The targets of the corpus; names that only some files have, and values outside a range, are findings."""
    names = list(dict.fromkeys(name for labels in read for name in labels.targets))
    targets = tuple(declared) if declared is not None else tuple(Target(name) for name in names)
    known = [target.name for target in targets]
    for labels in read:
        report = Report(labels.file, findings)
        unknown = [name for name in labels.targets if name not in known]
        if unknown:
            hint = did_you_mean(unknown[0], known)
            problem = f"has a target {unknown[0]!r}, which manifest.yaml does not declare{hint}"
            report.error("target-known", problem, "declare it, or rename the column")
        if declared is None and labels.columns and set(labels.targets) != set(names):
            problem = f"has the targets {', '.join(labels.targets)}; all files together have {', '.join(names)}"
            remedy = "name them alike in every file, or declare `targets` in manifest.yaml: then some may be absent"
            report.error("target-known", problem, remedy)
    if not names and all(labels.file == MANIFEST for labels in read):  # what is wrong with a file is said there
        remedy = "add a column `labels` that names a file, or `label:<target>` with a value per clip"
        Report(MANIFEST, findings).error("label-none", "no clip has labels", remedy)
    for target in targets:
        _check_range(target, read, declared is not None, findings)
    return targets


def _check_range(target: Target, read: Sequence[Labels], declared: bool, findings: list[Finding]) -> None:
    mark = np.nan if target.low <= UNLABELLED <= target.high else UNLABELLED
    found = []
    for labels in read:
        values = labels.columns.get(target.name, np.array([labels.whole.get(target.name, np.nan)]))
        values = values[~np.isnan(values) & (values != mark)]
        if values.size:
            found.append((labels.file, values))
    if not found:
        problem = f"target {target.name} has no value in any clip"
        Report(MANIFEST, findings).warning("target-none", problem, "it cannot be trained")
    outside = [(file, v[(v < target.low) | (v > target.high)]) for file, v in found]
    outside = [(file, wrong) for file, wrong in outside if wrong.size]
    if declared:
        for file, wrong in outside:
            problem = f"{target.name} {wrong[0]:g} is outside [{target.low:g}, {target.high:g}]"
            Report(file, findings).error("label-range", problem, "correct the value, or the range in manifest.yaml")
    elif outside:
        low, high = min(v.min() for _, v in found), max(v.max() for _, v in found)
        problem = f"{target.name} goes from {low:g} to {high:g}, outside [-1, 1], which holds where none is declared"
        scale = f"{target.name}: {{low: {low:g}, high: {high:g}}}"
        remedy = f"write manifest.yaml with `targets: {{{scale}}}` and the true ends of its scale"
        steps = np.diff(found[0][1])
        if len(steps) > 2 and (steps > 0).all() and np.ptp(steps) <= 0.5 * np.median(steps):
            problem += "; it rises evenly from row to row, as times and numbers of frames do"
            remedy = f"if it is one, name it `time` (seconds), `time_ms` or `frame`; else {remedy}"
        Report(outside[0][0], findings).error("label-range", problem, remedy)
