"""A modality that is missing, noisy, frozen or shifted, on purpose and repeatably.

Damage depends on its kind, the modality and the clip, and on nothing else: all systems, folds and seeds see the same
one. It says which frame is shown in place of each, which frames are gone, and how much noise is added; what the frames
hold is read elsewhere. Strengths of one kind are nested: what a weaker one destroys, a stronger one destroys too.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore

BLOCK_SECONDS = 2.0
"""Length of a block that is missing as a whole."""

GREY = 127.5
"""One unit of noise on raw pixels: a standard deviation of 0.5 on [0, 1], as D6 normalises."""

NOISE_BLOCK = 32
"""Frames whose noise is drawn together, so that a window needs not that of its whole clip."""

KEPT_BLOCKS, KEPT_VALUES = 512, 256
"""Blocks of noise that a process keeps, and of how many values a frame at most: 16 MiB. Drawing them is slow, and each
strength, overlapping window and cell needs the same ones."""


@dataclass(frozen=True)
class Damage:
    """What happens to the n frames of one modality of one clip."""

    shown: np.ndarray
    """int64 [n]: the frame whose content stands at each frame."""
    gone: np.ndarray
    """bool [n]: nothing is there."""
    noise: float = 0.0
    """Standard deviations of noise on every frame."""

    @property
    def damaged(self) -> np.ndarray:
        """bool [n]: frames that differ from the clean clip."""
        differ: np.ndarray = (self.shown != np.arange(len(self.shown))) | self.gone | (self.noise > 0)
        return differ


def damage(kind: str, strength: float, *, modality: str, clip: str, frames: int, fps: float) -> Damage:
    """The damage of one clip; strength 0 is none. Units of `strength` depend on the kind (docs/results.md)."""
    return KINDS[kind](strength, _generator(kind, modality, clip), frames, fps)


def noise_of(modality: str, clip: str, frames: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise, float32 [n, *shape], of these frames of a clip (rising): the same for every strength."""
    noise = np.empty((len(frames), *shape), np.float32)
    block = frames // NOISE_BLOCK
    for number in np.unique(block):
        draw = _kept_block if math.prod(shape) <= KEPT_VALUES else _block
        drawn = draw(modality, clip, int(number), shape)
        noise[block == number] = drawn[frames[block == number] - number * NOISE_BLOCK]
    return noise


def _block(modality: str, clip: str, number: int, shape: tuple[int, ...]) -> np.ndarray:
    noise = _generator("noise", modality, clip, str(number)).standard_normal((NOISE_BLOCK, *shape), np.float32)
    noise.flags.writeable = False
    return noise


_kept_block = lru_cache(maxsize=KEPT_BLOCKS)(_block)


def _generator(*facts: str) -> np.random.Generator:
    # CRC and not `hash`, which differs from process to process.
    return np.random.default_rng([zlib.crc32(fact.encode()) for fact in facts])


def _missing(strength: float, rng: np.random.Generator, frames: int, fps: float) -> Damage:
    """Blocks of 2 s, in a random order of which the first `strength` are gone (the odd one by chance)."""
    block = np.arange(frames) // max(round(BLOCK_SECONDS * fps), 1)
    # The order is drawn for all blocks, so that a higher strength removes those of a lower one, and more.
    blocks = int(block[-1]) + 1
    rank, chance = rng.permutation(blocks), rng.random()
    return Damage(np.arange(frames), rank[block] < int(strength * blocks + chance))


def _noisy(strength: float, rng: np.random.Generator, frames: int, fps: float) -> Damage:
    return Damage(np.arange(frames), np.zeros(frames, np.bool_), strength)


def _frozen(strength: float, rng: np.random.Generator, frames: int, fps: float) -> Damage:
    """In each stretch of twice the hold, the value at a random onset of its first half is held."""
    hold, shown = round(strength * fps), np.arange(frames)
    for start in range(0, frames, 2 * hold) if hold else ():
        onset = start + int(rng.random() * hold)
        shown[onset : onset + hold] = min(onset, frames - 1)
    return Damage(shown, np.zeros(frames, np.bool_))


