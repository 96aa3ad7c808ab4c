"""Labels of the corpus `manifest`: any names and ranges, at the rate of frames, of spans or of whole clips.

A table of labels has a column a target, and says where its rows belong in one of four ways:

    time                seconds from the first frame; a frame takes the nearest row, none further away than one period
    frame               the frame's number, from 0
    start, end          seconds; the values hold for the frames that begin in [start, end)
    none of these       row i is frame i

An .npy file of [frames] or [frames, targets] has its columns in the order of `targets` in manifest.yaml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossfold.datasets.corpora.clips import UNLABELLED, Target
from crossfold.datasets.corpora.findings import Finding, relative
from crossfold.datasets.corpora.manifest.frames import TOLERANCE, Axis
from crossfold.datasets.corpora.manifest.table import Table, read_table
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean

PLACES = ("time", "frame", "start", "end")
_MILLISECONDS = 20
"""Times that are this many times as long as the clip are not in seconds."""


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


def read_declared(root: Path, findings: list[Finding]) -> tuple[str | None, tuple[Target, ...] | None]:
    """Name and targets that `manifest.yaml` declares; nothing where it is not there."""
    path = root / "manifest.yaml"
    if not path.is_file():
        return None, None
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        declared = Declared.parse({} if data is None else data, "manifest.yaml")
        targets = {name: Target(name, r.low, r.high, r.unit) for name, r in (declared.targets or {}).items()}
    except UserError as error:
        findings.append(Finding("manifest.yaml", "declared", error.problem, "keys: name; targets: {name: {low, high}}"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        findings.append(Finding("manifest.yaml", "declared", f"is not YAML ({reason})", "mend the file"))
    except ValueError as error:
        findings.append(Finding("manifest.yaml", "declared", str(error), "give the lower end first"))
    else:
        return declared.name, tuple(targets.values()) or None
    return None, None


@dataclass(frozen=True)
class Labels:
    """Labels as they were read, before they are put on frames: a table or an array, and values for the whole clip."""

    file: str
    """As findings name it; `manifest.csv` where the clip has no file of labels."""
    columns: Mapping[str, np.ndarray]
    """float64 [rows] a target."""
    places: Mapping[str, np.ndarray]
    """float64 [rows] of each of `PLACES` that the table has."""
    whole: Mapping[str, float]
    """Values that hold for every frame."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        return (*self.columns, *self.whole)

    @property
    def rows(self) -> int | None:
        """Rows, where row i is frame i."""
        return len(next(iter(self.columns.values()))) if self.columns and not self.places else None


