"""Labels of the corpus `manifest`: any names and ranges, at the rate of frames, of spans or of whole clips.

A table of labels has a column per target, and says where its rows belong in one of four ways:

    time                seconds from the first frame; a frame takes the nearest row, none further away than one period
    frame               the frame's number, from 0
    start, end          seconds; the values hold for the frames that begin in [start, end)
    none of these       row i is frame i

An .npy file of [frames] or [frames, targets] has its columns in the order of `targets` in manifest.yaml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED, Target
from crossfold.datasets.corpora.findings import Finding, Refusal, Report, has_errors, relative
from crossfold.datasets.corpora.manifest.paths import MANIFEST
from crossfold.datasets.corpora.media_checks import TOLERANCE
from crossfold.datasets.corpora.tables import Table, read_table
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.yaml_files import parse_yaml, read_yaml_text

PLACES = ("time", "frame", "start", "end")
_MILLISECONDS = 20  # times that are this many times as long as the clip are not in seconds


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
    report = Report("manifest.yaml", findings)
    try:
        data = parse_yaml(read_yaml_text(path, "manifest.yaml"), "manifest.yaml", "correct the file")
        declared = Declared.parse({} if data is None else data, "manifest.yaml")
        targets = {name: Target(name, r.low, r.high, r.unit) for name, r in (declared.targets or {}).items()}
        return declared.name, tuple(targets.values()) or None
    except UserError as error:
        report.error("declared", error.problem, "keys: name; targets: {name: {low, high}}")
    except ValueError as error:
        report.error("declared", str(error), "give the lower end first")
    return None, None


@dataclass(frozen=True)
class Labels:
    """Labels as they were read, before they are put on frames: a table or an array, and values for the whole clip."""

    file: str
    """As findings name it; `manifest.csv` where the clip has no file of labels."""
    columns: Mapping[str, np.ndarray]
    """float64 [rows] per target."""
    places: Mapping[str, np.ndarray]
    """float64 [rows] of each of `PLACES` that the table has."""
    whole: Mapping[str, float]
    """Values that hold for every frame."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        return (*self.columns, *self.whole)


