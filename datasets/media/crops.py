"""Face crops as pictures on disk."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from crossfold.datasets.media.container import reason_of
from crossfold.datasets.media.jpeg import decode_small
from crossfold.platform.core.errors import DataError

MOST_PIXELS = 100_000_000
"""Of a picture; a file of some kilobytes may promise thousands of millions."""
_PICTURES = (".bmp", ".webp", ".jpg", ".jpeg", ".png")  # of two with one number, the later is taken
_NUMBERED = re.compile(r"([^.].*\D|[^.\d])(\d+)")
CROP = 48
"""Side of a face crop in pixels."""

Colour = Literal["L", "RGB"]


def crop_chunks(
    folder: Path, frames: int, colour: Colour, size: int, chunk: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops of a clip in order, at most `chunk` at a time: uint8 [n, size, size(, 3)], black where there is none.

    With each chunk goes bool [n]: where there is a crop. Raises `DataError` for a picture that cannot be read.
    """
    files = crop_files(folder)
    for begin in range(0, frames, chunk):
        count = min(chunk, frames - begin)
        crops = np.zeros((count, size, size, *((3,) if colour == "RGB" else ())), np.uint8)
        present = np.zeros(count, np.bool_)
        for index in range(count):
            if (path := files.get(begin + index + 1)) is not None:
                crops[index] = read_crop(path, colour, size)
                present[index] = True
        yield crops, present


def crop_files(folder: Path) -> dict[int, Path]:
    """Crops of a clip by frame number, 1-based as in their names; other files are not crops.

    Where no picture has a number for its name, one text before all the numbers is none of the name, as tools write it:
    `frame_det_00_000001.bmp` (OpenFace), `img_00001.png`.
    """
    # By name alone, because to compare whole paths takes ten times as long.
    named = sorted(folder.iterdir(), key=lambda path: path.name)
    pictures = [path for path in named if path.suffix.lower() in _PICTURES]
    if numbered := {int(path.stem): path for path in pictures if path.stem.isdecimal()}:
        return numbered
    parts = [match for path in pictures if (match := _NUMBERED.fullmatch(path.stem))]
    if len(parts) < len(pictures) or len({match[1] for match in parts}) != 1:
        return {}
    return {int(match[2]): path for match, path in zip(parts, pictures, strict=True)}


def open_picture(path: Path) -> Image.Image:
    """A picture before it is decoded. Raises `OSError` for one that would not fit into memory."""
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise OSError(f"too large: {error}") from None
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise OSError(f"too large: {image.width} x {image.height} pixels")
    return image


def read_crop(path: Path, colour: Colour = "L", size: int = CROP) -> np.ndarray:
    """One face crop: uint8 [size, size], with a last axis of 3 for `RGB`. Raises `DataError` if unreadable."""
    try:
        with decode_small(path) or open_picture(path) as image:
            picture = image.convert(colour)  # grey, palette and CMYK files become what was asked for
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(picture, np.uint8)
    # Pillow raises SyntaxError for some broken PNG files.
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable picture ({reason_of(error)})", "fetch the crop again, or delete it: no face there"
        ) from None
