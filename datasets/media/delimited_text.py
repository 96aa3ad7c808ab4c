"""The one reader of text in cells: csv files by whatever parts their cells, before it is asked what the cells mean.

Cells are parted by commas, semicolons, tabs or bars, whichever gives the first lines equally many cells, or by blanks
where there are none of these. Limits hold before memory is allocated.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crossfold.platform.core.yaml_files import decode_text

MOST_BYTES = 256 * 2**20
"""Of a table that is text."""
_LONGEST_CELL = 2**20  # characters
_DELIMITERS = ";\t|,"  # a comma comes last: next to the others it may be a decimal comma
_OTHERS = (
    (b"PK\x03\x04", "is a workbook of a spreadsheet, or a zip file", "save it as csv, in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "is a workbook of a spreadsheet", "save it as csv, in UTF-8"),
    (b"{", "is JSON, not a table", "write it as csv, with a row per entry"),
    (b"[{", "is JSON, not a table", "write it as csv, with a row per entry"),
    (b"<", "is a web page, or other text with marks, not a table", "fetch it again; a page may ask for a login"),
)
"""How files begin that people take for tables, what they are, and what to do."""
_HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # a first line that spreadsheets write
_TRIED = 20  # lines that settle what parts the cells
_PADDED = re.compile(r'[^\S\r\n]|"')  # without these no cell has blanks around it

Lines = Iterator[tuple[int, list[str]]]
"""Number of the line in the file, and its cells; the first is the header."""


class NotCells(Exception):
    """Text that is too large, or that cannot be read or parted, with (rule, problem, remedy)."""

    def __init__(self, rule: str, problem: str, remedy: str) -> None:
        super().__init__(rule, problem, remedy)
        self.rule, self.problem, self.remedy = rule, problem, remedy


@dataclass(frozen=True)
class TextCells:
    """A file of text, line by line."""

    lines: Lines
    """Reading them may raise `NotCells`."""
    delimiter: str
    named: bool = False
    """Whether the format itself says which line names the columns."""


def read_text(path: Path) -> str:
    """The text of a file, as `decode_text` has it. Raises `NotCells`."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            problem = f"has {size / 2**20:,.0f} MiB; a table of text may have {MOST_BYTES / 2**20:.0f}"
            raise NotCells("table-size", problem, "write it as parquet, or in parts")
        data = path.read_bytes()
        for begin, problem, remedy in _OTHERS:
            if data.startswith(begin):
                raise NotCells("table-readable", problem, remedy)
        text = decode_text(data)
        if "\0" in text:
            problem = "holds characters of code 0, as UTF-16 without a byte order mark does"
            raise NotCells("table-encoding", problem, "save it as text with encoding UTF-8")
        return text
    except UnicodeDecodeError as error:
        problem = f"is not {error.encoding.upper()} text (byte {error.start})"
        raise NotCells("table-encoding", problem, "save it as text with encoding UTF-8") from None
    except OSError as error:
        raise NotCells("table-readable", f"cannot be read ({error.strerror})", "fetch or write it again") from None


def split_cells(text: str) -> TextCells:
    """The lines of a text, each parted into its cells, without blanks around them.

    Empty lines at the begin, comments (`#`) above the names, and a first line `sep=;` are no lines of the table.
    """
    skipped = 0
    while text.startswith("\n"):
        skipped, text = skipped + 1, text[1:]
    first, end, rest = text.partition("\n")
    delimiter = None
    if hint := _HINT.fullmatch(first):
        text, delimiter, skipped = rest, hint[1], skipped + 1
    while text.startswith("#"):
        first, end, rest = text.partition("\n")
        head, below = (TextCells(_lines(part, 0, d), d) for part in (first[1:], rest) for d in (_parts(rest),))
        names, row = next(head.lines, (0, []))[1], next(below.lines, (0, []))[1]
        if not rest.startswith("#") and len(names) == len(row) > 0 and (len(row) > 1 or " " not in names[0].strip()):
            # numpy.savetxt puts a mark of comments before the names of the columns.
            text = first[1:].lstrip() + end + rest
            break
        text, skipped = rest, skipped + 1
    delimiter = delimiter or _parts(text)
    return TextCells(_lines(text, skipped, delimiter), delimiter)


def _parts(text: str) -> str:
    """What parts the cells: that which gives the first lines equally many, and more than one."""
    sample = "\n".join(text[:65536].splitlines()[:_TRIED])
    for delimiter in _DELIMITERS:
        try:
            widths = {len(cells) for _, cells in _lines(sample, 0, delimiter) if any(cells)}
        except NotCells:
            continue
        if len(widths) == 1 and widths != {1}:
            return delimiter
    if not any(delimiter in sample for delimiter in _DELIMITERS):
        widths = {len(line.split()) for line in sample.splitlines() if line.strip()}
        if len(widths) == 1 and widths != {1}:
            return " "
    first = sample.partition("\n")[0]
    return max(_DELIMITERS, key=first.count)


def _lines(text: str, skipped: int, delimiter: str) -> Lines:
    csv.field_size_limit(_LONGEST_CELL)
    padded = _PADDED.search(text) is not None
    if delimiter == " ":  # any number of them, as in columns of equal width
        text = re.sub(r"[^\S\n]+$", "", text, flags=re.MULTILINE)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter == " ", strict=True)
    try:
        for cells in reader:
            yield reader.line_num + skipped, [cell.strip() for cell in cells] if padded else cells
    except csv.Error as error:
        if "field limit" in str(error):
            problem = f"line {reader.line_num + skipped}: a cell has more than {_LONGEST_CELL:,} characters"
        else:
            problem = f"is not a table ({error})"
        raise NotCells("table-readable", problem, "look for a quote that is opened and never closed") from None
