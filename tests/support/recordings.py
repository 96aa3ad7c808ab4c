"""Small recordings in which one thing happens once, in any container and codec, at any rate, and cut in several ways.

A flash and a beep begin together and last. `record` encodes them and says when they happen in the file that it wrote,
counted from the first picture that is shown there.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

SOUND_RATE = 48_000
PICTURES, EVENT, GROUP = 60, 45, 12
"""Pictures of the source, the one at which it happens, and how many follow a key frame."""
CUTS = ("none", "key frame", "edit list", "inside a group", "sound joined late", "sound first")
"""`edit list`: stamps before 0, which mp4 and mov hide; `sound first`: the sound begins before the first key frame."""
RATES = ("25", "23.976", "variable")
LATE = Fraction(2, 5)
_SIDE = 64
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "2", "x264-params": "scenecut=0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "13", "svtav1-params": "scd=0:lp=1"},
    "mpeg4": {"sc_threshold": "1000000000"},
}


CORNERS = np.zeros((32, 64, 3), np.uint8)
"""A picture of four quarters: red, green, blue, white."""
CORNERS[:16, :32, 0] = CORNERS[:16, 32:, 1] = CORNERS[16:, :32, 2] = 250
CORNERS[16:, 32:] = 250


@dataclass(frozen=True)
class Recording:
    """What is true of a file that `record` wrote."""

    path: Path
    event: float
    """When the flash and the beep begin, in seconds after the first picture that is shown."""
    pictures: int
    """Pictures that are shown or that stand where undecodable ones are."""
    step: float
    """Seconds from one picture to the next, in the middle of the recording."""


@contextlib.contextmanager
def ordinary_priority() -> Iterator[None]:
    """Gives the thread its priority back: libsvtav1 makes the thread that calls it a real-time one, as root may.

    Whatever that thread begins later is real-time too; a browser was, and nothing else on the machine got time to run.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def times_of(rate: str) -> tuple[list[Fraction], Fraction]:
    """When each picture of the source is shown, and the tick in which these are whole numbers."""
    if rate == "variable":  # in steps that also fit the empty chunks of avi
        steps = [Fraction(ms, 1000) for ms in (40, 30, 60, 20, 50, 40, 30)]
        times = [Fraction(0)]
        while len(times) < PICTURES:
            times.append(times[-1] + steps[len(times) % len(steps)])
        return times, Fraction(1, 100)
    fps = Fraction(24000, 1001) if rate == "23.976" else Fraction(rate)
    return [number / fps for number in range(PICTURES)], 1 / fps


@ordinary_priority()
def record(
    path: Path, pictures: str, sound: str, *, rate: str = "25", cut: str = "none", delay: float = 0.0
) -> Recording:
    """Writes a recording with codecs of FFmpeg's names; delay: seconds by which the beep is late.

    Skips the test where PyAV or a codec is not there.
    """
    av = pytest.importorskip("av")
    times, tick = times_of(rate)
    with av.open(str(path), "w") as container:
        video = _stream(container, pictures, 1 / tick)
        video.width, video.height, video.pix_fmt = _SIDE, _SIDE, "yuv420p"
        video.codec_context.time_base, video.codec_context.gop_size = tick, GROUP
        video.options = _OPTIONS.get(pictures, {})
        track = _stream(container, sound, SOUND_RATE)
        track.layout = "mono"
        packets = _encoded_pictures(av, video, times, tick)
        keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
        order = sorted(packet.pts for packet in packets)
        key = next(stamp for stamp in keys if stamp >= order[GROUP]) if cut != "none" else order[0]
        first = order[order.index(key) + (5 if cut in ("inside a group", "edit list") else 0)]
        start = first * tick - order[0] * tick  # in the source
        begin = key if cut == "edit list" else first
        kept = [packet for packet in packets if packet.pts >= begin]
        heard = _encoded_sound(av, track, float(times[EVENT]) + delay, times[-1] + Fraction(1, 10))
        since = {"none": None, "sound first": start - LATE, "sound joined late": start + LATE}.get(cut, start)
        if cut == "edit list":
            since = (key - order[0]) * tick
        rest = [p for p in heard if since is None or p.pts * p.time_base >= since]
        offset = 0 if cut == "none" else start if cut == "edit list" else min(start, since)
        both = [(p, offset) for p in kept] + [(p, offset) for p in rest]
        for packet, shift in sorted(both, key=lambda pair: float((pair[0].dts or 0) * pair[0].time_base - pair[1])):
            ticks = round(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
            container.mux(packet)
    hidden = path.suffix in (".mp4", ".mov") and cut == "edit list"
    shown = start if hidden or cut != "edit list" else (key - order[0]) * tick
    count = sum((stamp - order[0]) * tick >= shown for stamp in order)
    return Recording(path, float(times[EVENT] - shown), count, float(times[EVENT] - times[EVENT - 1]))


@ordinary_priority()
def write_pictures(
    path: Path, codec: str, *, times=None, tick=None, rate=25, options=None, turn=None, tag=None, picture=None
) -> None:
    """Writes pictures at `times`, by default 50 at 25 a second; every one is `picture`, or a shade of its own.

    turn, tag: the orientation, as a display matrix of FFmpeg or as the tag `rotate`.
    """
    av = pytest.importorskip("av")
    times = times or [Fraction(number, 25) for number in range(50)]
    tick = tick or next(t for t in (Fraction(1, 1000), Fraction(1, 30_000), Fraction(1, 24_000)) if not times[1] % t)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = _stream(container, codec, rate)
        stream.height, stream.width = picture.shape[:2] if picture is not None else (96, 128)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base, stream.codec_context.gop_size = tick, GROUP
        stream.options = _OPTIONS.get(codec, {})
        if turn is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a display matrix")
            stream.set_display_rotation(*turn)
        if tag is not None:
            stream.metadata["rotate"] = tag
        for number, time in enumerate(times):
            shade = np.full((stream.height, stream.width, 3), 20 + 4 * number % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(shade if picture is None else picture)
            frame.pts, frame.time_base = int(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sound(path: Path, codec: str, rate: int, seconds: float, **options: str) -> None:
    """Writes a tone; options: of the container."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options) as container:
        stream = _stream(container, codec, rate)
        stream.layout = "mono"
        container.mux(_encoded_sound(av, stream, 0.0, seconds, rate))


def _stream(container, codec, rate):
    try:
        return container.add_stream(codec, rate=rate)
    except (ValueError, LookupError) as error:
        pytest.skip(f"this PyAV has no {codec}: {error}")


def _encoded_pictures(av, stream, times, tick):
    packets = []
    for number, time in enumerate(times):
        noise = np.random.default_rng(number).integers(0, 9, (_SIDE, _SIDE, 3))
        frame = av.VideoFrame.from_ndarray((noise + (220 if number >= EVENT else 30)).astype(np.uint8))
        frame.pts, frame.time_base = int(time / tick), tick
        packets += stream.encode(frame)
    return packets + stream.encode()


def _encoded_sound(av, stream, event, length, rate=SOUND_RATE):
    time = np.arange(int(length * rate)) / rate
    wave = np.where(time >= event, 0.6 * np.sin(2 * np.pi * 1000 * (time - event)), 0)
    stream.codec_context.open()
    kind = stream.codec_context.format.name
    resampler = av.AudioResampler(
        format=kind, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size or 960
    )
    packets = []
    for place in range(0, len(wave), 960):
        piece = wave[None, place : place + 960].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
        for fitting in resampler.resample(frame):
            packets += stream.encode(fitting)
    for fitting in resampler.resample(None):
        packets += stream.encode(fitting)
    return packets + stream.encode()
