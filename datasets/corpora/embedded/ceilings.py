"""The best possible estimates of the labels of a synthetic corpus with a dose (`episodes`), computed exactly.

Given its regime r, the emotion of an episode is Gaussian together with what the modalities show, and its posterior
mean at a frame is a weighted sum of what they show at that frame. The regimes are a hidden Markov chain, so their
posterior follows from the forward-backward algorithm (Rabiner 1989, eq 19-27), whose evidence is the likelihood of
an episode under each regime: of what is missing, of what the modalities show, and of their cues.

    oracle     regimes known: E[s | z, r]
    ideal      regimes unknown, inferred from all of the clip: sum over r of P(r | clip) E[s | z, r]
    fixed      one weight for each modality, the same at every frame: the best linear function of both
    audio, visual   as `ideal`, from one modality alone

The posterior mean has the largest correlation with s of all functions of the input; the largest CCC is that of the
posterior mean once it is scaled to the variance of s, so `best_predictions` scales each estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.special import logsumexp

from crossfold.datasets.corpora.clips import Span
from crossfold.datasets.corpora.embedded.dose import EPISODE, SyntheticDose
from crossfold.datasets.corpora.embedded.episodes import (
    LABEL_SCALE,
    REGIMES,
    SENSES,
    Episodes,
    Floats,
    Regime,
    bump,
    covariances,
    cue_rises,
    draw_episodes,
    shares,
    transitions,
    unmix,
    whiten,
)

Observer = Literal["oracle", "ideal", "fixed", "audio", "visual"]
OBSERVERS: tuple[Observer, ...] = ("oracle", "ideal", "fixed", "audio", "visual")
_BOTH = (True, True)
_DRAWN_CLIPS, _DRAWN_EPISODES = 100, 10
"""From which the scale of an estimate is taken."""


def regimes_of(spans: Iterable[Span], frames: int) -> np.ndarray:
    """The regime of each episode, int64 [R], by the planted spans of a clip of so many frames."""
    found = np.zeros(frames // EPISODE, np.int64)
    for span in spans:
        found[span.start // EPISODE : span.end // EPISODE] = REGIMES.index(Regime(span.kind, span.modality))
    return found


def shown_of(features: Mapping[str, np.ndarray], regimes: np.ndarray) -> Episodes:
    """The observed part of the episodes of a clip from its features, [frames, width] by modality; no emotion."""
    latent = np.stack([unmix(features[sense], sense) for sense in SENSES], axis=-1)
    episodes = latent.reshape(-1, EPISODE, *latent.shape[1:])
    emotion = np.full((*episodes.shape[:2], 2), np.nan)
    return Episodes(regimes, emotion, episodes[:, :, :2], episodes[:, :, 2])


def regime_posterior(dose: SyntheticDose, made: Episodes, heard: tuple[bool, bool] = _BOTH) -> Floats:
    """Probability of each regime in each episode given all of a clip, float64 [R, 7].

    heard: whether the observer has the audio, and the visual modality.
    """
    with np.errstate(divide="ignore"):  # a regime that never occurs has the logarithm -inf
        start, chain = np.log(shares(dose)), np.log(transitions(dose))
    evidence = log_evidence(dose, made, heard)
    joint = forward(start, chain, evidence) + backward(chain, evidence)
    posterior: Floats = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    return posterior


def forward(start: Floats, chain: Floats, evidence: Floats) -> Floats:
    """Log probability [R, K] of a state and of all evidence [R, K] up to it; start [K] and chain [K, K] are logs."""
    found = np.empty_like(evidence)
    for at, of_step in enumerate(evidence):
        before = start if at == 0 else np.logaddexp.reduce(found[at - 1][:, None] + chain, axis=0)
        found[at] = before + of_step
    return found


def backward(chain: Floats, evidence: Floats) -> Floats:
    """Log probability [R, K] of all evidence after a state, given it."""
    found = np.zeros_like(evidence)
    for at in range(len(evidence) - 2, -1, -1):
        found[at] = np.logaddexp.reduce(chain + (evidence[at + 1] + found[at + 1]), axis=1)
    return found


def log_evidence(dose: SyntheticDose, made: Episodes, heard: tuple[bool, bool] = _BOTH) -> Floats:
    """Log density [R, 7] of what an observer has of each episode under each regime, up to a term of the episode."""
    count, frames = made.cues.shape[:2]
    white = whiten(made.shown / bump(frames)[None, :, None, None])
    cues = whiten(made.cues)
    step = whiten(np.ones((1, frames, 1)))[0, :, 0]
    there = _there(made, heard)
    found = np.zeros((count, len(REGIMES)))
    for at, regime in enumerate(REGIMES):
        has = np.array(heard) & [regime != ("missing", sense) for sense in SENSES]
        for target in range(white.shape[2]):
            covariance = covariances(dose, target)[at, 1:, 1:][np.ix_(has, has)]
            found[:, at] += _log_normal(white[:, :, target][..., has], covariance)
        for sense, name in enumerate(SENSES):
            if has[sense]:
                rise = dose.cue * cue_rises(name)[at] * step
                found[:, at] -= ((cues[:, :, sense] - rise) ** 2).sum(axis=1) / 2
        # A missing modality is seen to be missing.
        found[(there != has).any(axis=1), at] = -np.inf
    return found


def estimate(dose: SyntheticDose, made: Episodes, observer: Observer) -> Floats:
    """What an observer says of s, valence and arousal, at each frame of a clip, float64 [frames, 2]."""
    heard = (observer != "visual", observer != "audio")
    if observer == "fixed":
        belief, weights = np.ones((len(made.regimes), 1)), fixed_weights(dose)[None]
    else:
        known = observer == "oracle"
        belief = np.eye(len(REGIMES))[made.regimes] if known else regime_posterior(dose, made, heard)
        weights = np.stack([_weights(dose, target, heard) for target in range(2)], axis=1)  # [7, 2 targets, 2 senses]
    gates = np.einsum("rk,kts->rts", belief, weights)
    shown = np.where(_there(made, heard)[:, None, None, :], made.shown, 0.0)
    said: Floats = np.einsum("rts,rets->ret", gates, shown).reshape(-1, 2)
    return said


def fixed_weights(dose: SyntheticDose) -> Floats:
    """The best weight of each modality for all frames of clips with a dose, [2 targets, 2 senses]."""
    found = np.empty((2, len(SENSES)))
    for target in range(2):
        product, with_emotion = np.zeros((2, 2)), np.zeros(2)
        for share, regime, of in zip(shares(dose), REGIMES, covariances(dose, target), strict=True):
            has = np.array([regime != ("missing", sense) for sense in SENSES])  # a missing one counts as zero
            product += share * of[1:, 1:] * np.outer(has, has)
            with_emotion += share * of[1:, 0] * has
        found[target] = np.linalg.solve(product, with_emotion)
    return found


def best_predictions(dose: SyntheticDose, clips: Sequence[Episodes], observer: Observer) -> list[Floats]:
    """What an observer predicts of each of some clips, float64 [frames, 2], scaled to the variance of the labels.

    The scale is that of clips of the same dose which are drawn for it, so that no label of `clips` is looked at.
    """
    rng = np.random.default_rng(dose.seed)
    drawn = [draw_episodes(rng, dose, _DRAWN_EPISODES) for _ in range(_DRAWN_CLIPS)]
    spread = np.stack([(estimate(dose, made, observer) ** 2).mean(axis=0) for made in drawn]).mean(axis=0)
    emotion = np.stack([(made.emotion**2).mean(axis=(0, 1)) for made in drawn]).mean(axis=0)
    scale = LABEL_SCALE * np.sqrt(emotion / np.maximum(spread, 1e-12))
    return [scale * estimate(dose, made, observer) for made in clips]


def _weights(dose: SyntheticDose, target: int, heard: tuple[bool, bool]) -> Floats:
    """Weight of each modality in E[s | z, r], [7, 2]; 0 of what is missing or not heard."""
    found = np.zeros((len(REGIMES), len(SENSES)))
    for at, (kind, modality) in enumerate(REGIMES):
        has = [i for i, s in enumerate(SENSES) if heard[i] and (kind, modality) != ("missing", s)]
        if has:
            of = covariances(dose, target)[at]
            seen = [1 + i for i in has]
            found[at, has] = np.linalg.solve(of[np.ix_(seen, seen)], of[seen, 0])
    return found


def _there(made: Episodes, heard: tuple[bool, bool]) -> np.ndarray:
    """bool [R, 2]: whether an observer has each modality in each episode."""
    missing = np.array([[REGIMES[r] == ("missing", s) for s in SENSES] for r in made.regimes])
    there: np.ndarray = ~missing & np.array(heard)
    return there


def _log_normal(white: Floats, covariance: Floats) -> Floats:
    """Log density [R] of episodes [R, E, k] of independent rows with a covariance [k, k]."""
    if not covariance.size:
        return np.zeros(len(white))
    _, log_det = np.linalg.slogdet(covariance)
    squares = np.einsum("rei,ij,rej->r", white, np.linalg.inv(covariance), white)
    frames = white.shape[1]
    density: Floats = -(squares + frames * (log_det + len(covariance) * np.log(2 * np.pi))) / 2
    return density
