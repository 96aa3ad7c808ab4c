"""Sound of wav and video files, and its log-mel spectrogram on the time axis of the video frames.

Every command imports this module, and SciPy takes longer to import than the command: so functions import it.
"""

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.media.container import decoded, import_av, open_container, sound_of
from crossfold.datasets.media.stamps import read_stamps

RATE = 16_000
"""Samples a second of all sound (D2)."""
MELS = 64
BAND_HZ = (125.0, 7500.0)
"""VGGish's mel bands, and the ends of the lowest and the highest."""
_WINDOW = 400
_FFT = 512
_FLOOR = 0.01  # of the magnitude, before the logarithm
_WINDOWS_A_FRAME = 4
_TICKS_S = 0.015  # half of a frame at 30 frames a second
_CHUNK = 2048  # frames that are transformed at a time
_SOUND_REMEDY = "the file is damaged; fetch or extract it again"

AUDIO_FRONT_END = {
    "kind": "log-mel",
    "version": 3,
    "rate": RATE,
    "mels": MELS,
    "window": _WINDOW,
    "fft": _FFT,
    "band_hz": list(BAND_HZ),
    "floor": _FLOOR,
    "windows_a_frame": _WINDOWS_A_FRAME,
}
"""Everything the numbers of `log_mel` depend on, for the store's manifest."""


def read_sound(path: Path, rate: int = RATE) -> np.ndarray | None:
    """Sound of a wav or video file: float32 [samples], mono, at `rate` Hz; None where there is no sound track.

    Sample 0 is time 0 of the file's stamps: its first picture, or its first sample where there are no pictures.
    """
    stamps = read_stamps(path)
    if stamps.sound is None:
        return None
    with open_container(path, "its sound cannot be decoded", _SOUND_REMEDY) as container:
        sound, own = _decode_sound(decoded(container, sound_of(container)), stamps.origin)
    return np.ascontiguousarray(resampled(sound, own, rate), np.float32)


def resampled(sound: np.ndarray, own: int, rate: int) -> np.ndarray:
    """Sound [samples] of `own` Hz at `rate` Hz."""
    if own == rate:
        return sound
    from scipy.signal import resample_poly

    converted: np.ndarray = resample_poly(sound, rate, own)
    return converted


def sound_seconds(path: Path) -> float | None:
    """When the sound of a file ends, in seconds after its time 0, nothing decoded; None where it has no sound track.

    Raises `DataError`.
    """
    stamps = read_stamps(path)
    return stamps.sound[1] if stamps.sound is not None else None


class SoundPlacement:
    """Decoded frames of sound as mono samples, each where its time stamp says; gaps are silent."""

    def __init__(self, origin: float) -> None:
        """`origin`: when sample 0 is heard, in seconds of the container's clock."""
        self.rate = RATE
        """Samples a second, of the first frame; a stream may change on its way."""
        self._origin = origin
        self._resamplers: dict[tuple[str, str, int], Any] = {}
        self._written, self._place, self._known, self._begun = 0, 0, False, False

    def add(self, frame: Any) -> list[np.ndarray]:
        """The samples, float32, that follow the earlier ones with this frame of PyAV."""
        parts: list[np.ndarray] = []
        if not self._known:
            self.rate, self._known = frame.sample_rate, True
        for time, samples in self._mono(frame):
            stamp = self._place if time is None else round((time - self._origin) * self.rate)
            # Time stamps are rounded to the container's ticks, so only a real gap or overlap moves what follows.
            if not self._begun or abs(stamp - self._place) > _TICKS_S * self.rate:
                self._place = stamp
            if self._place > self._written:
                parts.append(np.zeros(self._place - self._written, np.float32))
                self._written = self._place
            parts.append(samples[self._written - self._place :])
            self._written += len(parts[-1])
            self._place += len(samples)
            self._begun = True
        return parts

    def _mono(self, frame: Any) -> Iterator[tuple[float | None, np.ndarray]]:
        """When each piece of a frame is heard, in seconds of the container's clock, and its float32 [samples]."""
        kind, tick = (frame.format.name, frame.layout.name, frame.sample_rate), frame.time_base
        plain = kind[0] == "s16" and frame.layout.nb_channels == 1 and kind[2] == self.rate
        if plain and (tick.numerator, tick.denominator) == (1, self.rate):
            # As the resampler gives it, to the last bit, in a fifth of its time: wav files come in many small frames.
            yield frame.time, np.frombuffer(frame.planes[0], np.int16, frame.samples) * np.float32(2**-15)
            return
        if kind not in self._resamplers:
            self._resamplers[kind] = import_av().AudioResampler(format="fltp", rate=self.rate)
        for piece in self._resamplers[kind].resample(frame):
            yield piece.time, piece.to_ndarray().mean(0, dtype=np.float32)  # channels are averaged


