"""Small JPEG files, decoded without Pillow's reader of files, which takes longer than its decoder.

The decoder is Pillow's own, so pictures are the same to the last bit. A file that is large, damaged, or has metadata or
a colour space that need the reader is left to it: only Pillow's reader refuses a file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_SUFFIXES = (".jpg", ".jpeg")
_BLOCK = 1 << 16
"""Bytes that Pillow gives its decoder at a time; a file that is smaller is decoded at once."""
_MOST_PIXELS = 1 << 24
"""A header that claims more pixels is left to Pillow's reader, before memory is taken for them."""
_BASELINE, _FRAMES = 0xC0, (0xC0, 0xC1, 0xC2)
"""Markers before the size of a baseline, extended or progressive picture."""
_RESTARTS, _TABLES = 0xDD, (0xC4, 0xDB, 0xDD, 0xFE)
"""Markers of Huffman and quantisation tables, of the interval of restarts, and of a comment."""
_JFIF, _SCAN = 0xE0, 0xDA
_MODES = {1: "L", 3: "RGB"}
"""How Pillow names pictures of so many components."""
_END = 0xD9
_MARKER = re.compile(rb"\xff[^\x00]")
"""In a scan, a byte 255 of the picture is followed by a zero, and a marker is not."""
_SCALE = 8
"""How many times smaller the check decodes a picture: libjpeg then computes one value of each block."""
_HEADERS = 4
"""Headers that the check remembers, as a folder may hold pictures of a few kinds."""


@dataclass(frozen=True)
class _Header:
    mode: str
    width: int
    height: int
    baseline: bool
    """Whether the picture is baseline and has no restarts, so that the end is the only marker after the header."""
    end: int
    """Where the scan begins."""


def decode_small(path: Path) -> Image.Image | None:
    """The picture as Pillow's reader decodes it, or None where that reader must open the file.

    Raises `OSError` where the file cannot be opened.
    """
    data = _content(path)
    header = _header(data)
    if header is None:
        return None
    return _decoded(header.mode, (header.width, header.height), data, header.mode, "")


class JpegCheck:
    """Checks that JPEG files are readable, and decodes one picture for each header instead of every picture.

    The pictures of a folder mostly have the same header. A decoder raises an error for an invalid header, a truncated
    file and an unexpected marker, but not for wrong bits of a scan. So a file is readable if it begins with a header of
    a picture that was decoded before, and the only marker after the header is that of the end.
    """

    def __init__(self) -> None:
        self._headers: tuple[bytes, ...] = ()

    def passes(self, path: Path) -> bool:
        """True if the file is readable; False where Pillow's reader must decide. Raises `OSError` as `open` does."""
        data = _content(path)
        for known in self._headers:
            if data.startswith(known):
                found = _MARKER.search(data, len(known))
                if found is not None and found.end() == len(data) and data[-1] == _END:
                    return True
        header = _header(data)
        if header is None:
            return False
        # The decoder reads every byte even so, and leaves most of the arithmetic out.
        size = -(-header.width // _SCALE), -(-header.height // _SCALE)
        if _decoded("L", size, data, "L", "", _SCALE, 0) is None:
            return False
        if header.baseline and data[: header.end] not in self._headers:
            self._headers = (data[: header.end], *self._headers[: _HEADERS - 1])
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


def _header(data: bytes) -> _Header | None:
    """The header of a picture of 8 bits in grey or colour; None for any other, or where it holds more than tables."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    mode, width, height, baseline, place = None, 0, 0, True, 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if marker == _SCAN:
            return _Header(mode, width, height, baseline, place + 2 + length) if mode is not None else None
        if marker in _FRAMES and mode is None:
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            mode = _MODES.get(data[place + 9])
            if mode is None or data[place + 4] != 8 or not 0 < width * height <= _MOST_PIXELS:
                return None
            baseline &= marker == _BASELINE
        elif marker == _JFIF:
            if length < 16 or data[place + 4 : place + 8] != b"JFIF":
                return None
        elif marker not in _TABLES:
            return None
        baseline &= marker != _RESTARTS
        place += 2 + length
    return None
