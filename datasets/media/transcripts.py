"""Transcripts: the words of a recording, each with the time at which it is said.

Read as they come:

    {"words": [{"word", "start", "end"}, ...]}                     the puppets' truth, and any list of words
    {"result": [{"word", "start", "end", "conf"}, ...]}            one answer of Vosk; a list of them, or one a line
    {"monologues": [{"terms": [{"text", "start", "end"}]}]}        what `vosk-transcriber` writes
    {"segments": [{"words": [{"word", "start", "end"}]}]}          Whisper with word times
    word,start,end                                                 a csv file with this header, more columns allowed

Times are seconds from the first picture of the video, which is sample 0 of `sound.read_sound`.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import DataError
from crossfold.platform.core.files import write_bytes

SUFFIXES = (".json", ".csv")
"""Of transcript files, in the order in which they are preferred."""
_SHAPES = "a list of words, each with word, start and end, under `words`, `result`, `segments` or `monologues`"


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


def read_transcript(path: Path) -> tuple[Word, ...]:
    """The words of a file in order of time; none where nothing is said.

    Raises `DataError` that names the file and the entry, for a file that is no transcript or a word without sense.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})", "write it again, in UTF-8") from None
    entries = _csv_entries(path, text) if path.suffix.lower() == ".csv" else _json_entries(path, text)
    words = []
    for number, entry in enumerate(entries, start=1):
        try:
            words.append(_word(entry))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{path}: word {number} {reason}", "correct this entry, or transcribe again") from None
    return tuple(sorted(words, key=lambda word: (word.start, word.end)))  # some files list one speaker after the other


def write_transcript(path: Path, words: Sequence[Word]) -> None:
    """Writes words as `read_transcript` reads them; the file appears whole or not at all."""
    entries = [{"word": word.text, "start": word.start, "end": word.end} for word in words]
    write_bytes(path, (json.dumps({"words": entries}, indent=1, ensure_ascii=False) + "\n").encode())


def _word(entry: Any) -> Word:
    if not isinstance(entry, Mapping):
        raise ValueError(f"is {entry!r}, not an entry with word, start and end")
    text = entry["text"] if "text" in entry and "word" not in entry else entry["word"]
    if not isinstance(text, str):
        raise ValueError(f"is {text!r}, not text")
    return Word(text.strip(), float(entry["start"]), float(entry["end"]))


def _csv_entries(path: Path, text: str) -> Iterator[Mapping[str, str]]:
    header, _, _ = text.partition("\n")
    # Tables of other tools come with semicolons or tabs, where commas are part of the words.
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    missing = {"word", "start", "end"} - {name.strip() for name in reader.fieldnames or ()}
    if missing:
        raise DataError(f"{path}: its first line lacks {', '.join(sorted(missing))}", "begin with `word,start,end`")
    for row in reader:
        yield {name.strip(): value for name, value in row.items() if isinstance(name, str) and value is not None}


def _json_entries(path: Path, text: str) -> list[Any]:
    if not text.strip():
        return []
    entries = _entries_of(_parsed(path, text))
    if entries is None:
        raise DataError(f"{path}: holds no transcript", f"it should be {_SHAPES}")
    return entries


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as whole:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise DataError(f"{path}: is not JSON ({whole})", f"it should be {_SHAPES}") from None


def _entries_of(value: Any) -> list[Any] | None:
    """The word entries of any of the known layouts; None where it is none of them."""
    if isinstance(value, list):
        parts = [_entries_of(item) for item in value]
        return None if None in parts else [entry for part in parts for entry in part or ()]
    if not isinstance(value, Mapping):
        return None
    for key in ("words", "result", "terms"):
        if isinstance(value.get(key), list):
            return list(value[key])
    for key in ("segments", "monologues"):
        if isinstance(value.get(key), list):
            return _entries_of(value[key])
    if "start" in value:
        return [value]
    # Vosk answers a silence with a text that is empty, and no list of words.
    return [] if value.get("text") == "" else None
