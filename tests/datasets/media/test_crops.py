"""Pictures of a folder of crops by the number of their frame, however tools name them."""

import pytest

from crossfold.datasets.media.crops import crop_files

NAMES = {
    "Aff-Wild2": (["00001.jpg", "00003.jpg"], {1: "00001.jpg", 3: "00003.jpg"}),
    "no zeros, capitals": (["1.JPG", "10.JPG", "2.JPG"], {1: "1.JPG", 2: "2.JPG", 10: "10.JPG"}),
    "what systems add": (["00001.jpg", "._00001.jpg", "Thumbs.db", "00001.jpg~", "00001 (1).jpg"], {1: "00001.jpg"}),
    "OpenFace": (["frame_det_00_000001.bmp", "frame_det_00_000002.bmp"], {1: "frame_det_00_000001.bmp",
                                                                         2: "frame_det_00_000002.bmp"}),
    "FFmpeg": (["img_0001.png", "img_0012.png", "notes.txt"], {1: "img_0001.png", 12: "img_0012.png"}),
    "one letter": (["f1.webp"], {1: "f1.webp"}),
    "two kinds of one frame": (["00001.bmp", "00001.png"], {1: "00001.png"}),
    "two faces of OpenFace": (["frame_det_00_000001.bmp", "frame_det_01_000001.bmp"], {}),
    "another picture among them": (["img_0001.png", "cover.png"], {}),
    "only what a Mac adds": (["._1.jpg"], {}),
    "none": ([], {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_crops_are_known_by_their_numbers(tmp_path, kind):
    names, right = NAMES[kind]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert {number: path.name for number, path in crop_files(tmp_path).items()} == right