def _decode_sound(frames: Iterable[Any], origin: float) -> tuple[np.ndarray, int]:
    """Mono samples from `origin` on, and their rate."""
    placement = SoundPlacement(origin)
    parts = [part for frame in frames for part in placement.add(frame)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), placement.rate


def frame_seconds(times: np.ndarray, fps: float) -> np.ndarray:
    """How long each frame is shown: float64 [frames], 1 / fps, and less where the next one comes sooner.

    In a video of variable rate, or with pictures dropped, the mean rate says little about a single frame. Stamps that
    a container rounds to milliseconds are no reason to cut a frame short.
    """
    lengths = np.full(len(times), 1 / fps)
    gaps = np.diff(times)
    lengths[:-1] = np.where(gaps < 0.9 / fps, np.maximum(gaps, 0), lengths[:-1])
    return lengths


def covered_frames(samples: int, times: np.ndarray, fps: float, rate: int = RATE) -> np.ndarray:
    """bool [frames]: whether sound of so many samples covers at least half of each frame."""
    there: np.ndarray = (times + 0.5 / fps) * rate <= samples
    return there


def log_mel(sound: np.ndarray | None, times: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel spectrum of each frame: float32 [frames, 64], and bool [frames] where there is sound at all.

    Four windows of 25 ms, spread from the frame's begin to its end, are averaged in power; where frames are shorter, so
    are the windows: none reaches into the next frame. Mel bands and floor are VGGish's. Silence is sound; a frame less
    than half of which the file covers has none, and its column is zero.
    """
    if sound is None:
        return np.zeros((len(times), MELS), np.float32), np.zeros(len(times), np.bool_)
    import scipy.fft

    window = min(_WINDOW, int(RATE / fps))
    lengths = frame_seconds(times, fps)
    spare = np.maximum(0.0, lengths - window / RATE)
    begins = times[:, None] + spare[:, None] * np.linspace(0, 1, _WINDOWS_A_FRAME)
    starts = np.rint(begins * RATE).astype(np.int64)
    padded = padded_to(sound, int(starts.max(initial=0)) + window)
    taper = hann(window)
    columns = np.empty((len(times), MELS), np.float32)
    for begin in range(0, len(times), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        windows = padded[starts[rows, :, None] + np.arange(window)] * taper
        for row in np.flatnonzero(lengths[rows] * RATE < window - 1):
            windows[row, :, round(lengths[begin + row] * RATE) :] = 0
        power = (np.abs(scipy.fft.rfft(windows, _FFT)) ** 2).mean(1)
        columns[rows] = np.log(np.sqrt(power) @ mel_bank_of_vggish() + _FLOOR)
    present = covered_frames(len(sound), times, fps)
    columns[~present] = 0  # zero is how the store marks what is absent
    return columns, present


def padded_to(sound: np.ndarray, samples: int) -> np.ndarray:
    """The sound and, after it, silence, so that it has `samples` samples or more."""
    return np.pad(sound, (0, max(0, samples - len(sound))))


def hann(length: int) -> np.ndarray:
    """float32 [length]: the periodic Hann window that spectrograms are tapered by."""
    from scipy.signal import get_window

    taper: np.ndarray = get_window("hann", length).astype(np.float32)
    return taper


@functools.cache
def mel_bank_of_vggish() -> Any:
    """Triangles from 125 to 7500 Hz, evenly spaced and straight in mel: sparse float64 [bins, mels]."""
    import scipy.fft

    low, high = 1127 * np.log1p(np.array(BAND_HZ) / 700)
    return triangles(1127 * np.log1p(scipy.fft.rfftfreq(_FFT, 1 / RATE) / 700), np.linspace(low, high, MELS + 2))


def triangles(bins: np.ndarray, corners: np.ndarray) -> Any:
    """Filters [bins, filters] that rise from each corner to the next and fall to the one after it."""
    import scipy.sparse

    rising = (bins[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
    # Sparse, so that no BLAS decides the last bit of a product.
    return scipy.sparse.csr_array(np.maximum(0, np.minimum(rising, falling)))
