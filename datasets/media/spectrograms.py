"""Spectrogram front ends of the papers: one example of sound a video frame, on the video's own time axis.

Three families, each as its source computes it:

- VGGish log-mel (torchvggish and AudioSet): columns every 10 ms of the whole sound, an example of 96 of them
  begins at the column nearest to its frame. It looks 0.96 s ahead of the frame (D11).
- Decibel spectrograms: a segment that ends where its frame ends, so it looks at the past alone.
- MFCC: cepstra of the windows that begin in the frame, with first and second differences over frames.

Before the first and after the last sample is silence. A frame less than half of which the file covers has no sound,
and its example is zero (`sound.covered_frames`). Training imports this module and transforms no sound, so functions
import SciPy. T frames, M mel bands, C columns, S samples.
"""

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crossfold.datasets.media.sound import BAND_HZ, MELS, RATE, hann, mel_bank_of_vggish, padded_to, triangles

_CHUNK = 128  # examples that are transformed at a time
_WINDOW, _HOP, _FFT = 400, 160, 512
"""Samples of 25 ms and of 10 ms, and of the DFT, of VGGish's and the cepstra's windows at 16 kHz."""
_COLUMNS = 96  # of an example of VGGish, 0.96 s
_FLOOR = 0.01
_MFCC_MELS, _CEPSTRA, _MFCC_FLOOR = 40, 13, 1e-6
_REACH = 2  # neighbours on each side that a difference of cepstra is fitted to


@dataclass(frozen=True)
class Decibels:
    """A mel spectrogram in decibels of power: one-sided DFT, centred windows, triangles linear in hertz."""

    rate: int
    """Samples a second."""
    fft: int
    window: int
    hop: int
    mels: int
    columns: int
    floor: float = 1e-10
    """Least power, -100 dB."""

    @property
    def samples(self) -> int:
        """S, the length of a segment."""
        return (self.columns - 1) * self.hop

    def constants(self) -> dict[str, Any]:
        """What the numbers depend on, for the store's manifest."""
        return {"kind": "decibels", "version": 2, "place": "ends with the frame", **asdict(self)}


DECIBELS = {
    # 004: 5.12 s at 16 kHz, DFT 1024, window and shift 40 ms: 128 x 129 (D3).
    "spectrogram128": Decibels(rate=RATE, fft=1024, window=640, hop=640, mels=128, columns=129),
    # 004 as released: 8 sub-segments of 0.64 s a sequence, window 25 ms, shift 10 ms: 128 x 65 (D4).
    "spectrogram128x65": Decibels(rate=RATE, fft=1024, window=400, hop=160, mels=128, columns=65),
    # 003 and the JCA line: 44.1 kHz, DFT 1024, window 20 ms, shift 10 ms: 64 x 107, that is 32 frames at 30 fps (D1).
    "mel64x107": Decibels(rate=44_100, fft=1024, window=882, hop=441, mels=64, columns=107),
}

VGGISH = {
    "kind": "vggish log-mel",
    "version": 2,
    "rate": RATE,
    "fft": _FFT,
    "window": _WINDOW,
    "hop": _HOP,
    "mels": MELS,
    "band_hz": list(BAND_HZ),
    "floor": _FLOOR,
    "columns": _COLUMNS,
    "place": "begins at the column of 10 ms nearest to the frame",
}

MFCC = {
    "kind": "mfcc",
    "version": 2,
    "rate": RATE,
    "fft": _FFT,
    "window": _WINDOW,
    "hop": _HOP,
    "mels": _MFCC_MELS,
    "floor": _MFCC_FLOOR,
    "cepstra": _CEPSTRA,
    "differences": 2,
    "reach": _REACH,
}
MFCC_WIDTH = 3 * _CEPSTRA


