"""Labels on the frames of a clip: each frame takes the row that belongs to it, or none.

time                seconds from the first frame; a frame takes the nearest row, none further away than one period
frame               the frame's number, from 0 unless the tables or manifest.yaml say 1
start, end          seconds; the values hold for the frames that begin in [start, end)
none of these       row i is frame i
"""

from collections.abc import Sequence

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED, Target
from crossfold.datasets.corpora.findings import Finding, Refusal, Report
from crossfold.datasets.corpora.manifest.labels import Labels
from crossfold.datasets.corpora.media_checks import TOLERANCE, constant_rate_remedy
from crossfold.datasets.corpora.table_places import Places
from crossfold.datasets.media.time_axis import TimeAxis

_NOT_SECONDS = 20  # times that are this many times as long as the clip are not in seconds
_MILLISECONDS = (0.2, 1.5)  # times that were milliseconds would cover this much of the clip
_OUT = 1.0  # seconds by which labels may end before or after their clip before it is reported


def place_labels(
    labels: Labels, axis: TimeAxis, targets: Sequence[Target], findings: list[Finding], first_frame: int | None = None
) -> np.ndarray:
    """float32 [frames, targets] on the frames of a clip, not a number where there is no annotation.

    first_frame: the number of a clip's first frame in tables; None where nothing but the table itself says it.
    """
    report = Report(labels.file, findings)
    found = np.full((axis.frames, len(targets)), np.nan)
    rows = None
    if labels.columns:
        with report:
            rows = _rows_of_frames(labels, axis, report, first_frame)
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


def _rows_of_frames(labels: Labels, axis: TimeAxis, report: Report, first_frame: int | None) -> np.ndarray:
    """int64 [frames]: the row of each frame, -1 where it has none. Raises `Refusal` where the places make no sense."""
    places = labels.places
    if places.way == "span":
        return _rows_of_spans(places, axis, report)
    if places.way == "time":
        return _nearest_rows(places, axis, report)
    if places.way == "frame":
        return _numbered_rows(places, axis, report, first_frame)
    rows = len(next(iter(labels.columns.values())))
    problem = f"has {rows} rows, its clip has {axis.frames} frames"
    if abs(rows - axis.frames) > TOLERANCE:
        remedy = "say where each row belongs in a column `time` (seconds), or write a row per frame"
        remedy = constant_rate_remedy(rows, axis) or remedy
        raise Refusal("label-length", problem, remedy)
    if rows != axis.frames:
        rest = "rows after the last frame are left out" if rows > axis.frames else "the last frames are unlabelled"
        report.warning("label-length", problem, f"nothing to do: {rest}")
    index = np.arange(axis.frames)
    return np.where(index < rows, index, -1)


def _rows_of_spans(places: Places, axis: TimeAxis, report: Report) -> np.ndarray:
    start = places.first
    end = places.last if places.last is not None else np.full(len(start), np.inf)
    if (wrong := np.flatnonzero((start < 0) | (end <= start))).size:
        at = int(wrong[0])
        problem = f"row {at + 1} spans [{start[at]:g}, {end[at]:g}) s"
        raise Refusal("label-span", problem, "it needs 0 <= start < end")
    known = np.concatenate([start, end[np.isfinite(end)]])
    unit = _seconds_per_unit(known, places, axis, report)
    start, end = start * unit, end * unit
    order = np.argsort(start, kind="stable")  # rows may be in any order
    if (over := np.flatnonzero(start[order][1:] < end[order][:-1] - 1e-9)).size:
        first, second = order[over[0]], order[over[0] + 1]
        problem = f"rows {first + 1} and {second + 1} overlap at {start[second]:g} s"
        raise Refusal("label-span", problem, "a frame has one value per target; end one span where the next begins")
    late = float(known.max()) * unit - axis.seconds
    if late > _OUT:
        remedy = "nothing to do if the annotators rounded up; what is after the last frame is left out"
        report.warning("label-length", f"goes on {late:.1f} s after the last frame of its clip", remedy)
    # A frame that begins with a span belongs to it, however its time was rounded.
    row = np.searchsorted(start[order] - 1e-6, axis.times, side="right") - 1
    inside = (row >= 0) & (axis.times < end[order][row] - 1e-6)
    return np.where(inside, order[row], -1)


