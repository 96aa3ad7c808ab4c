"""Kinds of media that people have: what `validate` says of each, and what its frames and its sound are.

A row is one kind: what is written, and the value, the warning or the error that is right.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from crossfold.datasets.corpora.manifest.reader import inspect_manifest
from crossfold.datasets.media.sound import RATE, read_sound
from crossfold.datasets.media.video import read_pictures
from tests.support.recordings import CORNERS, write_pictures, write_sound

SECONDS = 2


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    name: str
    write: object
    """Writes the file to a path."""
    frames: int | None = None
    """Frames of the clip; None where the file is refused."""
    fps: float = 25.0
    says: str = ""
    """Rule of the warning or of the error that there is."""


def pictures(codec="mpeg4", **options):
    return lambda path: write_pictures(path, codec, **options)


def sound(codec, rate=48_000, **options):
    return lambda path: write_sound(path, codec, rate, SECONDS, **options)


def wav(length, *, cut=0, before=b"", magic=b"RIFF"):
    """A wav file of two seconds whose header gives its sound so many bytes."""
    samples = (0.3 * 32767 * np.sin(np.arange(SECONDS * RATE) / 5)).astype("<i2").tobytes()
    head = magic + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + before + b"fmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16) + b"data" + struct.pack("<I", length)
    return lambda path: path.write_bytes((head + samples)[: len(head) + len(samples) - cut])


def changed(write, change):
    """Another file's bytes, changed."""

    def both(path):
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return both