def read_label_file(
    path: Path, root: Path, declared: Sequence[Target] | None, findings: list[Finding]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns by target, and the places of the rows; both empty where the file is of no use."""
    if path.suffix == ".npy":
        return _read_array(path, root, declared, findings), {}
    table = read_table(path, root, findings, PLACES)
    if table is None:
        return {}, {}
    before = len(findings)
    ways = [way for way in (("time",), ("frame",), ("start", "end")) if set(way) & set(table.columns)]
    if len(ways) > 1 or (ways and not set(ways[0]) <= set(table.columns)):
        found = [column for column in table.columns if column in PLACES]
        problem = f"places its rows by {', '.join(found)}"
        remedy = "give one of: time; frame; start and end; none of them, with a row a frame"
        findings.append(Finding(table.file, "label-place", problem, remedy))
        return {}, {}
    places = {column: _place(table, column, findings) for column in table.columns if column in PLACES}
    columns = {
        column.removeprefix("label:"): table.numbers(column, findings, "label-number")
        for column in table.columns
        if column not in PLACES
    }
    if not columns:
        findings.append(Finding(table.file, "label-none", "has no column of values", "add one, named after its target"))
    return (columns, places) if len(findings) == before else ({}, {})


def _place(table: Table, column: str, findings: list[Finding]) -> np.ndarray:
    values = table.numbers(column, findings, "label-place")
    if (empty := np.flatnonzero(np.isnan(values))).size and not any(f.file == table.file for f in findings):
        problem = f"line {table.rows[empty[0]].line} has no {column}"
        findings.append(Finding(table.file, "label-place", problem, "every row says where it belongs"))
    return values


def _read_array(
    path: Path, root: Path, declared: Sequence[Target] | None, findings: list[Finding]
) -> dict[str, np.ndarray]:
    def refuse(problem: str, remedy: str) -> dict[str, np.ndarray]:
        findings.append(Finding(relative(path, root), "label-array", problem, remedy))
        return {}

    if declared is None:
        return refuse("is an array, whose columns have no names", "declare `targets` in manifest.yaml, in their order")
    try:
        array = np.load(path, allow_pickle=False)
    except Exception:  # NumPy raises many kinds for a damaged header
        return refuse("is not a whole .npy file of numbers", "write it again with numpy.save")
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != len(declared) or array.dtype.kind not in "fiu":
        shape = f"{array.dtype} {list(array.shape)}"
        return refuse(f"holds {shape}", f"write numbers of [frames, {len(declared)}], as manifest.yaml has the targets")
    if np.isinf(array).any():
        return refuse("has infinite values", "write not-a-number where there is no annotation")
    return {target.name: array[:, t].astype(np.float64) for t, target in enumerate(declared)}


def place_labels(labels: Labels, axis: Axis, targets: Sequence[Target], findings: list[Finding]) -> np.ndarray:
    """float32 [frames, targets] on the frames of a clip, not a number where there is no annotation."""
    found = np.full((axis.frames, len(targets)), np.nan)
    rows = _rows_of_frames(labels, axis, findings) if labels.columns else None
    for t, target in enumerate(targets):
        if target.name in labels.whole:
            found[:, t] = labels.whole[target.name]
        elif target.name in labels.columns and rows is not None:
            found[:, t] = np.where(rows >= 0, labels.columns[target.name][rows], np.nan)
        if not target.low <= UNLABELLED <= target.high:
            found[found[:, t] == UNLABELLED, t] = np.nan
    if np.isnan(found).all() and not any(f.file == labels.file and f.severity == "error" for f in findings):
        problem = "gives no frame of its clip a value"
        findings.append(Finding(labels.file, "label-none", problem, "the clip is kept, and unused", "warning"))
    return found.astype(np.float32)


def _rows_of_frames(labels: Labels, axis: Axis, findings: list[Finding]) -> np.ndarray | None:
    """int64 [frames]: the row of each frame, -1 where it has none; nothing where the places make no sense."""

    def tell(rule: str, problem: str, remedy: str, *, error: bool = True) -> None:
        findings.append(Finding(labels.file, rule, problem, remedy, "error" if error else "warning"))

    if "start" in labels.places:
        return _spans(labels.places["start"], labels.places["end"], axis, tell)
    if "time" in labels.places:
        return _nearest_rows(labels.places["time"], axis, tell)
    if "frame" in labels.places:
        return _numbered(labels.places["frame"], axis, tell)
    rows = len(next(iter(labels.columns.values())))
    if abs(rows - axis.frames) > TOLERANCE:
        problem = f"has {rows} rows, its clip has {axis.frames} frames"
        tell("label-length", problem, "say where each row belongs in a column `time` (seconds), or write a row a frame")
        return None
    if rows != axis.frames:
        rest = "rows after the last frame are left out" if rows > axis.frames else "the last frames are unlabelled"
        tell(
            "label-length", f"has {rows} rows, its clip has {axis.frames} frames", f"nothing to do: {rest}", error=False
        )
    index = np.arange(axis.frames)
    return np.where(index < rows, index, -1)


def _spans(start: np.ndarray, end: np.ndarray, axis: Axis, tell: Any) -> np.ndarray | None:
    if (wrong := np.flatnonzero((start < 0) | (end <= start))).size:
        at = int(wrong[0])
        tell("label-span", f"row {at + 1} spans [{start[at]:g}, {end[at]:g}) s", "it needs 0 <= start < end")
        return None
    order = np.argsort(start, kind="stable")
    if (over := np.flatnonzero(start[order][1:] < end[order][:-1] - 1e-9)).size:
        first, second = order[over[0]], order[over[0] + 1]
        problem = f"rows {first + 1} and {second + 1} overlap at {start[second]:g} s"
        tell("label-span", problem, "a frame has one value a target; end one span where the next begins")
        return None
    if not _in_seconds(float(end.max()), axis, tell):
        return None
    late = float(end.max()) - axis.seconds
    if late > 1:
        remedy = "nothing to do if the annotators rounded up; what is after the last frame is left out"
        tell("label-length", f"goes on {late:.1f} s after the last frame of its clip", remedy, error=False)
    rows = np.full(axis.frames, -1)
    for row in range(len(start)):
        # A frame that begins with a span belongs to it, however its time was rounded.
        rows[(axis.times >= start[row] - 1e-6) & (axis.times < end[row] - 1e-6)] = row
    return rows


def _nearest_rows(times: np.ndarray, axis: Axis, tell: Any) -> np.ndarray | None:
    if (back := np.flatnonzero(np.diff(times) <= 0)).size or times[0] < 0:
        at = int(back[0]) + 1 if back.size else 0
        tell("label-time", f"row {at + 1} is at {times[at]:g} s", "times begin at 0 or later and rise from row to row")
        return None
    if len(times) == 1:
        tell("label-time", "has one time stamp, which does not say how long it holds", "give `start` and `end` instead")
        return None
    if not _in_seconds(float(times[-1]), axis, tell):
        return None
    period = max(float(np.median(np.diff(times))), 1 / axis.fps)
    for gap, where in (
        (float(times[-1]) - axis.seconds, "goes on {} after the last frame"),
        (axis.seconds - float(times[-1]), "ends {} before the last frame"),
    ):
        if gap > max(1.0, 2 * period):
            remedy = "check that labels and media are of one cut; frames without a label near by are unlabelled"
            tell("label-length", where.format(f"{gap:.1f} s") + " of its clip", remedy, error=False)
    right = np.clip(np.searchsorted(times, axis.times), 1, len(times) - 1)
    rows = np.where(axis.times - times[right - 1] <= times[right] - axis.times, right - 1, right)
    return np.where(np.abs(times[rows] - axis.times) <= period + 1e-9, rows, -1)


def _numbered(numbers: np.ndarray, axis: Axis, tell: Any) -> np.ndarray | None:
    whole = numbers == np.rint(numbers)
    wrong = np.flatnonzero(~whole | (numbers < 0) | (numbers >= axis.frames))
    if wrong.size:
        at = int(wrong[0])
        problem = f"row {at + 1} is of frame {numbers[at]:g}; its clip has frames 0 to {axis.frames - 1}"
        tell("label-frame", problem, "frames count from 0, in whole numbers")
        return None
    if len(np.unique(numbers)) < len(numbers):
        tell("label-frame", "names a frame twice", "a frame has one value a target")
        return None
    rows = np.full(axis.frames, -1)
    rows[numbers.astype(np.int64)] = np.arange(len(numbers))
    return rows


def _in_seconds(last: float, axis: Axis, tell: Any) -> bool:
    if last > _MILLISECONDS * max(axis.seconds, 1):
        tell("label-time", f"ends at {last:g}, its clip lasts {axis.seconds:.1f} s", "write times in seconds")
        return False
    return True


def settle_targets(
    declared: Sequence[Target] | None, read: Sequence[Labels], findings: list[Finding]
) -> tuple[Target, ...]:
    """The targets of the corpus; names that only some files have, and values outside a range, are findings."""
    names = list(dict.fromkeys(name for labels in read for name in labels.targets))
    if declared is not None:
        for labels in read:
            if unknown := [name for name in labels.targets if name not in {target.name for target in declared}]:
                hint = did_you_mean(unknown[0], [target.name for target in declared])
                problem = f"has a target {unknown[0]!r}, which manifest.yaml does not declare{hint}"
                findings.append(Finding(labels.file, "target-known", problem, "declare it, or rename the column"))
        targets = tuple(declared)
    else:
        targets = tuple(Target(name) for name in names)
        for labels in read:
            if labels.columns and set(labels.targets) != set(names):
                problem = f"has the targets {', '.join(labels.targets)}; all files together have {', '.join(names)}"
                remedy = "name them alike in every file, or declare `targets` in manifest.yaml: then some may be absent"
                findings.append(Finding(labels.file, "target-known", problem, remedy))
    if not names:
        findings.append(
            Finding(
                "manifest.csv",
                "label-none",
                "no clip has labels",
                "add a column `labels` that names a file, or `label:<target>` with a value a clip",
            )
        )
    for target in targets:
        _check_range(target, read, declared is not None, findings)
    return targets


def _check_range(target: Target, read: Sequence[Labels], declared: bool, findings: list[Finding]) -> None:
    mark = np.nan if target.low <= UNLABELLED <= target.high else UNLABELLED
    outside: list[tuple[str, float]] = []
    span = [np.inf, -np.inf]
    for labels in read:
        values = labels.columns.get(target.name, np.array([labels.whole.get(target.name, np.nan)]))
        values = values[~np.isnan(values) & (values != mark)]
        if not values.size:
            continue
        span = [min(span[0], float(values.min())), max(span[1], float(values.max()))]
        wrong = values[(values < target.low) | (values > target.high)]
        if wrong.size:
            outside.append((labels.file, float(wrong[0])))
    if span[0] > span[1]:
        problem = f"target {target.name} has no value in any clip"
        findings.append(Finding("manifest.csv", "target-none", problem, "it cannot be trained", "warning"))
    if not outside:
        return
    if declared:
        for file, value in outside:
            problem = f"{target.name} {value:g} is outside [{target.low:g}, {target.high:g}]"
            findings.append(Finding(file, "label-range", problem, "correct the value, or the range in manifest.yaml"))
        return
    problem = f"{target.name} goes from {span[0]:g} to {span[1]:g}, outside [-1, 1], which holds where none is declared"
    remedy = f"write manifest.yaml with `targets: {{{target.name}: {{low: {span[0]:g}, high: {span[1]:g}}}}}`"
    remedy += " and the true ends of its scale"
    findings.append(Finding(outside[0][0], "label-range", problem, remedy))
