"""Transcripts: the words of a recording, each with the time at which it is said.

Read as they come:

    {"words": [{"word", "start", "end"}, ...]}                     the puppets' truth, and any list of words
    {"result": [{"word", "start", "end", "conf"}, ...]}            one answer of Vosk; a list of them, or one a line
    {"monologues": [{"terms": [{"text", "start", "end"}]}]}        what `vosk-transcriber` writes
    {"segments": [{"words": [{"word", "start", "end"}]}]}          Whisper with word times
    {"chunks": [{"text", "timestamp": [start, end]}]}              Transformers with return_timestamps="word"
    word,start,end                                                 a csv file with this header, more columns allowed

Recognisers leave single words without times, such as numbers that whisperX cannot align: such an entry is left out.
Times are seconds from the first picture of the video, which is sample 0 of `sound.read_sound`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfold.datasets.media.delimited_text import NotCells, read_text, split_cells
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.files import write_bytes
from crossfold.platform.core.yaml_files import parse_json, read_json_text

SUFFIXES = (".json", ".csv")
"""Of transcript files, in the order in which they are preferred."""
_TABLES = (".csv", ".tsv", ".txt")
_SUBTITLES = (".srt", ".vtt", ".ass", ".sbv")
_SHAPES = "a list of words, each with word, start and end, under `words`, `result`, `segments` or `monologues`"
_ROUNDED = 0.1  # seconds by which a recogniser may let a word begin before 0, or end before it begins
_SENTENCES = 0.2  # share of entries with a blank inside from which they are not words; `New York` may be one


@dataclass(frozen=True)
class Word:
    """One spoken word, with the sentence marks that belong to it; said in [start, end), in seconds."""

    text: str
    start: float
    end: float

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a word without letters")
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start <= self.end):
            raise ValueError(f"word {self.text!r} from {self.start:g} to {self.end:g} s: need 0 <= start <= end")


@dataclass(frozen=True)
class Transcript:
    """The words of a file, and what of it is no word with a time."""

    words: tuple[Word, ...]
    """In order of time; none where nothing is said."""
    left_out: tuple[str, ...] = ()
    """What is wrong with each entry that was left out, as `word 2 has no 'start'`."""


def read_transcript(path: Path) -> tuple[Word, ...]:
    """The words of `parse_transcript`."""
    return parse_transcript(path).words


def parse_transcript(path: Path) -> Transcript:
    """The words of a file, single entries without sense left out.

    Raises `DataError` that names the file and the entry, for a file that is no transcript, has times for sentences
    instead of words, or where more than half of the entries make no sense.
    """
    kind = path.suffix.lower()
    if kind in _SUBTITLES:
        raise _without_word_times(f"{path}: has the times of subtitles, not of words")
    entries = list(_csv_entries(path) if kind in _TABLES else _json_entries(path))
    words, left_out = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            words.append(_word(entry))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            left_out.append(f"word {number} {reason}")
    if len(left_out) > len(words):
        more = f", and {len(left_out) - 1} more of {len(entries)}" if len(left_out) > 1 else ""
        raise DataError(f"{path}: {left_out[0]}{more}", "correct this entry, or transcribe again, with word times")
    blanks = [word for word in words if re.search(r"\S[ \t]+\S", word.text)]
    if len(blanks) > _SENTENCES * len(words):
        problem = f"{path}: has no word times: {blanks[0].text[:40]!r} is one entry, and so are {len(blanks)} more"
        problem = problem if len(blanks) > 1 else problem.partition(", and so")[0]
        raise _without_word_times(problem)
    # Some files list one speaker after the other.
    return Transcript(tuple(sorted(words, key=lambda word: (word.start, word.end))), tuple(left_out))


def _without_word_times(problem: str) -> DataError:
    return DataError(problem, "transcribe again with times of words (Whisper: word_timestamps=True)")


def write_transcript(path: Path, words: Sequence[Word]) -> None:
    """Writes words as `read_transcript` reads them; the file appears whole or not at all."""
    entries = [{"word": word.text, "start": word.start, "end": word.end} for word in words]
    write_bytes(path, (json.dumps({"words": entries}, indent=1, ensure_ascii=False) + "\n").encode())


def _word(entry: Any) -> Word:
    if not isinstance(entry, Mapping):
        raise ValueError(f"is {str(entry)[:40]!r}, not an entry with word, start and end")
    text = entry["text"] if "text" in entry and "word" not in entry else entry["word"]
    if not isinstance(text, str):
        raise ValueError(f"is {str(text)[:40]}, not text")
    if isinstance(entry.get("timestamp"), list) and len(entry["timestamp"]) == 2:
        start, end = entry["timestamp"]
    else:
        start, end = entry["start"], entry["end"]
    start, end = _seconds(start), _seconds(end)
    # Recognisers round: a word may begin a little before the recording, or end a little before it begins.
    start = 0.0 if -_ROUNDED <= start < 0 else start
    end = start if start - _ROUNDED <= end < start else end
    return Word(text.strip(), start, end)


def _seconds(value: Any) -> float:
    if value is None or isinstance(value, bool):
        raise ValueError("has no time")
    return float(value)


def _csv_entries(path: Path) -> Iterator[Mapping[str, str]]:
    """The rows of a table, by the names in its first line."""
    try:
        cells = split_cells(read_text(path))
        header = [name.lower() for name in next(cells.lines, (0, []))[1]]
        if missing := {"word", "start", "end"} - set(header):
            raise DataError(f"{path}: its first line lacks {', '.join(sorted(missing))}", "begin with `word,start,end`")
        for _, row in cells.lines:
            named = dict(zip(header, row, strict=False))
            if cells.delimiter != ",":  # where commas part no cells, they may be those of numbers
                named |= {name: named[name].replace(",", ".") for name in ("start", "end") if name in named}
            if any(row):
                yield named
    except NotCells as error:
        raise DataError(f"{path}: {error.problem}", error.remedy) from None


def _json_entries(path: Path) -> list[Any]:
    try:
        text = read_json_text(path)
    except UserError as error:
        raise DataError(error.problem, error.remedy) from None
    if not text.strip():
        return []
    parsed = _parsed(path, text)
    if isinstance(parsed, Mapping) and isinstance(parsed.get("segments"), list):
        segments = [s for s in parsed["segments"] if isinstance(s, Mapping) and str(s.get("text", "")).strip()]
        if segments and not any(isinstance(s.get("words"), list) for s in segments) and not parsed.get("words"):
            problem = f"{path}: has no word times, only those of {len(segments)} segments"
            raise _without_word_times(problem)
    entries = _entries_of(parsed)
    if entries is None:
        raise DataError(f"{path}: holds no transcript", f"it should be {_SHAPES}")
    return entries


def _parsed(path: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as whole:
        try:
            return [parse_json(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise DataError(f"{path}: is not JSON ({whole})", f"it should be {_SHAPES}") from None


def _aligned(segment: Any) -> Any:
    """A segment; one that a recogniser found no words in is an entry without times, which is counted and left out."""
    if isinstance(segment, Mapping) and "text" in segment and "start" in segment and "words" not in segment:
        return {"words": [{"word": segment["text"]}] if str(segment["text"]).strip() else []}
    return segment


def _entries_of(value: Any) -> list[Any] | None:
    """The word entries of any of the known layouts; None where it is none of them."""
    if isinstance(value, list):
        parts = [_entries_of(item) for item in value]
        return None if None in parts else [entry for part in parts for entry in part or ()]
    if not isinstance(value, Mapping):
        return None
    for key in ("words", "result", "terms", "chunks"):
        if isinstance(value.get(key), list):
            return list(value[key])
    for key in ("segments", "monologues"):
        if isinstance(value.get(key), list):
            return _entries_of([_aligned(segment) for segment in value[key]])
    if "start" in value or "timestamp" in value:
        return [value]
    # Vosk answers a silence with a text that is empty, and no list of words.
    return [] if value.get("text") == "" else None
