"""The voice of a puppet: espeak-ng speaks sentences of our own, the emotion shapes how.

What is said follows the valence that the voice expresses; rate, pitch, range and loudness follow its arousal. The
emotion must also be heard beyond the words, so a slow filter adds what bodies do to voices: effort lifts level and
treble (arousal), a smile widens the mouth and lifts the 1.5-4 kHz region, a low mood darkens it (valence). A lie
trembles.

espeak-ng keeps its random state and its oscillators in static memory, so the same sentence sounds different each time.
In a freshly loaded library it does not: each phrase gets one (0.3 ms), and depends on text, voice and settings only.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from crossfold.datasets.corpora.embedded.latent_script import OTHER_SPEAKER, Array, Floats, LatentScript
from crossfold.datasets.media.transcripts import Word

SAMPLE_RATE = 16_000
"""Samples a second of everything this module returns."""

_VOICES = tuple(
    f"{accent}+{variant}"
    for variant in ("f2", "m3", "f4", "m1", "f3", "m7", "f1", "m2", "f5", "m4")
    for accent in ("en-us", "en-gb-x-rp", "en-gb-scotland")
)
_SENTENCES = Path(__file__).parent / "sentences.yaml"


@dataclass(frozen=True)
class Speech:
    """What was recorded of one voice."""

    samples: Array
    """float32 [round(frames / fps * SAMPLE_RATE)], in [-1, 1], after damage."""
    loudness: Array
    """float32 [frames], 0 silent .. 1 loud, before damage: it moves the mouth even when the microphone is dead."""
    words: tuple[Word, ...]
    """Words that can be heard: none in missing spans."""


def speak(script: LatentScript, rng: np.random.Generator) -> Speech:
    """Speak one clip: phrases chosen and voiced as `script` says, then damaged as its spans say."""
    length = round(script.frames / script.fps * SAMPLE_RATE)
    mute = script.damaged("audio", "missing")
    clean, words = _talk(script, rng, length)
    clean = _colour(clean, script)
    loudness = _loudness(clean, script)
    for span in script.spans:
        if span.detail == OTHER_SPEAKER:
            loudness[span.start : span.end] = 0.0
    # A faint room, so that pauses are not digital zeros but dropouts are.
    heard = clean + 0.0015 * rng.standard_normal(length)
    for span in script.spans:
        if span.modality != "audio":
            continue
        at = slice(*(min(length, round(f / script.fps * SAMPLE_RATE)) for f in (span.start, span.end)))
        heard[at] = _damage(heard[at], span.kind, span.detail, rng)
    last = script.frames - 1
    audible = tuple(w for w in words if not mute[min(last, int((w.start + w.end) / 2 * script.fps))])
    return Speech(np.clip(heard, -1.0, 1.0).astype(np.float32), loudness.astype(np.float32), audible)


def _talk(script: LatentScript, rng: np.random.Generator, length: int) -> tuple[Floats, list[Word]]:
    """Phrase after phrase until the clip is full: samples [length] and the words that fit whole."""
    voice = _VOICES[int(rng.integers(len(_VOICES)))]
    register = int(rng.integers(-8, 9))
    samples = np.zeros(length)
    words: list[Word] = []
    pools = list(_sentences().values())
    queues = [list(rng.permutation(len(pool))) for pool in pools]
    cursor = int(rng.uniform(0.05, 0.4) * SAMPLE_RATE)
    while cursor < length - SAMPLE_RATE // 5:
        frame = int(cursor / SAMPLE_RATE * script.fps)
        ahead = slice(frame, frame + max(1, round(1.8 * script.fps)))
        valence = float(script.voice_valence[ahead].mean())
        arousal = float(script.voice_arousal[ahead].mean())
        # People do not always say what they sound like: near the borders the choice is a draw.
        mood = int(np.searchsorted((-0.25, 0.25), valence + 0.12 * rng.standard_normal()))
        text = pools[mood][queues[mood][0]]
        queues[mood].append(queues[mood].pop(0))
        settings = {
            _RATE: round(172 + 48 * arousal),
            _PITCH: int(np.clip(48 + register + 24 * arousal + 4 * valence, 5, 95)),
            _RANGE: int(np.clip(48 + 24 * arousal + 22 * valence, 5, 95)),
        }
        phrase, starts = _synthesise(text, voice, settings)
        phrase = phrase[: length - cursor]
        samples[cursor : cursor + len(phrase)] += phrase
        offset = cursor / SAMPLE_RATE
        for i, (word, start) in enumerate(starts):
            end = starts[i + 1][1] if i + 1 < len(starts) else len(phrase) / SAMPLE_RATE
            if start < end and offset + end <= length / SAMPLE_RATE:
                words.append(Word(word, round(offset + start, 3), round(offset + end, 3)))
        pause = rng.uniform(0.12, 0.4) * (1 - 0.4 * arousal)
        cursor += len(phrase) + max(1, int(pause * SAMPLE_RATE))
    return samples, words


@functools.cache
def _sentences() -> dict[str, list[str]]:
    """What is said by the valence that the voice expresses, the lowest first."""
    sentences: dict[str, list[str]] = yaml.safe_load(_SENTENCES.read_text(encoding="utf-8"))
    return sentences


_FFT, _HOP = 512, 128


def _colour(samples: Floats, script: LatentScript) -> Floats:
    """Shape the spectrum over time by emotion, and let lies tremble. float64 [length] -> [length]."""
    length = len(samples)
    window = np.sqrt(np.hanning(_FFT + 1)[:-1])
    padded = np.pad(samples, (_FFT, _FFT + -length % _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP] * window
    spectrum = np.fft.rfft(frames, axis=1)
    centres = (np.arange(len(frames)) * _HOP - _FFT / 2) / SAMPLE_RATE
    when = (np.arange(script.frames) + 0.5) / script.fps
    valence = np.interp(centres, when, script.voice_valence)
    arousal = np.interp(centres, when, script.voice_arousal)
    tell = np.interp(centres, when, script.voice_tell)
    hertz = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(hertz, 60.0) / 1000.0)
    effort = 2.5 * np.clip(octave, -3, 3)  # dB per unit of arousal, on top of the level
    smile = 6.0 * np.exp(-(((octave - 1.3) / 0.7) ** 2)) - 4.5 * np.exp(-(((octave + 1.2) / 0.8) ** 2))
    tremble = 5.0 * tell * np.sin(2 * np.pi * 6.5 * centres)
    decibel = np.outer(arousal, effort) + np.outer(valence, smile) + (5.0 * arousal + tremble)[:, None]
    spectrum *= 10 ** (decibel / 20)
    frames = np.fft.irfft(spectrum, n=_FFT, axis=1) * window
    out = np.zeros(len(padded))
    for k in range(_FFT // _HOP):  # overlap-add, one phase of the hop at a time
        part = frames[k :: _FFT // _HOP].ravel()
        out[k * _HOP : k * _HOP + len(part)] += part
    return 0.18 * out[_FFT : _FFT + length] * (2 * _HOP / _FFT)


def _loudness(samples: Floats, script: LatentScript) -> Floats:
    """Loudness [frames] in 0..1: RMS of each video frame, softly compressed."""
    edges = np.minimum(len(samples), np.rint(np.arange(script.frames + 1) / script.fps * SAMPLE_RATE))
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])[edges.astype(int)]
    rms = np.sqrt(np.diff(energy) / np.maximum(1, np.diff(edges)))
    return np.asarray(np.clip((rms / 0.15) ** 0.6, 0.0, 1.0))


def _damage(x: Floats, kind: str, detail: str, rng: np.random.Generator) -> Floats:
    """One span of sound [n] as a bad recording has it."""
    if kind == "missing":
        return np.zeros_like(x)
    if kind != "corrupted":
        return x
    if detail == "noise":
        return 0.4 * x + 0.12 * rng.standard_normal(len(x))
    if detail == "hum":
        phase = 2 * np.pi * np.arange(len(x)) / SAMPLE_RATE
        hum = sum(np.sin(phase * f * float(rng.uniform(0.98, 1.02))) for f in (120, 240, 480, 960, 1920))
        return 0.3 * x + 0.07 * np.asarray(hum) + 0.05 * rng.standard_normal(len(x))
    return np.clip(30 * x + 0.2 * rng.standard_normal(len(x)), -0.3, 0.3)


# --- espeak-ng: constants and structures of its public C interface (speak_lib.h) -----------------------------------

_RATE, _PITCH, _RANGE = 1, 3, 4
_SYNCHRONOUS, _DONT_EXIT, _CHARS_UTF8, _POS_CHARACTER = 2, 0x8000, 1, 1
_EVENT_END, _EVENT_WORD = 0, 1


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@contextmanager
def _fresh_espeak() -> Iterator[tuple[Any, int]]:
    """A newly loaded espeak-ng and its sample rate; unloaded afterwards."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError("the puppets' voice needs espeak-ng: pip install 'crossfold[media]'") from error
    import _ctypes  # the only way to unload a library

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), _DONT_EXIT)
        if rate <= 0:
            raise RuntimeError(f"espeak-ng did not start (code {rate}); reinstall the package espeakng-loader")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        yield library, int(rate)
    finally:
        library.espeak_Terminate()
        if sys.platform == "win32":
            _ctypes.FreeLibrary(library._handle)
        else:
            _ctypes.dlclose(library._handle)