def read_label_file(
    path: Path, root: Path, declared: Sequence[Target] | None, findings: list[Finding]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns by target, and the places of the rows; both empty where the file is of no use."""
    found: list[Finding] = []
    columns: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    with Report(relative(path, root), found):
        if path.suffix == ".npy":
            columns = _read_array(path, declared)
        elif (table := read_table(path, root, found, PLACES)) is not None:
            places, columns = _placed_columns(table, found)
    findings += found
    return ({}, {}) if has_errors(found) else (columns, places)


def _placed_columns(table: Table, findings: list[Finding]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The columns that place the rows, and those that hold values. Raises `Refusal`."""
    ways = [way for way in (("time",), ("frame",), ("start", "end")) if set(way) & set(table.columns)]
    if len(ways) > 1 or (ways and not set(ways[0]) <= set(table.columns)):
        problem = f"places its rows by {', '.join(column for column in table.columns if column in PLACES)}"
        remedy = "give one of: time; frame; start and end; none of them, with a row per frame"
        raise Refusal("label-place", problem, remedy)
    places = {column: _place(table, column, findings) for column in table.columns if column in PLACES}
    values = [column for column in table.columns if column not in PLACES]
    if not values:
        raise Refusal("label-none", "has no column of values", "add one, named after its target")
    return places, {c.removeprefix("label:"): table.numbers(c, findings, "label-number") for c in values}


def _place(table: Table, column: str, findings: list[Finding]) -> np.ndarray:
    values = table.numbers(column, findings, "label-place")
    if (empty := np.flatnonzero(np.isnan(values))).size and not findings:
        problem = f"line {table.rows[empty[0]].line} has no {column}"
        raise Refusal("label-place", problem, "every row says where it belongs")
    return values


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


def place_labels(labels: Labels, axis: TimeAxis, targets: Sequence[Target], findings: list[Finding]) -> np.ndarray:
    """float32 [frames, targets] on the frames of a clip, not a number where there is no annotation."""
    report = Report(labels.file, findings)
    found = np.full((axis.frames, len(targets)), np.nan)
    rows = None
    if labels.columns:
        with report:
            rows = _rows_of_frames(labels, axis, report)
    for t, target in enumerate(targets):
        if target.name in labels.whole:
            found[:, t] = labels.whole[target.name]
        elif target.name in labels.columns and rows is not None:
            found[:, t] = np.where(rows >= 0, labels.columns[target.name][rows], np.nan)
        if not target.low <= UNLABELLED <= target.high:
            found[found[:, t] == UNLABELLED, t] = np.nan  # the mark of Aff-Wild2
    if np.isnan(found).all() and not any(f.file == labels.file and f.severity == "error" for f in findings):
        report.warning("label-none", "gives no frame of its clip a value", "the clip is kept, and unused")
    return found.astype(np.float32)


def _rows_of_frames(labels: Labels, axis: TimeAxis, report: Report) -> np.ndarray:
    """int64 [frames]: the row of each frame, -1 where it has none. Raises `Refusal` where the places make no sense."""
    if "start" in labels.places:
        return _rows_of_spans(labels.places["start"], labels.places["end"], axis, report)
    if "time" in labels.places:
        return _nearest_rows(labels.places["time"], axis, report)
    if "frame" in labels.places:
        return _numbered_rows(labels.places["frame"], axis)
    rows = len(next(iter(labels.columns.values())))
    problem = f"has {rows} rows, its clip has {axis.frames} frames"
    if abs(rows - axis.frames) > TOLERANCE:
        remedy = "say where each row belongs in a column `time` (seconds), or write a row per frame"
        raise Refusal("label-length", problem, remedy)
    if rows != axis.frames:
        rest = "rows after the last frame are left out" if rows > axis.frames else "the last frames are unlabelled"
        report.warning("label-length", problem, f"nothing to do: {rest}")
    index = np.arange(axis.frames)
    return np.where(index < rows, index, -1)


def _rows_of_spans(start: np.ndarray, end: np.ndarray, axis: TimeAxis, report: Report) -> np.ndarray:
    if (wrong := np.flatnonzero((start < 0) | (end <= start))).size:
        at = int(wrong[0])
        problem = f"row {at + 1} spans [{start[at]:g}, {end[at]:g}) s"
        raise Refusal("label-span", problem, "it needs 0 <= start < end")
    order = np.argsort(start, kind="stable")  # rows may be in any order
    if (over := np.flatnonzero(start[order][1:] < end[order][:-1] - 1e-9)).size:
        first, second = order[over[0]], order[over[0] + 1]
        problem = f"rows {first + 1} and {second + 1} overlap at {start[second]:g} s"
        raise Refusal("label-span", problem, "a frame has one value per target; end one span where the next begins")
    _check_seconds(float(end.max()), axis)
    late = float(end.max()) - axis.seconds
    if late > 1:
        remedy = "nothing to do if the annotators rounded up; what is after the last frame is left out"
        report.warning("label-length", f"goes on {late:.1f} s after the last frame of its clip", remedy)
    rows = np.full(axis.frames, -1)
    for row in range(len(start)):
        # A frame that begins with a span belongs to it, however its time was rounded.
        rows[(axis.times >= start[row] - 1e-6) & (axis.times < end[row] - 1e-6)] = row
    return rows


def _nearest_rows(times: np.ndarray, axis: TimeAxis, report: Report) -> np.ndarray:
    if (back := np.flatnonzero(np.diff(times) <= 0)).size or times[0] < 0:
        at = int(back[0]) + 1 if back.size else 0
        remedy = "times begin at 0 or later and rise from row to row"
        raise Refusal("label-time", f"row {at + 1} is at {times[at]:g} s", remedy)
    if len(times) == 1:
        problem = "has one time stamp, which does not say how long it holds"
        raise Refusal("label-time", problem, "give `start` and `end` instead")
    _check_seconds(float(times[-1]), axis)
    period = max(float(np.median(np.diff(times))), 1 / axis.fps)  # a gap in the table does not lengthen it
    gap = float(times[-1]) - axis.seconds
    if abs(gap) > max(1.0, 2 * period):
        problem = f"goes on {gap:.1f} s after" if gap > 0 else f"ends {-gap:.1f} s before"
        remedy = "check that labels and media are of one cut; frames without a label near by are unlabelled"
        report.warning("label-length", f"{problem} the last frame of its clip", remedy)
    right = np.clip(np.searchsorted(times, axis.times), 1, len(times) - 1)
    rows = np.where(axis.times - times[right - 1] <= times[right] - axis.times, right - 1, right)
    return np.where(np.abs(times[rows] - axis.times) <= period + 1e-9, rows, -1)


def _numbered_rows(numbers: np.ndarray, axis: TimeAxis) -> np.ndarray:
    wrong = np.flatnonzero((numbers != np.rint(numbers)) | (numbers < 0) | (numbers >= axis.frames))
    if wrong.size:
        at = int(wrong[0])
        problem = f"row {at + 1} is of frame {numbers[at]:g}; its clip has frames 0 to {axis.frames - 1}"
        raise Refusal("label-frame", problem, "frames count from 0, in whole numbers")
    if len(np.unique(numbers)) < len(numbers):
        raise Refusal("label-frame", "names a frame twice", "a frame has one value per target")
    rows = np.full(axis.frames, -1)
    rows[numbers.astype(np.int64)] = np.arange(len(numbers))
    return rows


def _check_seconds(last: float, axis: TimeAxis) -> None:
    if last > _MILLISECONDS * max(axis.seconds, 1):
        problem = f"ends at {last:g}, its clip lasts {axis.seconds:.1f} s"
        raise Refusal("label-time", problem, "write times in seconds")


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
    if not names:
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
        remedy = f"write manifest.yaml with `targets: {{{target.name}: {{low: {low:g}, high: {high:g}}}}}`"
        report = Report(outside[0][0], findings)
        report.error("label-range", problem, f"{remedy} and the true ends of its scale")
