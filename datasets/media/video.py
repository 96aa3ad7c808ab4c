"""The pictures of a video, and when each is shown.

Everything else is put on the time axis of these frames. Frame i lasts from `times[i]` to `times[i] + 1 / fps`, and
its column of the spectrogram covers exactly that, so no rate, however odd, makes sound and picture drift apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.media.container import open_container
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.platform.core.errors import DataError


@dataclass(frozen=True)
class VideoFacts:
    """What a container says about its pictures, none of them decoded."""

    fps: float
    times: np.ndarray
    """float64 [frames]: when each frame is shown, in seconds after the first."""
    has_sound: bool

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


def probe(path: Path) -> VideoFacts:
    """Reads a video from end to end without decoding it.

    Raises `DataError` for a file that cannot be opened, has no pictures, or ends before its own index says.
    """
    remedy = "the file is damaged or was not copied whole; fetch it again"
    with open_container(path, "cannot be read as video", remedy) as container:
        if not container.streams.video:
            raise DataError(f"{path}: no video stream", "put the video itself there, not its sound")
        stream = container.streams.video[0]
        # Discarded: outside an edit list.
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if any(packet.is_corrupt for packet in packets) or len(packets) < stream.frames:
            raise DataError(f"{path}: cut short, {len(packets)} of {stream.frames} frames are there", remedy)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if not packets or fps <= 0:
            raise DataError(f"{path}: {len(packets)} frames at {fps:g} frames a second", remedy)
        times = _frame_times([p.pts for p in packets], float(stream.time_base), fps)
        return VideoFacts(fps, times, bool(container.streams.audio))


def _frame_times(stamps: list[int | None], tick: float, fps: float) -> np.ndarray:
    # Packets come in order of decoding, which is not that of showing where pictures refer to later ones.
    known = sorted(stamp for stamp in stamps if stamp is not None)
    # Where not every packet has a stamp, the rate is all there is.
    if len(known) < len(stamps):
        return np.arange(len(stamps)) / fps
    return (np.array(known, np.float64) - known[0]) * tick


def read_pictures(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Pictures of a video in order, with their number in `probe`'s times: uint8 [height, width, 3] each.

    A picture that cannot be decoded is left out, and those after it keep their numbers.
    """
    times = probe(path).times
    with open_container(path, "its pictures cannot be decoded", "the file is damaged; fetch it again") as container:
        stream = container.streams.video[0]
        # Clips are read by several processes at a time, so threads would only compete.
        stream.thread_type = "NONE"
        first: float | None = None
        for order, frame in enumerate(container.decode(stream)):
            number = order
            if frame.pts is not None:
                moment = float(frame.pts * stream.time_base)
                first = moment if first is None else first
                number = int(np.abs(times - (moment - first)).argmin())
            yield number, frame.to_ndarray(format="rgb24")
