"""What an avi cannot say: files in which it would put sound next to the wrong pictures are found and refused.

An avi has numbered chunks in place of time stamps. Its pictures lie on a grid, an empty chunk makes the one before it
longer, and nothing says that one stream begins later than the other. FFmpeg, though, writes packets in order of time,
so the order of the packets in its files shows which stream joined late.

P pictures, N packets of sound.
"""

from pathlib import Path

import numpy as np

from crossfold.platform.core.errors import DataError

_LONG_BEGIN = 2.5  # steps; one empty chunk after the first picture is the delay of an encoder of sound
_DELAYS = (1, 2)  # pictures by which encoders with B-frames put off the first; only decoding would say which
_ROUNDED_S = 0.005  # of the ticks of sound
_REMEDY = "make it again from the original as mp4 or mkv, which have time stamps"


def check_chunks(
    path: Path, pictures: np.ndarray, sound: np.ndarray, tick: float, *, later: bool, in_order: bool
) -> None:
    """Raises `DataError` where pictures and sound cannot be put together to half a frame.

    pictures: float64 [P], rising, the time of each chunk with a picture; sound: float64 [N, 2], the time of each packet
    and how many pictures stand before it in the file; all in seconds of the container's clock, as is `tick`, that of a
    chunk of pictures.
    later: whether pictures refer to later ones (B-frames); in_order: whether packets were written in order of time.
    """
    steps = np.diff(pictures)
    if not len(steps):
        return
    step = float(np.median(steps))
    if later and float(np.ptp(steps)) > tick / 2:
        problem = "has B-frames and empty chunks, so nothing says when its pictures are shown"
        raise DataError(f"{path}: {problem}", _REMEDY)
    if not len(sound):
        return
    if steps[0] > _LONG_BEGIN * step:
        problem = f"has no picture for {steps[0]:.2f} s after its first, which may be shown late as well as long"
        raise DataError(f"{path}: {problem}", _REMEDY)
    if len(steps) > 2 and steps[1:].min() > 1.5 * tick and np.ptp(steps[1:]) > tick / 2:
        problem = f"has a variable rate on a grid of {1 / tick:.4g} a second, so nothing says where its sound begins"
        raise DataError(f"{path}: {problem}", _REMEDY)
    shift = _shift(pictures, sound, [delay * step for delay in _DELAYS] if later else [0.0]) if in_order else 0.0
    if abs(shift) > step / 2:
        problem = f"has its sound {abs(shift):.2f} s {'later' if shift > 0 else 'earlier'} than an avi can say"
        remedy = f"{_REMEDY}, or move it: `ffmpeg -i FILE -itsoffset {shift:.3f} -i FILE -map 0:v -map 1:a NEW.mkv`"
        raise DataError(f"{path}: {problem}, by the order of its packets", _REMEDY if later else remedy)


def _shift(pictures: np.ndarray, sound: np.ndarray, expected: list[float]) -> float:
    """Seconds by which the sound is later than expected, at the least, where packets are in order of time.

    expected: delays of the sound that are in order, such as those of B-frames; the nearest one counts.
    """
    times, before = sound[:, 0], sound[:, 1].astype(np.int64)
    after = before > 1  # the place of the first picture is not sure
    low = float((pictures[before[after] - 1] - times[after]).max(initial=-np.inf))
    ahead = (before > 0) & (before < len(pictures))
    high = float((pictures[before[ahead]] - times[ahead]).min(initial=np.inf))
    if low > high + _ROUNDED_S:  # in no order
        return 0.0
    return min((max(low - delay, min(high - delay, 0.0)) for delay in expected), key=abs)
