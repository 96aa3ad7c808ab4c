"""The best possible estimates of the labels of puppets, estimated with a switching model (`switching_fit`).

    oracle     regimes known: E[s | z, r]
    ideal      regimes unknown: the mean of E[s | z, r] over regimes drawn given all of the clip, by the forward
               algorithm and backward sampling, from z, from probes of damage, and from what is absent
    fixed      one b and L for all blocks: a filter of each modality that is the same at every time
    audio, visual   as `ideal`, from one modality alone

E[s | z, r] is that of a Gaussian process. The evidence for a regime is a first-order autoregression of what probes say,
whose logarithm is multiplied by the number that makes the regimes of the training clips most likely, because blocks are
less independent than it assumes. On synthetic clips, whose ceilings are exact, the estimates are close to them
(`tests/datasets/corpora/embedded/test_estimated_ceilings.py`).

What is estimated is a lower bound, but for chance: probes are linear, and regimes know nothing of details, such as
whether a conflicting face shows the opposite. A system can be better than these observers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from crossfold.datasets.corpora.embedded.ceilings import OBSERVERS, Observer, backward, forward
from crossfold.datasets.corpora.embedded.episodes import SENSES, Floats
from crossfold.datasets.corpora.embedded.switching_fit import POOLED, ObservedClip, Shown, SwitchingModel

_HEARD: Mapping[Observer, tuple[bool, bool]] = {"audio": (True, False), "visual": (False, True)}
_BOTH = (True, True)
_DRAWS = 12
"""Sequences of regimes that an estimate is the mean over."""
_SCALED_CLIPS = 12
"""Training clips from which the scale of an estimate is taken."""
_TEMPERS = (0.03, 0.1, 0.3, 0.6, 1.0)
_PRIOR_BLOCKS = 30  # of good blocks, that covariances of a damaged regime are mixed with
_LEAST_BLOCKS = 10
_LEAST_LOG = -14.0


def estimated_predictions(
    train: Sequence[ObservedClip], clips: Sequence[ObservedClip]
) -> dict[Observer, list[np.ndarray]]:
    """Observer -> what it predicts of each of `clips`, [frames, T], scaled to the variance of the training labels.

    Raises `ValueError` for fewer than `LEAST_CLIPS` training clips, and `LinAlgError` where nothing varies.
    """
    model = SwitchingModel.of(train)
    evidence = {heard: Evidence.of(model, heard) for heard in (_BOTH, *_HEARD.values())}
    parts = [[model.probes.say(part) for part in model.cutting.parts(clip)] for clip in clips]
    chosen = model.training[:: max(1, len(model.training) // _SCALED_CLIPS)]
    labels = np.concatenate([shown.blocks.labels for shown in chosen])
    found: dict[Observer, list[np.ndarray]] = {}
    for observer in OBSERVERS:
        seen = evidence[_HEARD.get(observer, _BOTH)]
        said = np.concatenate([estimate(model, seen, shown, observer) for shown in chosen])
        scale = np.sqrt(np.nanmean(labels**2, axis=0) / np.maximum((said**2).mean(axis=0), 1e-12))
        found[observer] = [
            np.concatenate(
                [
                    model.cutting.mean + scale * _to_frames(estimate(model, seen, shown, observer), model, shown)
                    for shown in of_clip
                ]
            )
            for of_clip in parts
        ]
    return found


@dataclass(frozen=True)
class Evidence:
    """How likely each regime makes what an observer has of a block. D signals: what probes say."""

    heard: tuple[bool, bool]
    grid: int
    start: Floats
    """Logarithm of the probability [R] of each regime."""
    chain: Floats
    """The same [R, R] of each regime (column) after that of the time before."""
    present: Floats
    """Logarithm of the probability [2, R, 2] that a modality is absent (first axis 0) and present."""
    means: Floats
    """[R, D]."""
    covariances: Floats
    """[R, D, D], of signals."""
    memory: Floats
    """[D]: correlation of successive blocks."""
    steps: Floats
    """Covariance [R, D, D] of what a block has new over its predecessor."""
    temper: float = 1.0

    @classmethod
    def of(cls, model: SwitchingModel, heard: tuple[bool, bool]) -> "Evidence":
        """Fitted on the training clips."""
        training, count, grid = model.training, len(model.cutting.regimes), model.cutting.grid
        chain, start = np.eye(count) * 0.5 + 0.02 / count, np.full(count, 0.5)
        present = np.full((2, count, 2), 0.05)
        for shown in training:
            regimes, there = shown.blocks.regimes, shown.blocks.there
            np.add.at(chain, (regimes[::grid][:-1], regimes[::grid][1:]), 1)
            start += np.bincount(regimes, minlength=count)
            for sense in range(len(SENSES)):
                np.add.at(present[:, :, sense], (there[:, sense].astype(int), regimes), 1)
        signals, whole, means, covariances = _levels(training, heard, count)
        # What is new in a block, from the block before it in the same regime.
        before, after, states = [], [], []
        for shown, x, all_there in zip(training, signals, whole, strict=True):
            r = shown.blocks.regimes
            follows = (r[1:] == r[:-1]) & all_there[1:] & all_there[:-1]
            follows[grid - 1 :: grid] &= grid == 1
            off = x - means[r]
            before.append(off[:-1][follows])
            after.append(off[1:][follows])
            states.append(r[1:][follows])
        past, now, of = np.concatenate(before), np.concatenate(after), np.concatenate(states)
        memory = np.clip((past * now).sum(axis=0) / np.maximum((past**2).sum(axis=0), 1e-12), 0.0, 0.995)
        found = cls(
            heard,
            grid,
            np.log(start / start.sum()),
            np.log(chain / chain.sum(axis=1, keepdims=True)),
            np.log(present / present.sum(axis=0)),
            means,
            covariances,
            memory,
            _covariances(now - memory * past, of, count),
        )
        parts = [(found._density(shown), found._presence(shown), shown.blocks.regimes[::grid]) for shown in training]

        def score(temper: float) -> float:
            return sum(found._log_score(temper * density + there, true) for density, there, true in parts)

        return replace(found, temper=max(_TEMPERS, key=score))

    def draw(self, shown: Shown, rng: np.random.Generator) -> np.ndarray:
        """A sequence of regimes int64 [B], given all of the clip."""
        ahead = forward(self.start, self.chain, self.temper * self._density(shown) + self._presence(shown))
        drawn = np.zeros(len(ahead), np.int64)
        drawn[-1] = _draw(ahead[-1], rng)
        for at in range(len(ahead) - 2, -1, -1):
            drawn[at] = _draw(ahead[at] + self.chain[:, drawn[at + 1]], rng)
        return np.repeat(drawn, self.grid)[: len(shown.blocks.regimes)]

    def _log_score(self, evidence: Floats, true: np.ndarray) -> float:
        """Sum of the logarithm of the probability of the true regimes, of which one may be a great surprise."""
        joint = forward(self.start, self.chain, evidence) + backward(self.chain, evidence)
        logs = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
        return float(np.maximum(logs[np.arange(len(true)), true], _LEAST_LOG).sum())

    def _on_grid(self, blocks: Floats) -> Floats:
        """Sums over the blocks between two times at which the regime may change."""
        summed: Floats = np.add.reduceat(blocks, np.arange(0, len(blocks), self.grid), axis=0)
        return summed

    def _presence(self, shown: Shown) -> Floats:
        """Log probability of what is absent and present at each time at which the regime may change."""
        there = shown.blocks.there.astype(int)
        heard = [self.present[there[:, sense], :, sense] for sense, has_it in enumerate(self.heard) if has_it]
        return self._on_grid(np.sum(heard, axis=0))

    def _density(self, shown: Shown) -> Floats:
        """Log density of what probes say, given the block before, at each time at which the regime may change."""
        x, owner = _signals(shown, self.heard)
        there = shown.blocks.there[:, owner]
        follows = np.zeros(len(x), bool)
        follows[1:] = (there[1:] == there[:-1]).all(axis=1)
        if self.grid > 1:
            follows[:: self.grid] = False
        found = np.zeros((len(x), len(self.means)))
        # Blocks with the same modalities, at once.
        for has, follow in {(tuple(row), bool(f)) for row, f in zip(there, follows, strict=True)}:
            at = np.flatnonzero((there == has).all(axis=1) & (follows == follow))
            used = np.array(has, bool)
            for regime in range(len(self.means)) if used.any() else ():
                off = x[at][:, used] - self.means[regime, used]
                of = self.covariances[regime]
                if follow:
                    off = off - self.memory[used] * (x[at - 1][:, used] - self.means[regime, used])
                    of = self.steps[regime]
                of = of[np.ix_(used, used)]
                squares = np.einsum("bi,ij,bj->b", off, np.linalg.inv(of), off)
                found[at, regime] = -(squares + np.linalg.slogdet(of)[1]) / 2
        return self._on_grid(found)


def estimate(model: SwitchingModel, evidence: Evidence, shown: Shown, observer: Observer) -> Floats:
    """What an observer says of s in each block, [B, T]; before scaling."""
    if observer == "fixed":
        drawn = [np.full(len(shown.z), POOLED)]
    elif observer == "oracle":
        drawn = [shown.blocks.regimes]
    else:
        rng = np.random.default_rng(0)
        drawn = [evidence.draw(shown, rng) for _ in range(_DRAWS)]
    said = {regimes.tobytes(): posterior_mean(model, shown, regimes, evidence.heard) for regimes in drawn}
    mean: Floats = np.mean([said[regimes.tobytes()] for regimes in drawn], axis=0)
    return mean


def posterior_mean(model: SwitchingModel, shown: Shown, regimes: np.ndarray, heard: tuple[bool, bool]) -> Floats:
    """E[s | z, r] of each block, [B, T], by Gaussian process regression."""
    count, there = len(regimes), shown.blocks.there
    pooled = regimes[0] == POOLED
    z = np.where(there[:, None], shown.z, 0.0)
    used = np.array(heard) & (there | pooled)
    same = [
        np.ones((count, count), bool) if pooled else _same_damage(model.cutting.damages(sense)[regimes], regimes)
        for sense in range(len(SENSES))
    ]
    blocks = [np.flatnonzero(used[:, sense]) for sense in range(len(SENSES))]
    at = np.concatenate(blocks)
    if not at.size:
        return np.zeros(z.shape[:2])
    said = np.empty(z.shape[:2])
    for target in range(z.shape[1]):
        b, mix = model.weights[target, regimes], model.mixing[target, regimes]
        u = [model.errors[target, sense, :count, :count] * same[sense] for sense in range(len(SENSES))]
        noise = np.block(
            [
                [
                    sum(
                        (
                            (u[part] * np.outer(mix[:, row, part], mix[:, column, part]))[
                                np.ix_(blocks[row], blocks[column])
                            ]
                            for part in range(min(row, column) + 1)
                        ),
                        start=np.zeros((len(blocks[row]), len(blocks[column]))),
                    )
                    for column in range(len(SENSES))
                ]
                for row in range(len(SENSES))
            ]
        )
        gain = np.concatenate([b[blocks[sense], sense] for sense in range(len(SENSES))])
        seen = np.concatenate([z[blocks[sense], target, sense] for sense in range(len(SENSES))])
        late = at + model.delay
        emotion = model.emotion[target]
        whole = emotion[np.ix_(late, late)] * np.outer(gain, gain) + noise
        whole[np.diag_indices_from(whole)] *= 1 + 1e-4
        towards = emotion[np.ix_(np.arange(count), late)] * gain
        said[:, target] = towards @ cho_solve(cho_factor(whole, lower=True), seen)
    return said


def _same_damage(damaged: np.ndarray, regimes: np.ndarray) -> np.ndarray:
    """bool [B, B]: whether an error goes on from one block to another: not into a span of damage, and not out of it."""
    state = np.where(damaged, regimes, 0)
    span = np.concatenate([[0], np.cumsum(np.diff(state) != 0)]) + 1
    span = np.where(damaged, span, 0)
    same: np.ndarray = span[:, None] == span
    return same


def _signals(shown: Shown, heard: tuple[bool, bool]) -> tuple[Floats, np.ndarray]:
    """What the probes of the heard modalities say [B, D], and whose it is [D]."""
    parts = [
        np.concatenate([shown.z[:, :, sense], shown.damage[sense]], axis=1)
        for sense, has_it in enumerate(heard)
        if has_it
    ]
    senses = [sense for sense, has_it in enumerate(heard) if has_it]
    return np.concatenate(parts, axis=1), np.repeat(senses, [part.shape[1] for part in parts])


def _levels(
    training: Sequence[Shown], heard: tuple[bool, bool], count: int
) -> tuple[list[Floats], list[np.ndarray], Floats, Floats]:
    """Signals of each clip, where all are there, and means [R, D] and covariances [R, D, D] by regime."""
    signals, whole = [], []
    for shown in training:
        x, owner = _signals(shown, heard)
        signals.append(x)
        whole.append(np.asarray(shown.blocks.there[:, owner].all(axis=1)))
    x, there = np.concatenate(signals), np.concatenate(whole)
    regimes = np.concatenate([shown.blocks.regimes for shown in training])
    means = np.stack([x[there & (regimes == 0)].mean(axis=0)] * count)
    for regime in range(1, count):
        own = x[there & (regimes == regime)]
        if len(own) >= _LEAST_BLOCKS:
            means[regime] = own.mean(axis=0)
    return signals, whole, means, _covariances((x - means[regimes])[there], regimes[there], count)


def _covariances(off: Floats, regimes: np.ndarray, count: int) -> Floats:
    """Second moments [R, D, D] of rows [N, D] by regime; of a damaged one, mixed with those of good blocks."""
    good = off[regimes == 0]
    base = good.T @ good / max(len(good), 1) + 1e-9 * np.eye(off.shape[1])
    found = np.stack([base] * count)
    for regime in range(1, count):
        own = off[regimes == regime]
        if len(own) >= _LEAST_BLOCKS:
            found[regime] = (own.T @ own + _PRIOR_BLOCKS * base) / (len(own) + _PRIOR_BLOCKS)
    return found


def _draw(logs: Floats, rng: np.random.Generator) -> int:
    steps = np.cumsum(np.exp(logs - logs.max()))
    return int(np.searchsorted(steps, rng.random() * steps[-1], side="right"))


def _to_frames(said: Floats, model: SwitchingModel, shown: Shown) -> Floats:
    """Of blocks [B, T] -> of frames [frames, T], by lines between the middles of blocks."""
    middles = np.arange(len(said)) * model.cutting.size + (model.cutting.size - 1) / 2
    frames = np.arange(shown.blocks.frames)
    return np.stack([np.interp(frames, middles, column) for column in said.T], axis=1)
