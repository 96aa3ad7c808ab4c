"""Pictures and sound of a recording that still grows: a file that a program writes, a pipe, or standard input.

Nothing is read twice and nothing is sought, so what was read is known before the end of the file is. Its rate is that
of its header which the first pictures confirm, else theirs: `stamps.py` has the stamps of all, which may have another
mean.

S samples.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from crossfold.datasets.media.container import import_av, pictures_of, reason_of, sound_of
from crossfold.datasets.media.sound import SoundPlacement, resampled
from crossfold.datasets.media.video import picture_converter, rotation_of, shown
from crossfold.platform.core.errors import DataError

_FORMATS = (
    "record in a format that is written from its begin to its end: MPEG-TS, Matroska, wav, or fragmented mp4 "
    "(`ffmpeg ... -movflags frag_keyframe+empty_moov`)"
)
_FIRST = 10  # pictures by which the rate is known
_SAME_RATE = 0.02  # a rate of the header is believed where it is that close to theirs
_FILTER = 10  # zero crossings on each side of the filter that resamples; scipy's default


_Step = list[tuple[float, np.ndarray]]


class GrowingFile:
    """A file that may grow: where nothing is left to read, it waits for more. FFmpeg reads it like a pipe."""

    def __init__(self, file: BinaryIO, wait: Callable[[], bool]) -> None:
        """file: unbuffered. wait: called where nothing is left to read; false where nothing more will come."""
        self._file = file
        self._ahead = b""
        self._wait = wait

    def begins_with(self, mark: bytes) -> bool:
        """Whether these are the next bytes; they are still there to be read."""
        while len(self._ahead) < len(mark) and (more := self._read(len(mark) - len(self._ahead))):
            self._ahead += more
        return self._ahead == mark

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._read(size)

    def _read(self, size: int) -> bytes:
        while not (data := self._file.read(size)) and self._wait():
            pass
        return data


class GrowingSound:
    """The sound of a recording so far, from its time 0 on; what is no longer needed can be forgotten."""

    def __init__(self, origin: float) -> None:
        """`origin`: time 0 in seconds of the container's clock."""
        self._placement = SoundPlacement(origin)
        self._samples = np.zeros(0, np.float32)
        self._begin = 0  # second of the first sample that is kept
        self.ended = False
        """Whether nothing more will come."""

    def add(self, frame: Any) -> None:
        """A decoded frame of PyAV, at its stamp; a gap before it is silent."""
        self._samples = np.concatenate([self._samples, *self._placement.add(frame)])

    def known(self, rate: int) -> float:
        """Up to which second `since` gives samples."""
        own = self._placement.rate
        return self._begin + len(self._samples) / own - (0.0 if self.ended else self._unsettled(rate) / rate)

    def since(self, second: int, rate: int) -> np.ndarray:
        """float32 [S] at `rate` Hz from a whole second on; no later sample changes them. Equal to those of the file."""
        own = self._placement.rate
        # The filter needs what lies before; a whole second of it keeps both rates in step.
        lead = min(1, second - self._begin) if own != rate else 0
        sound = resampled(self._samples[(second - lead - self._begin) * own :], own, rate)
        return sound[lead * rate : len(sound) - (0 if self.ended else self._unsettled(rate))]

    def forget(self, second: int) -> None:
        """Drops what `since` does not need for this second and later ones."""
        gone = max(0, second - 1 - self._begin)
        self._samples = self._samples[gone * self._placement.rate :]
        self._begin += gone

    def _unsettled(self, rate: int) -> int:
        """Samples at the end that the filter will change when more comes."""
        own = self._placement.rate
        return math.ceil(_FILTER * max(own, rate) / own) + 1 if own != rate else 0


class GrowingRecording:
    """A recording that is decoded while it grows."""

    def __init__(self, file: GrowingFile, name: str) -> None:
        """Opens it, which waits until its streams are known. Raises `DataError` where that is impossible."""
        av = import_av()
        self.name = name
        try:
            # Sound without pictures would be read for seconds before FFmpeg believes what its header says.
            options = {"probesize": "32768"} if file.begins_with(b"RIFF") else {}
            self._container = av.open(file, mode="r", options=options)
        except av.error.FFmpegError as error:
            raise DataError(f"{name} cannot be followed ({reason_of(error)})", _FORMATS) from None
        self._pictures, self._track = pictures_of(self._container), sound_of(self._container)
        if self._pictures is None and self._track is None:
            raise DataError(f"{name} holds neither pictures nor sound", _FORMATS)
        self.sound: GrowingSound | None = None
        """None where there is no sound track, and before time 0 is known."""
        self.fps = 0.0
        """Pictures a second; 0 where there are none."""
        self._steps, self._first = self._decoded(), list[_Step]()
        if self._pictures is not None:
            self._pictures.thread_type = "NONE"  # threads would hold pictures back
            self.fps = self._rate()

    @property
    def has_sound(self) -> bool:
        """Whether it has a sound track."""
        return self._track is not None

    def steps(self) -> Iterator[_Step]:
        """Decodes packet after packet, to the end; each gives the new pictures, uint8 [height, width, 3], with the
        seconds after the first at which they are shown. New sound goes to `sound`. Raises `DataError`.
        """
        while self._first:
            yield self._first.pop(0)
        yield from self._steps

    def _rate(self) -> float:
        """Pictures a second, of the first ones."""
        pictures: Any = self._pictures
        for step in self._steps:
            self._first.append(step)
            times = [time for each in self._first for time, _ in each]
            if len(times) > _FIRST:
                break
        stated = [pictures.average_rate, pictures.guessed_rate, pictures.base_rate]
        rates = [float(rate) for rate in stated if rate]
        if len(times) > 1:
            seen = 1 / float(np.median(np.diff(times)))
            return next((rate for rate in rates if abs(rate - seen) <= _SAME_RATE * seen), seen)
        if not rates:
            raise DataError(f"nothing says how many pictures a second {self.name} has", _FORMATS)
        return rates[0]

    def _decoded(self) -> Iterator[_Step]:
        av = import_av()
        streams = [stream for stream in (self._pictures, self._track) if stream is not None]
        early: list[Any] = []  # sound that comes before the first picture, which is time 0
        origin: float | None = None
        tag = rotation_of(self._pictures) if self._pictures is not None else "0"
        convert = picture_converter()
        try:
            for packet in self._container.demux(streams):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:  # damaged; those after it may be whole
                    continue
                pictures: list[tuple[float, np.ndarray]] = []
                for frame in frames:
                    # `frame.time` divides, and `stamps.py` multiplies, which may differ in the last bit.
                    time = frame.pts * float(packet.time_base) if frame.pts is not None else None
                    is_sound = packet.stream is self._track
                    if origin is None and time is not None and (not is_sound or self._pictures is None):
                        origin = time
                        self.sound = GrowingSound(origin) if self.has_sound else None
                        for waiting in early:
                            assert self.sound is not None
                            self.sound.add(waiting)
                    if is_sound and self.sound is None:
                        early.append(frame)
                    elif is_sound and self.sound is not None:
                        self.sound.add(frame)
                    elif time is not None and origin is not None:
                        pictures.append((time - origin, shown(frame, tag, convert)))
                yield pictures
        except av.error.FFmpegError as error:
            raise DataError(f"{self.name} cannot be followed further ({reason_of(error)})", _FORMATS) from None
        if origin is None:
            raise DataError(f"{self.name} ended before a picture or a sound of it could be decoded", _FORMATS)
        if self.sound is not None:
            self.sound.ended = True