def half(data):
    return data[: len(data) // 2]


WHOLE = 2 * SECONDS * RATE
BROWSER = [Fraction(round(1000 * k / 30) + (-4, 0, 5, 3)[k % 4] + 4, 1000) for k in range(60)]
UNEVEN = [Fraction(k, 25) + Fraction(k // 3, 20) for k in range(40)]
PAUSED = [Fraction(k, 25) + (3 if k > 20 else 0) for k in range(40)]
DS64 = b"ds64" + struct.pack("<IQQQI", 28, WHOLE + 80, WHOLE, SECONDS * RATE, 0)
LIVE = {"live": "1"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}

KINDS = [
    Kind("plain.mp4", pictures(), 50),
    Kind("fragmented.mp4", pictures(options=FRAGMENTED), 50),
    Kind("ntsc.mov", pictures(times=[k * Fraction(1001, 30000) for k in range(50)]), 50, 29.97),
    Kind("film.mkv", pictures(times=[k * Fraction(1001, 24000) for k in range(50)]), 50, 23.976),
    Kind("browser.webm", pictures("libvpx", times=BROWSER, rate=1000, options=LIVE), 60, 30),
    Kind("wrong-rate.mkv", pictures(times=[Fraction(k, 10) for k in range(30)]), 30, 10),
    Kind("uneven.mp4", pictures(times=UNEVEN), 40, 17.7, "variable-rate"),
    Kind("paused.avi", pictures(times=PAUSED, tick=Fraction(1, 25)), 40, 8.55, "variable-rate"),
    Kind("screen.webm", pictures("libvpx", times=UNEVEN, rate=1000), 40, 17.7, "variable-rate"),
    Kind("old.avi", pictures("msmpeg4v3", tick=Fraction(1, 25)), 50),
    Kind("camera.avi", pictures("mjpeg", tick=Fraction(1, 25)), 50),
    Kind("b-frames.avi", pictures("libx264", tick=Fraction(1, 25)), 50),
    Kind("phone.3gp", pictures("h263"), 50),
    Kind("windows.asf", pictures("wmv2"), 50),
    Kind("broadcast.ts", pictures("libx264"), 50),
    Kind("flash.flv", pictures("flv"), 50),
    Kind("joined.ts", changed(pictures("libx264"), lambda data: 2 * data), says="video-readable"),
    Kind(
        "jump.mkv",
        pictures(times=[Fraction(k, 25) + (5000 if k > 20 else 0) for k in range(40)]),
        says="video-readable",
    ),
    Kind("half.avi", changed(pictures(tick=Fraction(1, 25)), half), says="video-readable"),
    Kind("half.mp4", changed(pictures(options={"movflags": "faststart"}), half), says="video-readable"),
    Kind("half.mkv", changed(pictures(), half), 25, says="video-length"),
    Kind("text.mp4", lambda path: path.write_text("no video"), says="video-readable"),
    Kind("plain.wav", wav(WHOLE), 50),
    *(Kind(f"pipe-{n:x}.wav", wav(n), 50) for n in (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF)),
    Kind("pipe-list.wav", wav(0xFFFFFFFF, before=b"LIST" + struct.pack("<I", 6) + b"INFOab"), 50),
    Kind("large.wav", wav(0xFFFFFFFF, before=DS64, magic=b"RF64"), 50),
    Kind("half.wav", wav(WHOLE, cut=WHOLE // 2), says="sound-readable"),
    Kind("padded.mp3", sound("libmp3lame", 44_100), 50),
    Kind("no-header.mp3", sound("libmp3lame", 44_100, write_xing="0"), 50),
    Kind("raw.aac", sound("aac"), 50),
    Kind("itunes.m4a", sound("aac"), 50),
    Kind("streamed.m4a", sound("aac", **FRAGMENTED), 50),
    Kind("microphone.webm", sound("libopus", **LIVE), 50),
    Kind("messenger.ogg", sound("libopus"), 50),
    Kind("lossless.flac", sound("flac"), 50),
    Kind("telephone.amr", sound("amr_nb", 8_000), 50),
    Kind("tape.aiff", sound("pcm_s16be", 44_100), 50),
    Kind("broadcast.mp2", sound("mp2"), 50),
    Kind("half.flac", changed(sound("flac"), half), 20),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_media_is_read_or_refused_with_a_remedy(tmp_path, kind):
    path = tmp_path / kind.name
    kind.write(path)
    heard = path.suffix[1:] in ("wav", "mp3", "aac", "m4a", "ogg", "flac", "amr", "aiff", "mp2") or "micro" in kind.name
    column = "audio" if heard else "video"
    (tmp_path / "manifest.csv").write_text(
        f"clip,subject,partition,{column},rate,label:valence\n"
        f"a,a,train,{kind.name},{25 if heard else ''},0.1\nb,b,validation,{kind.name},{25 if heard else ''},0.2\n"
    )
    inspection = inspect_manifest(tmp_path, deep=True)
    ordinary = ("crops-there", "modality-there", "video-apart")
    rules = {f.rule: f for f in inspection.findings if f.rule not in ordinary}
    assert set(rules) == ({kind.says} if kind.says else set())
    assert all(finding.remedy for finding in rules.values())
    assert len(inspection.clips) == (0 if kind.frames is None else 2)
    for clip in inspection.clips:
        assert clip.info.frames == pytest.approx(kind.frames, abs=6 if "half" in kind.name else 2)
        assert clip.info.fps == pytest.approx(kind.fps, rel=0.01)
        if heard:
            assert len(read_sound(path)) / RATE == pytest.approx(clip.info.frames / 25, abs=0.15)
        else:
            numbers = [number for number, _ in read_pictures(path)]
            assert numbers == sorted(set(numbers))
            assert len(numbers) >= clip.info.frames - 1


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("turn", "corners"),
    [
        ((0, False, False), "RGBW"),
        ((90, False, False), "GWRB"),
        ((180, False, False), "WBGR"),
        ((270, False, False), "BRWG"),
        ((0, True, False), "GRWB"),
        ((0, False, True), "BWRG"),
        ((90, True, False), "WGBR"),
        ((90, False, True), "RBGW"),
    ],
)
def test_pictures_are_upright(tmp_path, suffix, turn, corners):
    """turn: degrees against the clock, then mirrored across and down, as FFmpeg's display matrix has it."""
    path = tmp_path / f"phone.{suffix}"
    write_pictures(path, "mpeg4", turn=turn, picture=CORNERS, times=[Fraction(0), Fraction(1, 25)])
    assert corners_of(path) == corners


@pytest.mark.parametrize(("tag", "corners"), [("90", "BRWG"), ("180", "WBGR"), ("270", "GWRB"), ("0", "RGBW")])
def test_the_tag_of_older_files_turns_them(tmp_path, tag, corners):
    path = tmp_path / "phone.mkv"
    write_pictures(path, "mpeg4", tag=tag, picture=CORNERS, times=[Fraction(0), Fraction(1, 25)])
    assert corners_of(path) == corners


def corners_of(path):
    """The colours of the four quarters of its first picture, row by row: red, green, blue or white."""
    _, picture = next(read_pictures(path))
    height, width = picture.shape[:2]
    spots = [picture[y, x] > 128 for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join({(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}[tuple(map(int, s))] for s in spots)