def _nearest_rows(places: Places, axis: TimeAxis, report: Report) -> np.ndarray:
    order = np.argsort(places.first, kind="stable")
    times = places.first[order]
    if times[0] < 0:
        at = int(order[0])
        remedy = "times begin at 0, with the first frame, or later"
        raise Refusal("label-time", f"row {at + 1} is at {times[0]:g}", remedy)
    if (twice := np.flatnonzero(np.diff(times) <= 0)).size:
        first, second = sorted((int(order[twice[0]]), int(order[twice[0] + 1])))
        problem = f"rows {first + 1} and {second + 1} are both at {times[twice[0]]:g}"
        remedy = "a frame has one value per target; keep one of them, or write a file for each face or annotator"
        raise Refusal("label-time", problem, remedy)
    if len(times) == 1:
        problem = "has one time stamp, which does not say how long it holds"
        raise Refusal("label-time", problem, "give `start` and `end` instead")
    if (order != np.arange(len(order))).any():
        remedy = f"nothing to do: they are placed by {places.column}"
        report.warning("label-order", "has rows that are not in order of time", remedy)
    times = times * _seconds_per_unit(times, places, axis, report)
    period = max(float(np.median(np.diff(times))), 1 / axis.fps)  # a gap in the table does not lengthen it
    _report_end(float(times[-1]) - axis.seconds, 2 * period, report)
    right = np.clip(np.searchsorted(times, axis.times), 1, len(times) - 1)
    rows = np.where(axis.times - times[right - 1] <= times[right] - axis.times, right - 1, right)
    return np.where(np.abs(times[rows] - axis.times) <= period + 1e-9, order[rows], -1)


def _report_end(gap: float, least: float, report: Report) -> None:
    """Says by how many seconds the last label comes after the last frame, or before it where `gap` is negative."""
    if abs(gap) > max(_OUT, least):
        problem = f"goes on {gap:.1f} s after" if gap > 0 else f"ends {-gap:.1f} s before"
        remedy = "check that labels and media are of one cut; frames without a label near by are unlabelled"
        report.warning("label-length", f"{problem} the last frame of its clip", remedy)


def _numbered_rows(places: Places, axis: TimeAxis, report: Report, first_frame: int | None) -> np.ndarray:
    numbers = places.first
    if (wrong := np.flatnonzero(numbers != np.rint(numbers))).size:
        at = int(wrong[0])
        problem = f"row {at + 1} is of frame {numbers[at]:g} by its column {places.column}"
        raise Refusal("label-frame", problem, "frames have whole numbers; a column of seconds is named `time`")
    first = first_number(numbers, axis.frames) if first_frame is None else first_frame
    if first is None:
        shown = f"{numbers.min():g} to {numbers.max():g} of {axis.frames}"
        problem = f"has frames {shown}, which may count from 0 or from 1"
        remedy = "write `first_frame: 0` or `first_frame: 1` into manifest.yaml"
        raise Refusal("label-frame", problem, remedy)
    if (wrong := np.flatnonzero((numbers < first) | (numbers >= axis.frames + first))).size:
        at = int(wrong[0])
        problem = f"row {at + 1} is of frame {numbers[at]:g}; its clip has frames {first} to {axis.frames - 1 + first}"
        remedy = "frames count from 0 unless `first_frame: 1` stands in manifest.yaml, and none is after the last"
        raise Refusal("label-frame", problem, remedy)
    if len(np.unique(numbers)) < len(numbers):
        remedy = "a frame has one value per target; write a file for each face or annotator"
        raise Refusal("label-frame", "names a frame twice", remedy)
    if first == 1:
        remedy = "nothing to do if that is right; else write `first_frame: 0` into manifest.yaml"
        report.note("label-frame", "counts frames from 1: number 1 is the first", remedy)
    _report_end((float(numbers.max()) + 1 - first) / axis.fps - axis.seconds, 0.0, report)
    rows = np.full(axis.frames, -1)
    rows[numbers.astype(np.int64) - first] = np.arange(len(numbers))
    return rows


def first_number(numbers: np.ndarray, frames: int) -> int | None:
    """0 or 1: the number of the first frame, as far as the numbers of a clip of so many frames show it; else None."""
    if numbers.min() == 1:
        return 1 if numbers.max() == frames else None
    return 0


def _seconds_per_unit(values: np.ndarray, places: Places, axis: TimeAxis, report: Report) -> float:
    """The unit of times: as their column says it, else seconds, else milliseconds, whichever fits the clip."""
    last = float(values.max())
    seconds = max(axis.seconds, 1.0)
    problem = f"ends at {last:g} by {places.column}, its clip lasts {axis.seconds:.1f} s"
    remedy = "name the column after its unit (`time` in seconds, `time_ms`), or `frame` if it numbers frames"
    if places.unit is not None:
        if last * places.unit > _NOT_SECONDS * seconds:
            raise Refusal("label-time", problem, "write times from the first frame of the clip")
        return places.unit
    steps = np.diff(np.sort(values))
    counted = len(values) > 2 and (values == np.rint(values)).all() and (steps <= 1).all()
    if counted and abs(last + 1 - axis.frames) <= TOLERANCE and last > 1.5 * seconds:
        raise Refusal("label-time", f"{problem}: they count as its {axis.frames} frames do", remedy)
    if last <= _NOT_SECONDS * seconds:
        return 1.0
    low, high = _MILLISECONDS
    if low * axis.seconds <= last / 1000 <= max(high * axis.seconds, axis.seconds + _OUT):
        remedy = "nothing to do if that is right; `time_ms` and `time_s` say the unit"
        report.note("label-time", f"{places.column} ends at {last:g}: it is taken for milliseconds", remedy)
        return 1e-3
    raise Refusal("label-time", problem, remedy)