class VggishSpectrum:
    """Log-mel columns of a whole sound, from which examples are cut."""

    def __init__(self, sound: np.ndarray) -> None:
        """`sound`: float32 [S] at 16 kHz. The columns are AudioSet's: whole windows only, magnitude, log(x + 0.01)."""
        import scipy.fft

        count = max(0, 1 + (len(sound) - _WINDOW) // _HOP)
        taper = hann(_WINDOW)
        self.columns = np.empty((count, MELS), np.float32)
        """float32 [C, 64], one every 10 ms."""
        for begin in range(0, count, _CHUNK * 16):
            rows = np.arange(begin, min(count, begin + _CHUNK * 16))
            windows = sound[rows[:, None] * _HOP + np.arange(_WINDOW)] * taper
            self.columns[rows] = np.log(np.abs(scipy.fft.rfft(windows, _FFT)) @ mel_bank_of_vggish() + _FLOOR)

    def examples(self, times: np.ndarray) -> np.ndarray:
        """float16 [T, 96, 64] for frames shown at `times` seconds; what lies beyond the sound is silence."""
        picks = np.rint(times * (RATE / _HOP)).astype(np.int64)[:, None] + np.arange(_COLUMNS)
        inside = (picks >= 0) & (picks < len(self.columns))
        cut = np.full((*picks.shape, MELS), np.log(np.float32(_FLOOR)), np.float32)
        cut[inside] = self.columns[picks[inside]]
        return cut.astype(np.float16)


def decibels(sound: np.ndarray, ends: np.ndarray, kind: Decibels) -> np.ndarray:
    """float16 [T, M, C]: the spectrogram of the segment that ends with each frame, in decibels of power.

    `ends`: float64 [T], when each frame is over, in seconds: its time and `sound.frame_seconds`.
    `sound`: float32 [S] at `kind.rate`. Windows that reach over an end of the segment see it mirrored.
    """
    import scipy.fft

    stops = np.rint(ends * kind.rate).astype(np.int64)
    # Silence before the first sample makes the end of a segment the index of its begin.
    padded = np.pad(padded_to(sound, int(stops.max(initial=0))), (kind.samples, 0))
    taper = hann(kind.window)
    # The window stands in the middle of the DFT, as in torch's stft.
    lead = (kind.fft - kind.window) // 2
    starts = np.arange(kind.columns) * kind.hop + lead
    bank = _hertz_bank(kind.rate, kind.fft, kind.mels)
    examples = np.empty((len(ends), kind.mels, kind.columns), np.float16)
    for begin in range(0, len(ends), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        segments = padded[stops[rows, None] + np.arange(kind.samples)]
        mirrored = np.pad(segments, ((0, 0), (kind.fft // 2, kind.fft // 2)), mode="reflect")
        # One column at a time: all windows of a chunk at once would be a hundred times its sound.
        for column, start in enumerate(starts):
            power = np.abs(scipy.fft.rfft(mirrored[:, start : start + kind.window] * taper, kind.fft)) ** 2
            examples[rows, :, column] = 10 * np.log10(np.maximum(power @ bank, kind.floor))
    return examples


def mfcc(sound: np.ndarray, times: np.ndarray, fps: float) -> np.ndarray:
    """float32 [T, 39]: 13 cepstra, the mean of the windows that begin in a frame, and two differences over frames."""
    import scipy.fft

    count = max(1, int(round(1e6 / fps) // 10_000))
    starts = np.rint(times * RATE).astype(np.int64)[:, None] + np.arange(count) * _HOP
    padded = padded_to(sound, int(starts.max(initial=0)) + _WINDOW)
    taper = hann(_WINDOW)
    bank = _hertz_bank(RATE, _FFT, _MFCC_MELS)
    static = np.empty((len(times), _CEPSTRA), np.float64)
    for begin in range(0, len(times), _CHUNK * 16):
        rows = slice(begin, begin + _CHUNK * 16)
        windows = padded[starts[rows, :, None] + np.arange(_WINDOW)] * taper
        power = np.abs(scipy.fft.rfft(windows, _FFT)) ** 2
        mel = np.log(power.reshape(-1, power.shape[-1]) @ bank + _MFCC_FLOOR)
        cepstra = scipy.fft.dct(mel, norm="ortho", axis=-1)[:, :_CEPSTRA]
        static[rows] = cepstra.reshape(-1, count, _CEPSTRA).mean(1)
    first = differences(static)
    return np.concatenate([static, first, differences(first)], axis=1).astype(np.float32)


def differences(rows: np.ndarray, reach: int = _REACH) -> np.ndarray:
    """Slope of the line through 2 reach + 1 neighbours, of [T, D]; the ends repeat."""
    if not len(rows):
        return rows
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    steps = range(1, reach + 1)
    count = len(rows)
    slope = sum(n * (padded[reach + n : reach + n + count] - padded[reach - n : reach - n + count]) for n in steps)
    scaled: np.ndarray = slope / (2 * sum(n * n for n in steps))
    return scaled


@functools.cache
def _hertz_bank(rate: int, fft: int, mels: int) -> Any:
    """Triangles from 0 to half the rate, corners evenly spaced in HTK mel, sides linear in hertz: [bins, mels]."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    return triangles(np.linspace(0, rate // 2, fft // 2 + 1), corners)
