"""The pictures of a video, and when each is shown.

Everything else is put on the time axis of these frames. Frame i lasts from `times[i]` to `times[i] + 1 / fps`, and
its column of the spectrogram covers exactly that, so no rate, however odd, makes sound and picture drift apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.media.container import decoded, ffmpeg_errors, import_av, open_container, pictures_of
from crossfold.datasets.media.stamps import read_stamps
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.platform.core.errors import DataError


@dataclass(frozen=True)
class VideoFacts:
    """What a container says about its pictures, none of them decoded."""

    fps: float
    times: np.ndarray
    """float64 [frames]: when each frame is shown, in seconds after the first."""
    sound: tuple[float, float] | None
    """Begin and end of its sound, in seconds after the first frame."""
    keyless: int = 0
    """Frames before the first key frame; without one they cannot be decoded."""
    missing: float = 0.0
    """Seconds by which its header says that it goes on."""

    @property
    def axis(self) -> TimeAxis:
        """A frame for each picture."""
        return TimeAxis(self.times, self.fps)

    @property
    def frames(self) -> int:
        """Pictures in the file."""
        return self.axis.frames

    @property
    def seconds(self) -> float:
        """From the begin of the first picture to the end of the last."""
        return self.axis.seconds

    @property
    def has_sound(self) -> bool:
        """Whether it has a sound track."""
        return self.sound is not None


def probe(path: Path) -> VideoFacts:
    """Reads a video from end to end without decoding it.

    Raises `DataError` for a file that cannot be opened, has no pictures, or ends before its own index says.
    """
    stamps = read_stamps(path)
    if not len(stamps.clock):
        raise DataError(f"{path}: no video stream", "put the video itself there, not its sound")
    return VideoFacts(stamps.fps, stamps.times, stamps.sound, stamps.keyless, stamps.missing)


def read_pictures(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Pictures of a video in order, upright, with their number in `probe`'s times: uint8 [height, width, 3] each.

    A picture that cannot be decoded is left out, and those after it keep their numbers.
    """
    return ((number, make()) for number, make in decode_pictures(path))


def decode_pictures(path: Path) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
    """As `read_pictures`, each picture as a function that makes it of what was decoded, for those who skip some."""
    stamps = read_stamps(path)
    damaged = (path, "its pictures cannot be decoded", "the file is damaged; fetch it again")
    convert = picture_converter()

    def made(frame: Any) -> np.ndarray:
        with ffmpeg_errors(*damaged):
            return shown(frame, tag, convert)

    with open_container(*damaged) as container:
        stream = pictures_of(container)
        if stream is None:
            return
        # Clips are read by several processes at a time, so threads would only compete.
        stream.thread_type = "NONE"
        tick, tag = float(stream.time_base), rotation_of(stream)
        number, lag = stamps.keyless - 1, None
        for frame in decoded(container, stream, keyless=stamps.keyless > 0):
            own = frame.dts if stamps.counted else frame.pts  # the one of decoding is that of the packet read last
            before, number = number, number + 1
            if own is not None:
                place = int(np.abs(stamps.clock - own * tick).argmin())
                if stamps.counted:
                    if lag is None:  # of a decoder that puts pictures in order
                        lag = place - number if stream.codec_context.has_b_frames else 0
                    number = max(number, place - lag)
                elif abs(stamps.clock[place] - own * tick) <= 1 / stamps.fps:
                    number = place
                else:  # shown at no time
                    number = before
                    continue
            if number < len(stamps.clock):
                yield number, partial(made, frame)


def shown(frame: Any, tag: str, convert: Any) -> np.ndarray:
    """A decoded frame of PyAV as it is to be shown: uint8 [height, width, 3].

    tag: `rotation_of` its stream; convert: a `picture_converter`.
    """
    return upright(convert.reformat(frame, format="rgb24").to_ndarray(), _orientation(frame, tag))


def picture_converter() -> Any:
    """What turns decoded frames into RGB; one for all pictures of a video, as a new one for each takes longer."""
    import_av()
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def rotation_of(stream: Any) -> str:
    """The tag `rotate` of a stream of PyAV, in degrees clockwise."""
    return str(stream.metadata.get("rotate", stream.metadata.get("ROTATE", "0")))


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """A picture [H, W, 3] as it is to be shown; matrix: (a, b, c, d), which takes x to a x + c y and y to b x + d y."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _orientation(frame: Any, tag: str) -> tuple[int, int, int, int]:
    """The display matrix of a picture; else what the tag `rotate` of older files says, in degrees clockwise."""
    if (matrix := frame.side_data.get("DISPLAYMATRIX")) is not None:
        values = np.frombuffer(bytes(matrix), np.int32)
        return int(values[0]), int(values[1]), int(values[3]), int(values[4])
    turned = {"90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0)}
    return turned.get(tag, (1, 0, 0, 1))
