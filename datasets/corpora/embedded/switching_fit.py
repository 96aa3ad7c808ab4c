"""A switching linear-Gaussian model of clips whose generator is no equation, fitted on training clips with their spans.

With s the label of one target, z_m what a linear probe of modality m (audio, visual) says of it, r the regime, which is
what is damaged, and u_audio, u_visual and s Gaussian processes over time with the correlations of the training clips:

    z_m(t) = b_m,r s(t + delay) + e_m(t),    e = L_r (u_audio, u_visual)

Probes are ridge regressions of frames at which their modality is not damaged. All else is measured on what probes say
of training clips to which they were not fitted, so that it is no better than on new clips. Time is in blocks of a few
frames, as many as the labels stay the same for.

B blocks, T targets, R regimes; the axis of modalities is that of `SENSES`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np
from scipy.linalg import toeplitz

from crossfold.datasets.corpora.clips import Span
from crossfold.datasets.corpora.embedded.episodes import SENSES, Floats, Regime

POOLED = -1
"""In place of a regime: all frames together, an absent modality at its mean."""
LEAST_CLIPS = 8
"""Training clips without which nothing can be fitted."""

_MOST_BLOCKS = 400  # longer clips are cut
_KEPT = 0.99  # share of the variance of the labels that their means over blocks keep
_MOST_BLOCK_FRAMES, _LONGEST_DELAY = 5, 25  # frames
_RIDGE = 0.01  # of the mean variance of a feature
_WIDEST = 128  # columns of features; of wider ones the first principal components
_PRIOR_BLOCKS = 20  # of good blocks, that the moments of a damaged regime are mixed with
_LEAST_BLOCKS = 10
_FOLDS = 4


@dataclass(frozen=True)
class ObservedClip:
    """What a store has of one clip of F frames."""

    features: Mapping[str, np.ndarray]
    """[F, width] of audio and of visual, of about unit variance."""
    present: Mapping[str, np.ndarray]
    """bool [F]."""
    labels: np.ndarray
    """[F, T]; not a number where there is none."""
    spans: Sequence[Span]


@dataclass(frozen=True)
class Blocks:
    """A clip or a part of one, in blocks of a few frames."""

    frames: int
    features: tuple[Floats, Floats]
    there: np.ndarray
    """bool [B, 2]: whether a modality is present in most of a block."""
    labels: Floats
    """[B, T]; not a number where there is none."""
    regimes: np.ndarray
    """int64 [B]."""


@dataclass(frozen=True)
class Shown:
    """What probes say of the blocks of a clip."""

    blocks: Blocks
    z: Floats
    """[B, T, 2]: of the labels."""
    damage: tuple[Floats, Floats]
    """[B, kinds] of audio and of visual: of each kind of damage that the modality has in training."""


@dataclass(frozen=True)
class Cutting:
    """How clips become blocks."""

    size: int
    """Frames of a block."""
    length: int
    """Most blocks of a part."""
    grid: int
    """Regimes change at multiples of so many blocks."""
    regimes: tuple[Regime, ...]
    """The first is good."""
    mean: Floats
    """Mean label [T]."""
    project: tuple[Callable[[np.ndarray], Floats], ...]
    """Features of audio and of visual -> at most `_WIDEST` columns."""

    @classmethod
    def of(cls, clips: Sequence[ObservedClip]) -> "Cutting":
        """What suits these training clips."""
        found = sorted({Regime(span.kind, span.modality) for clip in clips for span in clip.spans})
        labels = np.concatenate([clip.labels for clip in clips])
        size = _block_size([clip.labels for clip in clips])
        borders = [edge for clip in clips for span in clip.spans for edge in (span.start, span.end)]
        borders = [edge for edge in borders if edge not in {len(clip.labels) for clip in clips}]
        step = reduce(gcd, borders) if borders else 1
        return cls(
            size=size,
            length=min(_MOST_BLOCKS, max(-(-len(clip.labels) // size) for clip in clips)),
            grid=step // size if step % size == 0 else 1,
            regimes=(Regime("good", ""), *(regime for regime in found if regime.kind not in ("good", "unlabelled"))),
            mean=np.nanmean(labels, axis=0),
            project=tuple(_projection([clip.features[sense] for clip in clips]) for sense in SENSES),
        )

    def damages(self, sense: int) -> np.ndarray:
        """bool [R]: the regimes in which a modality is damaged."""
        return np.array([regime.modality in (SENSES[sense], "both") for regime in self.regimes])

    def parts(self, clip: ObservedClip) -> Iterator[Blocks]:
        """The clip in parts of at most `length` blocks; the last block repeats its last frame."""
        frames = len(clip.labels)
        regimes = np.zeros(frames, np.int64)
        for span in clip.spans:
            if (regime := Regime(span.kind, span.modality)) in self.regimes:
                regimes[span.start : span.end] = self.regimes.index(regime)
        features = [project(clip.features[sense]) for project, sense in zip(self.project, SENSES, strict=True)]
        there = np.stack([clip.present[sense] for sense in SENSES], axis=1)
        for start in range(0, frames, self.size * self.length):
            stop = min(start + self.size * self.length, frames)
            at = np.minimum(np.arange(start, start + -(-(stop - start) // self.size) * self.size), stop - 1)
            at = at.reshape(-1, self.size)
            seen = there[at]
            means = [
                (x[at] * seen[:, :, sense, None]).sum(axis=1) / np.maximum(seen[:, :, sense].sum(axis=1), 1)[:, None]
                for sense, x in enumerate(features)
            ]
            labels = clip.labels[at].mean(axis=1) - self.mean
            middle = regimes[at[:, self.size // 2]]
            yield Blocks(stop - start, (means[0], means[1]), seen.mean(axis=1) >= 0.5, labels, middle)


@dataclass(frozen=True)
class Probes:
    """Linear maps of the features of audio and of visual."""

    labels: tuple[tuple[Floats, Floats], ...]
    """Weights [width, T] and offset [T] of each modality."""
    damage: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def of(cls, parts: Sequence[Blocks], cutting: Cutting, delay: int) -> "Probes":
        """Fitted by ridge regression."""
        regimes = np.concatenate([part.regimes for part in parts])
        labels = np.concatenate([ahead(part.labels, delay) for part in parts])
        of_labels, of_damage = [], []
        for sense in range(len(SENSES)):
            x = np.concatenate([part.features[sense] for part in parts])
            there = np.concatenate([part.there[:, sense] for part in parts])
            damaged = cutting.damages(sense)[regimes]
            fine = there & ~damaged & ~np.isnan(labels).any(axis=1)
            of_labels.append(_ridge(x[fine], labels[fine]))
            kinds = [
                at
                for at, hits in enumerate(cutting.damages(sense))
                if hits and (there & (regimes == at)).sum() >= _LEAST_BLOCKS
            ]
            of_kinds = []
            for kind in kinds:
                used = there & (~damaged | (regimes == kind))
                of_kinds.append(_ridge(x[used], (regimes[used] == kind)[:, None].astype(np.float64)))
            width = x.shape[1]
            weights = [weights for weights, _ in of_kinds] or [np.zeros((width, 0))]
            offsets = [offset for _, offset in of_kinds] or [np.zeros(0)]
            of_damage.append((np.concatenate(weights, axis=1), np.concatenate(offsets)))
        return cls(tuple(of_labels), tuple(of_damage))

    def say(self, part: Blocks) -> Shown:
        """What they say of a part of a clip."""
        z = np.stack([x @ w + b for x, (w, b) in zip(part.features, self.labels, strict=True)], axis=-1)
        audio, visual = (x @ w + b for x, (w, b) in zip(part.features, self.damage, strict=True))
        return Shown(part, z, (audio, visual))


@dataclass(frozen=True)
class SwitchingModel:
    """The fitted model."""

    cutting: Cutting
    delay: int
    """Blocks by which labels are later than what is shown."""
    probes: Probes
    weights: Floats
    """b [T, R + 1, 2]; the last regime is `POOLED`."""
    mixing: Floats
    """L [T, R + 1, 2, 2], lower triangular."""
    emotion: Floats
    """Covariance [T, length + delay, length + delay] of s over blocks."""
    errors: Floats
    """Correlation [T, 2, length, length] of u over blocks."""
    training: tuple[Shown, ...]
    """The training clips, each by probes that were fitted to others."""

    @classmethod
    def of(cls, clips: Sequence[ObservedClip]) -> "SwitchingModel":
        """Fits all of it. Raises `ValueError` where there are fewer than `LEAST_CLIPS` clips."""
        if len(clips) < LEAST_CLIPS:
            raise ValueError(f"{len(clips)} training clips are too few to estimate it: {LEAST_CLIPS} are needed")
        cutting = Cutting.of(clips)
        parts = [list(cutting.parts(clip)) for clip in clips]
        every = [part for of_clip in parts for part in of_clip]
        delay = _find_delay(every, cutting)
        probes = Probes.of(every, cutting, delay)
        training = []
        for fold in range(_FOLDS):
            others = [part for at, of_clip in enumerate(parts) if at % _FOLDS != fold for part in of_clip]
            own = Probes.of(others, cutting, delay)
            alike = all(a[0].shape == b[0].shape for a, b in zip(own.damage, probes.damage, strict=True))
            own = own if alike else probes  # a kind of damage that one clip alone has
            training += [own.say(part) for of_clip in parts[fold::_FOLDS] for part in of_clip]
        weights, mixing = _moments(training, cutting, delay)
        emotion = [
            np.nanmean(np.concatenate([part.labels[:, target] for part in every]) ** 2)
            * _correlation([part.labels[:, target] for part in every], cutting.length + delay)
            for target in range(len(cutting.mean))
        ]
        errors = [
            [
                _correlation(
                    [_good_errors(shown, cutting, delay, weights[target, 0], (target, m)) for shown in training],
                    cutting.length,
                )
                for m in range(len(SENSES))
            ]
            for target in range(len(cutting.mean))
        ]
        return cls(cutting, delay, probes, weights, mixing, np.array(emotion), np.array(errors), tuple(training))


def ahead(values: Floats, delay: int) -> Floats:
    """values[t + delay] at t; not a number where there is none."""
    return np.concatenate([values[delay:], np.full((min(delay, len(values)), *values.shape[1:]), np.nan)])


def _block_size(labels: Sequence[np.ndarray]) -> int:
    """The most frames over which means keep `_KEPT` of the variance of the labels."""
    whole = np.nanvar(np.concatenate(labels), axis=0)
    size = 1
    for more in range(2, _MOST_BLOCK_FRAMES + 1):
        cut = [of[: len(of) // more * more].reshape(-1, more, of.shape[1]).mean(axis=1) for of in labels]
        if (np.nanvar(np.concatenate(cut), axis=0) < _KEPT * whole).any():
            break
        size = more
    return size


def _projection(features: Sequence[np.ndarray]) -> Callable[[np.ndarray], Floats]:
    if features[0].shape[1] <= _WIDEST:
        return lambda x: np.asarray(x, np.float64)
    x = np.concatenate(features).astype(np.float64)
    _, axes = np.linalg.eigh(np.cov(x, rowvar=False))
    kept = axes[:, -_WIDEST:]
    return lambda x: np.asarray(x, np.float64) @ kept


def _ridge(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Weights and offset of a ridge regression."""
    centre, level = x.mean(axis=0), y.mean(axis=0)
    off = x - centre
    product = off.T @ off
    penalty = _RIDGE * float(np.trace(product)) / len(product) + 1e-9
    weights: Floats = np.linalg.solve(product + penalty * np.eye(len(product)), off.T @ (y - level))
    return weights, level - centre @ weights


