"""Clips of the synthetic corpus with a dose: Gaussian, with a regime for each episode, so that the best is known.

A clip is a row of episodes of `EPISODE` frames. In each, valence and arousal are drawn anew: they rise from neutral
and fall back. With s the emotion of one target, u parts of it, e errors, and m one of audio and visual:

    s    = sqrt(1 - c) u0 + sqrt(c / 2) (u_audio + u_visual)          c: `complementary`
    z_m  = sqrt(1 - c) u0 + sqrt(c / 2) u_m + e_m                     the errors of two modalities correlate by `shared`
    z_m  = (1 - v) z_m + v n_m    while m is corrupted; n_m is noise  v: `severity`
    z_m  = (1 - v) z_m + v q_m    while m is in conflict; q_m is distributed as z_m and independent of all else
    nothing                       while m is missing

All of them have one covariance over the frames of an episode, that of a first-order autoregression times a bump, so
that within a regime no frame says more of another frame than that frame does itself. The regime of an episode (which
modality is damaged, and how) is a Markov chain. A cue rises by `cue` while its modality is corrupted or in conflict.
The features are z of both targets, the cue and five columns that say nothing, mixed by an orthogonal matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crossfold.datasets.corpora.clips import VALENCE_AROUSAL, ClipArrays, ClipInfo, Span
from crossfold.datasets.corpora.embedded.dose import EPISODE, SyntheticDose

Floats = npt.NDArray[np.float64]

FPS = 25.0
SENSES = ("audio", "visual")
LABEL_SCALE = 0.25
"""Standard deviation of a label at the height of an episode. Labels are cut off at -1 and 1, four of them away."""
GENERATOR = 1
"""Version of this generator; raised whenever the same dose gives other clips."""

_MEMORY = 0.935
"""Correlation of two successive frames."""
_STAYS = 0.3
"""Probability that an episode has the regime of the one before for no other reason than that."""
_NOISE_LEVEL = 1.5
"""Standard deviation of the noise of a corrupted modality; the emotion has 1."""
_ERRORS = {"audio": (1.0, 0.7), "visual": (0.7, 1.0)}
"""Standard deviation of the error of each modality: valence, arousal."""
_NUISANCE = 5
WIDTH = len(VALENCE_AROUSAL) + 1 + _NUISANCE
"""Columns of the features of audio and of visual."""


class Regime(NamedTuple):
    """What happens in an episode."""

    kind: str
    """good, missing, corrupted or conflict."""
    modality: str
    """The damaged one; empty where none is."""


REGIMES = (
    Regime("good", ""),
    *(Regime(kind, sense) for kind in ("missing", "corrupted", "conflict") for sense in SENSES),
)


@dataclass(frozen=True)
class Episodes:
    """What a clip is made of, before the features are mixed. R episodes of E frames."""

    regimes: npt.NDArray[np.int64]
    """Index into `REGIMES`, [R]."""
    emotion: Floats
    """s, [R, E, 2]: valence, arousal."""
    shown: Floats
    """z, [R, E, 2, 2]: valence and arousal of audio and visual (last axis); a missing modality is what it hides."""
    cues: Floats
    """[R, E, 2]: of audio and visual."""


def shares(dose: SyntheticDose) -> Floats:
    """Share of time of each of `REGIMES`, float64 [7]."""
    halves = {kind: getattr(dose, kind) / len(SENSES) for kind in ("missing", "corrupted", "conflict")}
    of = np.array([halves.get(regime.kind, 0.0) for regime in REGIMES])
    of[0] = 1 - of.sum()
    return of


def transitions(dose: SyntheticDose) -> Floats:
    """Probability [7, 7] of the regime of an episode (column) after that of the one before (row)."""
    chain: Floats = _STAYS * np.eye(len(REGIMES)) + (1 - _STAYS) * shares(dose)
    return chain


def covariances(dose: SyntheticDose, target: int) -> Floats:
    """Covariance [7, 3, 3] of (s, z_audio, z_visual) of a target (0 valence, 1 arousal) at one frame, by regime.

    It is relative to the covariance over time, which all three have in common. A missing modality is what it hides.
    """
    common, own = 1 - dose.complementary, dose.complementary / 2
    errors = np.array([_ERRORS[sense][target] for sense in SENSES])
    honest = np.full((3, 3), common)
    honest[0, 0] += 2 * own
    honest[0, 1:] += own
    honest[1:, 0] += own
    honest[1:, 1:] += np.diag([own, own]) + np.outer(errors, errors) * np.where(np.eye(2) == 1, 1.0, dose.shared)
    found = np.repeat(honest[None], len(REGIMES), axis=0)
    for at, (kind, modality) in enumerate(REGIMES):
        if kind in ("corrupted", "conflict"):
            sense = 1 + SENSES.index(modality)
            keep = np.ones(3)
            keep[sense] = 1 - dose.severity
            found[at] = honest * np.outer(keep, keep)
            new = _NOISE_LEVEL**2 if kind == "corrupted" else honest[sense, sense]
            found[at, sense, sense] += dose.severity**2 * new
    return found


def bump(frames: int) -> Floats:
    """How strong an emotion is at each frame of an episode, [frames]: it rises from neutral and falls back."""
    # A parabola: the last bit of a sine depends on the processor, and so would the hash of a store.
    height: Floats = 1 - ((2 * np.arange(frames) + 1 - frames) / frames) ** 2
    return height


def time_covariance(frames: int) -> Floats:
    """Covariance [frames, frames] of an error, a cue or an emotion over an episode, without the bump."""
    steps = np.arange(frames)
    of: Floats = _MEMORY ** np.abs(steps[:, None] - steps)
    return of


def whiten(values: Floats) -> Floats:
    """Values [R, E, ...] with the covariance `time_covariance` over axis 1 -> the same with covariance 1."""
    white = values.copy()
    white[:, 1:] = (values[:, 1:] - _MEMORY * values[:, :-1]) / np.sqrt(1 - _MEMORY**2)
    return white


def draw_episodes(rng: np.random.Generator, dose: SyntheticDose, count: int, frames: int = EPISODE) -> Episodes:
    """Draw `count` episodes of `frames` frames, one after the other."""
    chain = np.cumsum(transitions(dose), axis=1)
    state = int(np.searchsorted(np.cumsum(shares(dose)), rng.random(), side="right"))
    regimes = []
    for draw in rng.random(count):
        regimes.append(min(state, len(REGIMES) - 1))
        state = int(np.searchsorted(chain[regimes[-1]], draw, side="right"))
    height = bump(frames)[None, :, None]
    emotion, shown = np.empty((count, frames, 2)), np.empty((count, frames, 2, 2))
    common, own = np.sqrt(1 - dose.complementary), np.sqrt(dose.complementary / 2)
    for target in range(len(VALENCE_AROUSAL)):
        part, error = _waves(rng, count, frames, 3), _waves(rng, count, frames, 3)
        shown_part = common * part[..., :1] + own * part[..., 1:]
        felt = common * part[..., 0] + own * (part[..., 1] + part[..., 2])
        errors = np.sqrt(dose.shared) * error[..., :1] + np.sqrt(1 - dose.shared) * error[..., 1:]
        sizes = np.array([_ERRORS[sense][target] for sense in SENSES])
        emotion[..., target] = height[..., 0] * felt
        shown[:, :, target] = height * (shown_part + sizes * errors)
    for target in range(len(VALENCE_AROUSAL)):
        damage = _waves(rng, count, frames, 2)
        variance = covariances(dose, target)[0].diagonal()[1:]
        for at, (kind, modality) in enumerate(REGIMES):
            if kind in ("corrupted", "conflict"):
                sense, hit = SENSES.index(modality), np.array(regimes) == at
                size = _NOISE_LEVEL if kind == "corrupted" else np.sqrt(variance[sense])
                new = height[..., 0] * size * damage[..., sense]
                mixed = (1 - dose.severity) * shown[:, :, target, sense] + dose.severity * new
                shown[hit, :, target, sense] = mixed[hit]
    lying = np.array([[REGIMES[r] in _lies(sense) for sense in SENSES] for r in regimes])
    cues = dose.cue * lying[:, None, :] + _waves(rng, count, frames, 2)
    return Episodes(np.array(regimes), emotion, shown, cues)


def _lies(sense: str) -> tuple[Regime, Regime]:
    """The regimes in which the cue of a modality rises."""
    return Regime("corrupted", sense), Regime("conflict", sense)


def cue_rises(sense: str) -> npt.NDArray[np.bool_]:
    """bool [7]: the regimes in which the cue of a modality rises."""
    return np.array([regime in _lies(sense) for regime in REGIMES])


def _waves(rng: np.random.Generator, count: int, frames: int, columns: int) -> Floats:
    """Gaussian [count, frames, columns] of variance 1, drawn anew for each episode, slow within it."""
    draws = rng.standard_normal((count, frames, columns))
    # A matrix product would depend on the processor in its last bits.
    for frame in range(1, frames):
        draws[:, frame] = _MEMORY * draws[:, frame - 1] + np.sqrt(1 - _MEMORY**2) * draws[:, frame]
    return draws


def mix(latent: Floats, sense: str) -> Floats:
    """What a modality shows, [frames, WIDTH], as features: a product of two reflections, which is orthogonal."""
    for mirror in _mirrors(sense):
        latent = _reflect(latent, mirror)
    return latent


def unmix(features: npt.ArrayLike, sense: str) -> Floats:
    """What `mix` was given: columns z of valence, z of arousal, cue, and five that say nothing."""
    latent = np.asarray(features, np.float64)
    for mirror in reversed(_mirrors(sense)):
        latent = _reflect(latent, mirror)
    return latent


def _mirrors(sense: str) -> Sequence[Floats]:
    rng = np.random.default_rng([GENERATOR, SENSES.index(sense)])
    return [rng.standard_normal(WIDTH) for _ in range(2)]


def _reflect(rows: Floats, mirror: Floats) -> Floats:
    length = sum(rows[:, j] * mirror[j] for j in range(WIDTH)) / sum(float(x) ** 2 for x in mirror)
    reflected: Floats = rows - 2 * np.asarray(length)[:, None] * mirror
    return reflected


def clip_infos(dose: SyntheticDose) -> list[ClipInfo]:
    """The clips of a corpus with a dose: first those that train, then those that validate."""
    names = [("train", i) for i in range(1, dose.clips + 1)] + [
        ("validation", i) for i in range(1, dose.validation + 1)
    ]
    return [
        ClipInfo(name=n, video=n, subject=n, partition=part, fps=FPS, frames=dose.frames)
        for part, i in names
        for n in [f"{part}-{i:06}"]
    ]


def make_clip(dose: SyntheticDose, info: ClipInfo) -> ClipArrays:
    """Features, labels and spans of one clip; they depend on the dose and on the name of the clip."""
    part, number = info.name.split("-")
    entropy = [GENERATOR, dose.seed, ("train", "validation").index(part), int(number)]
    plot, rest = (np.random.default_rng(child) for child in np.random.SeedSequence(entropy).spawn(2))
    count = info.frames // EPISODE
    made = draw_episodes(plot, dose, count)
    features, present = {}, {}
    for at, sense in enumerate(SENSES):
        nuisance = _waves(rest, count, EPISODE, _NUISANCE)
        latent = np.concatenate([made.shown[..., at], made.cues[..., at, None], nuisance], axis=-1)
        there = made.regimes != REGIMES.index(Regime("missing", sense))
        present[sense] = np.repeat(there, EPISODE)
        mixed = mix(latent.reshape(-1, WIDTH), sense)
        features[sense] = np.where(present[sense][:, None], mixed, 0.0).astype(np.float32)
    if dose.truth != "none":
        said = made.regimes
        if dose.truth == "shuffled":
            said = draw_episodes(rest, dose, count).regimes
        features["text"] = np.repeat(np.eye(len(REGIMES), dtype=np.float32)[said], EPISODE, axis=0)
        present["text"] = np.ones(info.frames, bool)
    labels = np.clip(LABEL_SCALE * made.emotion.reshape(-1, 2), -1.0, 1.0).astype(np.float32)
    return ClipArrays(features, present, labels, _spans(made.regimes))


def _spans(regimes: npt.NDArray[np.int64]) -> tuple[Span, ...]:
    """The damaged episodes as spans; successive ones of one regime are one span."""
    spans: list[Span] = []
    for at, (kind, modality) in enumerate(REGIMES[r] for r in regimes):
        start, end = at * EPISODE, (at + 1) * EPISODE
        if kind == "good":
            continue
        if spans and (spans[-1].end, spans[-1].kind, spans[-1].modality) == (start, kind, modality):
            start = spans.pop().start
        spans.append(Span(start, end, kind, modality))
    return tuple(spans)
