"""Small JPEG files are decoded without Pillow's reader, to the same picture, and only that reader refuses a file."""

import io

import numpy as np
import pytest
from PIL import Image

from crossfold.datasets.corpora.media_checks import check_crops
from crossfold.datasets.media import crops, jpeg
from crossfold.datasets.media.crops import read_crop
from crossfold.datasets.media.jpeg import JpegCheck, decode_small
from crossfold.platform.core.errors import DataError

KINDS = {
    "colour": ("RGB", {}),
    "grey": ("L", {}),
    "every pixel in colour": ("RGB", {"subsampling": 0, "quality": 95}),
    "comment": ("RGB", {"comment": b"a crop"}),
    "restarts": ("RGB", {"restart_marker_blocks": 3}),
    "progressive": ("RGB", {"progressive": True}),
    "turned by its EXIF": ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    "four inks": ("CMYK", {}),
}
SMALL = list(KINDS)[:6]
DAMAGE = ("none", "cut", "cut, with an end", "byte", "header", "zeros", "bytes more", "bytes less", "marker", "tail")


def encoded(kind: str, generator: np.random.Generator, side: tuple[int, int] = (40, 56)) -> bytes:
    """A file whose picture is another each time."""
    mode, options = KINDS[kind]
    coarse = generator.integers(0, 256, (7, 5, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse, "RGBX").resize(side).convert("RGB").convert(mode).save(file, "jpeg", **options)
    return file.getvalue()


def damaged(content: bytes, how: str, generator: np.random.Generator) -> bytes:
    """The file after an accident at a place of its own each time."""
    at, byte = int(generator.integers(2, len(content) - 2)), generator.integers(0, 256, 20, np.uint8).tobytes()
    return {
        "none": content,
        "cut": content[:at],
        "cut, with an end": content[:at] + b"\xff\xd9",
        "byte": content[:at] + byte[:1] + content[at + 1 :],
        "header": content[: at % 600] + byte[:1] + content[at % 600 + 1 :],
        "zeros": content[:at] + bytes(40) + content[at + 40 :],
        "bytes more": content[:at] + byte + content[at:],
        "bytes less": content[:at] + content[at + 10 :],
        "marker": content[:at] + b"\xff" + bytes([0xC0 + byte[0] % 64]) + content[at + 2 :],
        "tail": content + byte,
    }[how]


def of_pillow(path) -> np.ndarray | None:
    """The picture in its own mode by Pillow's reader alone; None where it refuses the file."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError):
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_small_files_need_no_reader_and_all_are_the_same_picture(tmp_path, kind, monkeypatch):
    path = tmp_path / "00001.jpg"
    path.write_bytes(encoded(kind, np.random.default_rng(0)))
    right = {size: read_crop(path, "RGB", size) for size in (40, 48)}
    with Image.open(path) as image:
        expected = image.convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(right[48], np.asarray(expected))
    monkeypatch.setattr(crops, "open_picture", lambda path: pytest.fail("was opened by Pillow"))
    if kind in SMALL:
        np.testing.assert_array_equal(read_crop(path, "RGB", 40), right[40])
    else:
        assert decode_small(path) is None
        assert not JpegCheck().passes(path)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_is_taken_that_pillow_refuses(tmp_path, kind, how):
    """The check knows the header from whole files, and reads none of these to the end if it need not."""
    generator, path, check = np.random.default_rng(1), tmp_path / "00001.jpg", JpegCheck()
    for _ in range(30):
        path.write_bytes(encoded(kind, generator))
        assert check.passes(path) == (kind in SMALL)
        path.write_bytes(damaged(path.read_bytes(), how, generator))
        expected, found = of_pillow(path), decode_small(path)
        if found is not None:
            np.testing.assert_array_equal(np.asarray(found), expected)
        if check.passes(path):
            assert expected is not None
        elif kind in SMALL and how == "none":
            pytest.fail("whole, and left to Pillow")


def test_after_the_first_picture_of_a_folder_no_other_is_decoded(tmp_path, monkeypatch):
    generator = np.random.default_rng(2)
    for number in range(1, 9):
        (tmp_path / f"{number:05}.jpg").write_bytes(encoded("colour", generator))
    decoded, decode = [], jpeg._decoded
    monkeypatch.setattr(jpeg, "_decoded", lambda *given: decoded.append(given) or decode(*given))
    assert check_crops(tmp_path, 8, 0, tmp_path, decode=True) == []
    assert len(decoded) == 1
    # A picture of another size is decoded as well, and then each that is cut by one byte.
    (tmp_path / "00002.jpg").write_bytes(encoded("colour", generator, (64, 64)))
    for number in (4, 7):
        path = tmp_path / f"{number:05}.jpg"
        path.write_bytes(path.read_bytes()[:-1])
    found = check_crops(tmp_path, 8, 0, tmp_path, decode=True)
    assert [(finding.file, finding.rule) for finding in found] == [
        (name, "crop-readable") for name in ("00004.jpg", "00007.jpg")
    ]


def test_other_files_under_the_name_of_a_jpeg_are_read_or_refused_as_ever(tmp_path):
    path = tmp_path / "00001.jpg"
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(path, "png")
    assert read_crop(path).tolist() == np.full((48, 48), 90).tolist()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(path, "jpeg", quality=98)
    assert path.stat().st_size > 1 << 16
    assert decode_small(path) is None
    assert read_crop(path).shape == (48, 48)
    for content in (b"", b"\xff\xd8\xff", b"a text", b"\xff\xd8\xff\xda\x00"):
        path.write_bytes(content)
        assert not JpegCheck().passes(path)
        with pytest.raises(DataError, match=r"00001\.jpg: not a readable picture"):
            read_crop(path)