def _shifted(strength: float, rng: np.random.Generator, frames: int, fps: float) -> Damage:
    """The modality lags by `strength` seconds, or leads; the frame at the end is held."""
    shown = np.clip(np.arange(frames) - round(strength * fps), 0, frames - 1)
    return Damage(shown, np.zeros(frames, np.bool_))


KINDS: Mapping[str, Callable[[float, np.random.Generator, int, float], Damage]] = MappingProxyType(
    {"missing": _missing, "noisy": _noisy, "frozen": _frozen, "shifted": _shifted}
)
"""By name: (strength, generator, frames, frames per second) -> damage."""


class DamagedFrames:
    """One modality of a store with damaged clips, computed when rows are gathered; other clips stay as they are."""

    def __init__(self, store: FeatureStore, modality: str, fold: int, clips: Mapping[str, Damage]) -> None:
        """`fold`: whose features and statistics; `clips`: the damage of each."""
        self._store, self._modality = store, modality
        self._frames = store.features(modality, fold)
        self._statistics = store.normalisation(modality, fold)
        self._clips = clips
        self._spread: dict[str, np.float32] = {}
        self._shown = np.arange(store.frames)
        self._gone = np.zeros(store.frames, np.bool_)
        self.damaged = np.zeros(store.frames, np.bool_)
        """bool [N]: frames that differ from the clean store."""
        for name, hurt in clips.items():
            rows = store.rows(name)
            self._shown[rows] = rows.start + hurt.shown
            self._gone[rows] = hurt.gone
            self.damaged[rows] = hurt.damaged
        self.present = np.asarray(store.present(modality))[self._shown] & ~self._gone
        """bool [N]: whether the modality still has anything at the frame."""

    def take(self, indices: np.ndarray, axis: int = 0) -> np.ndarray:
        """Rows of the damaged modality, [*indices.shape, *frame shape], in the type of the store."""
        assert axis == 0
        # Each row once: windows overlap, and noise is slow to draw.
        rows, back = np.unique(indices.ravel(), return_inverse=True)
        values = self._frames.take(self._shown[rows], axis=0)
        for name, hurt in self._clips.items():
            span = self._store.rows(name)
            # `rows` rise, so those of a clip are neighbours.
            inside = slice(*np.searchsorted(rows, [span.start, span.stop]))
            if hurt.noise and inside.start < inside.stop:
                noise = noise_of(self._modality, name, rows[inside] - span.start, values.shape[1:])
                values[inside] = self._noisy(values[inside], noise, hurt.noise, name)
        values[self._gone[rows]] = 0
        taken: np.ndarray = values[back.ravel()].reshape(*indices.shape, *values.shape[1:])
        return taken

    def _noisy(self, values: np.ndarray, noise: np.ndarray, sigma: float, clip: str) -> np.ndarray:
        changed = values.astype(np.float32) + np.float32(sigma) * self._unit(values.dtype, clip) * noise
        if values.dtype == np.uint8:
            changed = np.clip(np.rint(changed), 0, 255)
        noisy: np.ndarray = changed.astype(values.dtype)
        return noisy

    def _unit(self, dtype: np.dtype[Any], clip: str) -> Any:
        """What noise of strength 1 is a standard deviation of."""
        if self._statistics is not None:
            return self._statistics.std
        if dtype == np.uint8:
            return np.float32(GREY)
        if clip not in self._spread:
            self._spread[clip] = np.float32(np.asarray(self._frames[self._store.rows(clip)], np.float32).std())
        return self._spread[clip]


def damaged_frames(
    store: FeatureStore, kind: str, strength: float, *, modality: str, fold: int, clips: Sequence[str]
) -> DamagedFrames:
    """One modality of the store with these clips damaged."""
    hurt = {
        name: damage(
            kind, strength, modality=modality, clip=name, frames=store.clip(name).frames, fps=store.clip(name).fps
        )
        for name in clips
    }
    return DamagedFrames(store, modality, fold, hurt)
