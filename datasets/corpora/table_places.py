"""Where the rows of a table belong, by the names that tools give to time, frame and span.

    openSMILE     frameTime, frameIndex; name, class        OpenFace    frame, timestamp; face_id, confidence, success
    audformat     file, start, end (also as an index)       py-feat     frame, input, Identity, FaceScore
    MuSe          timestamp (milliseconds), segment_id      ELAN        Begin Time - ss.msec, End Time - ss.msec
    pandas        an index without a name                   Praat       xmin, xmax, tmin, tmax

A name may bring its unit: `time_ms`, `Time (s)`, `start [ms]`. Times may also be durations, as pandas writes them
(`0 days 00:00:00.040000`), or clock times (`00:00:01.250`).
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from crossfold.datasets.corpora.findings import Finding, Refusal, Report, and_more
from crossfold.datasets.corpora.tables import MISSING, Table

Role = Literal["time", "frame", "index", "start", "end", "duration", "other"]
Way = Literal["row", "time", "frame", "span"]

_NAMES: dict[Role, str] = {
    "time": "time times timestamp timestamps frametime timecode t pts ptstime timeline timeoffset relativetime",
    "frame": "frame frames frameid frameidx frameindex framenumber frameno framenr framenum framecount imageid imgid",
    "index": "index idx unnamed0 level0 indexlevel0 row rowid rowindex",
    "start": "start starts begin onset starttime begintime timestart timebegin tstart tmin xmin from",
    "end": "end ends stop endtime stoptime timeend timestop tend tmax xmax to",
    "duration": "duration dur length",
    "other": "name instancename file filename filepath path input clip clipid video videoid videoname segment "
    "segmentid subject subjectid speaker speakerid participant participantid faceid face confidence conf success valid "
    "approxtime facescore identity annotator annotatorid rater raterid class id tier",
}
"""Names without case, blanks and marks; `other` columns say whose rows they are, or how sure a tool was."""
_ROLES: dict[str, Role] = {name: role for role, names in _NAMES.items() for name in names.split()}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "usec", "microsecond", "microseconds", "µs", "μs"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
}
_UNIT = re.compile(rf"(?P<stem>.*?)[\s_.\-/(\[]+(?:in[\s_]+)?(?P<unit>{'|'.join(_UNITS)})[\s)\]]*")
_CLOCK = re.compile(r"(?:\d+ days? \+?)?\d+:[0-5]?\d:[0-5]?\d(?:[.,]\d+)?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{4}")
_WORDS = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds", 60.0: "minutes"}
_NEAR = ("time", "timestamp", "frame", "start", "end")


def meaning(column: str) -> tuple[Role | None, float | None]:
    """What the name of a column stands for, and the seconds of its unit where the name has one."""
    text = unicodedata.normalize("NFKC", column).strip().casefold()
    if text.endswith("ss.msec"):  # ELAN: seconds with a fraction
        text, unit = text.removesuffix("ss.msec"), 1.0
    elif text.endswith("hh:mm:ss.ms"):
        text, unit = text.removesuffix("hh:mm:ss.ms"), None
    elif text in _UNITS and text not in ("s", "us", "min", "mins"):
        return "time", _UNITS[text]
    else:
        match = _UNIT.fullmatch(text)
        unit = _UNITS[match["unit"]] if match else None
        text = match["stem"] if match else text
    word = _letters(text)
    if word not in _ROLES and word.endswith("ms") and word.removesuffix("ms") in _ROLES:
        word, unit = word.removesuffix("ms"), 1e-3
    role = _ROLES.get(word)
    if unit is not None and role not in ("time", "start", "end", "duration"):
        role = _ROLES.get(_letters(column.casefold()))  # `id_s` is no time
        unit = None
    return role, unit


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


@dataclass(frozen=True)
class Places:
    """Where the rows of a table belong, as its columns say it."""

    way: Way = "row"
    first: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """float64 [rows]: times, numbers of frames, or the begin of spans; in `unit`."""
    last: np.ndarray | None = None
    """float64 [rows]: the ends of spans; infinite where a span lasts to the end of the clip."""
    unit: float | None = None
    """Seconds of a unit of time; None where neither the file nor the name of the column says it."""
    column: str = ""
    """By the name that the file has."""
    said: tuple[str, ...] = ()
    """What the columns were taken for, in words."""
    sure: np.ndarray | None = None
    """bool [rows]: false where the tool says that it found nothing; None where it does not say."""


def find_places(
    table: Table, findings: list[Finding], rule: str, values: Collection[str] = ()
) -> tuple[Places, list[str]]:
    """Where the rows belong, and the columns that hold values. Raises `Refusal` where the columns contradict.

    values: columns that hold values whatever they are named; rule: of what is found wrong.
    """
    by_role: dict[Role, list[str]] = {}
    units: dict[str, float | None] = {}
    kept = []
    for column in table.columns:
        role, unit = (None, None) if column in values or column.startswith("label:") else meaning(column)
        if role is None:
            kept.append(column)
        else:
            by_role.setdefault(role, []).append(column)
            units[column] = unit
    left_out = by_role.pop("other", [])
    placing = {role for role in by_role if role != "index"}
    if placing or len(by_role.get("index", ())) > 1:
        left_out += by_role.pop("index", [])
    elif not placing and any(_holds_times(table, column) for column in by_role.get("index", ())):
        # pandas writes an index of durations without a name.
        by_role["time"], placing = by_role.pop("index"), {"time"}
    if placing == {"duration"}:  # of something else
        kept += by_role.pop("duration")
        placing = set()
    if not placing and not by_role:
        _refuse_misspelt(kept, rule)
    ways: list[set[Role]] = [{"time"}, {"frame"}, {"time", "frame"}, {"start", "end"}, {"start", "duration"}]
    ways.append({"start", "end", "duration"})
    if (placing and placing not in ways) or any(len(columns) > 1 for columns in by_role.values()):
        problem = f"places its rows by {', '.join(c for columns in by_role.values() for c in columns)}"
        raise Refusal(rule, problem, "give one of: time; frame; start and end; none of them, with a row per frame")
    columns = {role: names[0] for role, names in by_role.items()}
    places = _places(table, columns, units, findings, rule)
    said = [f"{places.column} is {_words(places)}"] if places.way != "row" else ["row i is frame i"]
    if left_out or (placing == {"time", "frame"}):
        names = [*left_out, *([columns["frame"]] if placing == {"time", "frame"} else [])]
        said.append(f"left out: {', '.join(names)}")
    return replace(places, said=tuple(said), sure=_success(table, by_role)), kept


def _holds_times(table: Table, column: str) -> bool:
    """Whether a column holds durations, clock times or dates, whatever its name is."""
    cells = table.cells[column]
    if isinstance(cells, np.ndarray):
        return column in table.seconds
    first = next((cell for cell in cells if cell.lower() not in MISSING), "")
    return bool(_CLOCK.fullmatch(first) or _DATE.match(first))


def _success(table: Table, by_role: dict[Role, list[str]]) -> np.ndarray | None:
    """bool [rows]: where OpenFace followed a face, or py-feat found one; None where the table has no such column."""
    column = next((c for c in table.columns if _letters(c.casefold()) in ("success", "facescore")), None)
    if column is None or not {"time", "frame"} & by_role.keys():
        return None
    found: list[Finding] = []
    values = table.numbers(column, found, "table-number")
    return None if found else np.nan_to_num(values) > 0


def _words(places: Places) -> str:
    if places.way == "frame":
        return "the number of the frame"
    unit = _WORDS[places.unit] if places.unit else "seconds where they fit the clip, else milliseconds"
    return f"{'spans' if places.way == 'span' else 'time'} in {unit}"


def _places(
    table: Table,
    columns: dict[Role, str],
    units: dict[str, float | None],
    findings: list[Finding],
    rule: str,
) -> Places:
    if "start" in columns:
        first, unit = _times(table, columns["start"], units, findings, rule)
        last_column = columns.get("end") or columns["duration"]
        last, other = _times(table, last_column, units, findings, rule, open_end="end" in columns)
        if unit is not None and other is not None and unit != other:
            first, last, unit = first * unit, last * other, 1.0
        unit = unit or other
        if "end" not in columns:
            last = first + last
        return Places("span", first, last, unit, f"{columns['start']} to {last_column}")
    if "time" in columns:
        times, unit = _times(table, columns["time"], units, findings, rule)
        if "frame" in columns:
            _refuse_contradiction(times, _filled(table, columns["frame"], findings, rule), columns, rule)
        return Places("time", times, None, unit, columns["time"])
    for role in ("frame", "index"):
        if role in columns:
            return Places("frame", _filled(table, columns[role], findings, rule), column=columns[role])
    return Places()


def _times(
    table: Table,
    column: str,
    units: dict[str, float | None],
    findings: list[Finding],
    rule: str,
    *,
    open_end: bool = False,
) -> tuple[np.ndarray, float | None]:
    """float64 [rows] and the seconds of their unit: as the file, or the name of the column, says it."""
    cells = table.cells[column]
    if isinstance(cells, np.ndarray):
        if open_end and column in table.seconds:  # audformat leaves the end of a whole file out
            return np.where(np.isnan(cells), np.inf, cells), 1.0
        unit = 1.0 if column in table.seconds else units[column]
        return _filled(table, column, findings, rule), unit
    clocks = [bool(_CLOCK.fullmatch(cell)) for cell in cells]
    missing = [cell.lower() in MISSING for cell in cells]
    if any(clocks) and all(clock or gap for clock, gap in zip(clocks, missing, strict=True)):
        import pandas as pd  # slow to import, and few tables have clocks

        texts = [None if gap else cell.replace(",", ".") for cell, gap in zip(cells, missing, strict=True)]
        seconds = pd.Series(pd.to_timedelta(pd.Series(texts, dtype=object))).dt.total_seconds().to_numpy(np.float64)
        if open_end:
            return np.where(np.isnan(seconds), np.inf, seconds), 1.0
        return _without_gaps(seconds, table, column, findings, rule), 1.0
    date = next((at for at, cell in enumerate(cells) if _DATE.match(cell)), None)
    if date is not None:
        problem = f"line {table.lines[date]}: {column} is {cells[date][:40]!r}, a date"
        raise Refusal(rule, problem, "write seconds from the first frame of the clip")
    return _filled(table, column, findings, rule), units[column]


def _filled(table: Table, column: str, findings: list[Finding], rule: str) -> np.ndarray:
    return _without_gaps(table.numbers(column, findings, rule), table, column, findings, rule)


def _without_gaps(values: np.ndarray, table: Table, column: str, findings: list[Finding], rule: str) -> np.ndarray:
    """The values. Raises `Refusal` where a row does not say its place."""
    empty = np.flatnonzero(np.isnan(values))
    if empty.size and not any(finding.severity == "error" for finding in findings):
        problem = f"line {table.lines[int(empty[0])]} has no {column}{and_more(len(empty))}"
        raise Refusal(rule, problem, "every row says where it belongs")
    return values


def _refuse_contradiction(times: np.ndarray, frames: np.ndarray, columns: dict[Role, str], rule: str) -> None:
    """Times and numbers of frames of one table rise together, or one of the two is something else."""
    order = np.argsort(times, kind="stable")
    t, f = times[order], frames[order]
    span = t[-1] - t[0] if len(t) else 0.0
    line = f[0] + (t - t[0]) * ((f[-1] - f[0]) / span) if span else f
    if len(t) and not (np.abs(f - line) <= 1 + 0.01 * np.abs(line)).all():
        problem = f"places its rows by {columns['time']} and by {columns['frame']}, which do not rise together"
        raise Refusal(rule, problem, "keep the one that is right")


def _refuse_misspelt(columns: Sequence[str], rule: str) -> None:
    for column in columns:
        word = _letters(column.casefold())
        close = difflib.get_close_matches(word, _NEAR, n=1, cutoff=0.8)
        if close and len(columns) > 1 and abs(len(word) - len(close[0])) <= 1:
            raise Refusal(rule, f"has a column {column!r}, did you mean {close[0]!r}?", "rename it, or declare it")


def note_meanings(kind: str, taken: Sequence[tuple[str, str]], findings: list[Finding]) -> None:
    """A note for each way in which tables were read: (file, what was taken for what) of every table."""
    files: dict[str, list[str]] = {}
    for file, said in taken:
        files.setdefault(said, []).append(file)
    for said, where in files.items():
        more = f" (and {len(where) - 1} more)" if len(where) > 1 else ""
        remedy = "nothing to do if that is right; docs/manifest.md lists the names that are known"
        Report(where[0], findings).note("table-meaning", f"{kind}{more}: {said}", remedy)