def _find_delay(parts: Sequence[Blocks], cutting: Cutting) -> int:
    """The delay at which probes of undamaged blocks agree best with the labels; at most a second, about."""
    shortest = min(len(part.labels) for part in parts)
    delays = range(min(_LONGEST_DELAY // cutting.size, shortest // 4) + 1)
    # Column d of a target: its labels d blocks later. One regression serves all.
    later = np.concatenate([np.stack([ahead(part.labels, delay) for delay in delays], axis=1) for part in parts])
    rated = ~np.isnan(later).any(axis=(1, 2))
    regimes = np.concatenate([part.regimes for part in parts])
    agreement = np.zeros(len(delays))
    for sense in range(len(SENSES)):
        there = np.concatenate([part.there[:, sense] for part in parts])
        fine = there & rated & ~cutting.damages(sense)[regimes]
        x, y = np.concatenate([part.features[sense] for part in parts])[fine], later[fine].reshape(fine.sum(), -1)
        weights, offset = _ridge(x, y)
        off, truth = x @ weights + offset - y.mean(axis=0), y - y.mean(axis=0)
        spread = np.sqrt((off**2).sum(axis=0) * (truth**2).sum(axis=0))
        agreement += ((off * truth).sum(axis=0) / np.maximum(spread, 1e-12)).reshape(len(delays), -1).sum(axis=1)
    return int(agreement.argmax())


def _moments(training: Sequence[Shown], cutting: Cutting, delay: int) -> tuple[Floats, Floats]:
    """b and L of each target and regime, from second moments of (s, z_audio, z_visual)."""
    z = np.concatenate([shown.z for shown in training])
    s = np.concatenate([ahead(shown.blocks.labels, delay) for shown in training])
    there = np.concatenate([shown.blocks.there for shown in training])
    regimes = np.concatenate([shown.blocks.regimes for shown in training])
    rated, both = ~np.isnan(s).any(axis=1), there.all(axis=1)
    count = len(cutting.regimes)
    weights, mixing = np.zeros((s.shape[1], count + 1, 2)), np.zeros((s.shape[1], count + 1, 2, 2))
    for target in range(s.shape[1]):
        rows = np.concatenate([s[:, target, None], np.where(there, z[:, target], 0.0)], axis=1)
        good = rows[rated & both & (regimes == 0)]
        prior = good.T @ good / max(len(good), 1)
        for at in range(count + 1):
            used = rows[rated if at == count else rated & both & (regimes == at)]
            extra = 0 if at in (0, count) else _PRIOR_BLOCKS
            product = (used.T @ used + extra * prior) / max(len(used) + extra, 1)
            b = product[1:, 0] / product[0, 0]
            weights[target, at] = b
            rest = product[1:, 1:] - np.outer(b, b) * product[0, 0]
            mixing[target, at] = np.linalg.cholesky(rest + 1e-6 * np.trace(product) * np.eye(2))
    return weights, mixing


def _good_errors(shown: Shown, cutting: Cutting, delay: int, b: Floats, of: tuple[int, int]) -> Floats:
    """z - b s of one target and modality, [B]; not a number where the modality is damaged or absent."""
    target, sense = of
    fine = shown.blocks.there[:, sense] & ~cutting.damages(sense)[shown.blocks.regimes]
    errors = shown.z[:, target, sense] - b[sense] * ahead(shown.blocks.labels, delay)[:, target]
    return np.where(fine, errors, np.nan)


def _correlation(tracks: Sequence[Floats], length: int) -> Floats:
    """Correlation over time [length, length] of tracks with gaps, positive definite.

    Products at each lag are divided by their number, and tapered by a triangle as a sample autocovariance is.
    """
    sums, counts = np.zeros(length), np.zeros(length)
    for track in tracks:
        there = ~np.isnan(track)
        lags = min(length, len(track))
        for total, values in ((sums, np.where(there, track, 0.0)), (counts, there.astype(np.float64))):
            total[:lags] += np.correlate(values, values, "full")[len(track) - 1 :][:lags]
    along = np.where(counts > 0, sums / np.maximum(counts, 1.0), 0.0) * (1 - np.arange(length) / length)
    values, axes = np.linalg.eigh(toeplitz(along / max(along[0], 1e-12)))
    found = (axes * np.maximum(values, 1e-6)) @ axes.T
    spread = np.sqrt(found.diagonal())
    correlation: Floats = found / np.outer(spread, spread)
    return correlation
