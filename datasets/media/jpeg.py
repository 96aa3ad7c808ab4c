"""Small plain JPEG files, decoded without Pillow's reader of files, which takes longer than its decoder.

The decoder is Pillow's own, so pictures are the same to the last bit. Whatever is not plain, or is damaged, is left to
Pillow's reader: what it refuses, and with which words, is decided there alone.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_SUFFIXES = (".jpg", ".jpeg")
_BLOCK = 1 << 16
"""Bytes that Pillow gives its decoder at a time; a file that is smaller is decoded at once."""
_MOST_PIXELS = 1 << 24
_BASELINE, _FRAMES = 0xC0, (0xC0, 0xC1, 0xC2)
"""Markers before the size of a baseline, extended or progressive picture."""
_RESTARTS, _TABLES = 0xDD, (0xC4, 0xDB, 0xDD, 0xFE)
"""Markers of Huffman and quantisation tables, of the interval of restarts, and of a comment."""
_JFIF, _SCAN = 0xE0, 0xDA
_MODES = {1: "L", 3: "RGB"}
"""How Pillow names pictures of so many components."""
_END = 0xD9
_MARKER = re.compile(rb"\xff[^\x00]")
_SHRUNK = 8
_PROVEN = 4


@dataclass(frozen=True)
class _Header:
    mode: str
    width: int
    height: int
    simple: bool
    """Whether one scan without restarts follows, if nothing but its end follows that."""
    end: int
    """Where the scan begins."""


def decode_plain(path: Path) -> Image.Image | None:
    """A picture as Pillow's reader decodes it; None for a file that this reader must decide about.

    Raises `OSError` where the file cannot be opened.
    """
    data = _content(path)
    header = _plain_header(data)
    if header is None:
        return None
    return _decoded(header.mode, (header.width, header.height), data, header.mode, "")


class PlainCheck:
    """Tells whether JPEG files can be decoded, most of them without decoding.

    Cameras and tools write the same header before all pictures of a folder. A decoder refuses a wrong header, a file
    that is cut, and a marker where none may be; wrong bits between header and end it takes for a picture. So where the
    header is one with which a picture was decoded, and no marker but that of the end follows it, nothing is refused.
    """

    def __init__(self) -> None:
        self._proven: tuple[bytes, ...] = ()

    def passes(self, path: Path) -> bool:
        """Whether it can be decoded for certain; else Pillow's reader must decide. Raises `OSError` as `open` does."""
        data = _content(path)
        for known in self._proven:
            if data.startswith(known):
                found = _MARKER.search(data, len(known))
                if found is not None and found.end() == len(data) and data[-1] == _END:
                    return True
        header = _plain_header(data)
        if header is None:
            return False
        # The decoder reads every byte even so, and leaves most of the arithmetic out.
        size = -(-header.width // _SHRUNK), -(-header.height // _SHRUNK)
        if _decoded("L", size, data, "L", "", _SHRUNK, 0) is None:
            return False
        if header.simple and data[: header.end] not in self._proven:
            self._proven = (data[: header.end], *self._proven[: _PROVEN - 1])
        return True


def _content(path: Path) -> bytes:
    """The bytes of a small JPEG file; none of any other."""
    if path.suffix.lower() not in _SUFFIXES:
        return b""
    with path.open("rb", buffering=0) as file:
        data = file.read(_BLOCK)
    return data if len(data) < _BLOCK else b""


def _decoded(mode: str, size: tuple[int, int], data: bytes, *arguments: str | int) -> Image.Image | None:
    try:
        return Image.frombytes(mode, size, data, "jpeg", *arguments)
    # A `TypeError` would come of a version of Pillow whose decoder takes other arguments.
    except (OSError, TypeError, ValueError):
        return None


def _plain_header(data: bytes) -> _Header | None:
    """The header of a picture of 8 bits in grey or colour, if it holds nothing but what these need."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    mode, width, height, simple, place = None, 0, 0, True, 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if marker == _SCAN:
            return _Header(mode, width, height, simple, place + 2 + length) if mode is not None else None
        if marker in _FRAMES and mode is None:
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            mode = _MODES.get(data[place + 9])
            if mode is None or data[place + 4] != 8 or not 0 < width * height <= _MOST_PIXELS:
                return None
            simple &= marker == _BASELINE
        elif marker == _JFIF:
            if length < 16 or data[place + 4 : place + 8] != b"JFIF":
                return None
        elif marker not in _TABLES:
            return None
        simple &= marker != _RESTARTS
        place += 2 + length
    return None