def _synthesise(text: str, voice: str, settings: dict[int, int]) -> tuple[Floats, list[tuple[str, float]]]:
    """Samples [n] at SAMPLE_RATE without leading and trailing silence, and each word with its start in seconds."""
    chunks: list[npt.NDArray[np.int16]] = []
    marks: list[tuple[int, int]] = []  # position in the text, position in the sound

    def collect(wave: Any, count: int, events: Any) -> int:
        if wave and count:
            chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END:
            if events[i].type == _EVENT_WORD:
                marks.append((events[i].text_position - 1, events[i].sample))
            i += 1
        return 0

    callback = _Callback(collect)
    with _fresh_espeak() as (library, rate):
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice!r}; reinstall the package espeakng-loader")
        for parameter, value in settings.items():
            library.espeak_SetParameter(parameter, value, 0)
        raw = text.encode()
        library.espeak_Synth(raw, len(raw) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    sound = np.concatenate(chunks).astype(np.float64) / 32768.0
    voiced = np.flatnonzero(np.abs(sound) > 0.005)
    first, last = (int(voiced[0]), int(voiced[-1]) + 1) if len(voiced) else (0, len(sound))
    from scipy.signal import resample_poly

    resampled = resample_poly(sound[first:last], SAMPLE_RATE, rate)
    return np.asarray(resampled, dtype=np.float64), _word_starts(text, marks, first, last, rate)


def _word_starts(text: str, marks: list[tuple[int, int]], first: int, last: int, rate: int) -> list[tuple[str, float]]:
    """Words with their start in seconds after sample `first`; what espeak runs together ("I am") is divided evenly."""
    starts: list[tuple[str, float]] = []
    marks = [mark for i, mark in enumerate(marks) if i == 0 or mark[0] > marks[i - 1][0]]
    for (at, sample), (next_at, next_sample) in zip(marks, [*marks[1:], (len(text), last)], strict=True):
        words = [clean for raw in text[at:next_at].split() if (clean := raw.strip(".,!?").lower())]
        begin, step = max(sample, first), max(0, next_sample - max(sample, first))
        starts += [(word, (begin - first + step * k / len(words)) / rate) for k, word in enumerate(words)]
    return starts
