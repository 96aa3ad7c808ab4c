"""The dose of a synthetic corpus, its clips, and the best possible estimates of their labels."""

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from crossfold.datasets.corpora.embedded import ceilings
from crossfold.datasets.corpora.embedded.dose import SyntheticDose, dose_of, expand_doses
from crossfold.datasets.corpora.embedded.episodes import (
    REGIMES,
    SENSES,
    Episodes,
    bump,
    clip_infos,
    covariances,
    cue_rises,
    draw_episodes,
    make_clip,
    mix,
    shares,
    time_covariance,
    transitions,
    unmix,
)
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.metrics import ccc

RICH = SyntheticDose(missing=0.2, corrupted=0.2, conflict=0.3, severity=0.7, complementary=0.4, shared=0.3, cue=0.8)


def brute_force(dose: SyntheticDose, made: Episodes, heard: tuple[bool, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of the emotion [R * E, 2] and of the regimes [R, 7], by listing every sequence of regimes.

    For each sequence, one dense Gaussian over all frames of the clip is conditioned on what is observed.
    """
    count, frames = made.cues.shape[:2]
    over_time = time_covariance(frames)
    height = np.outer(bump(frames), bump(frames)) * over_time
    sequences, logs, means = [], [], []
    for sequence in itertools.product(range(len(REGIMES)), repeat=count):
        steps = [shares(dose)[sequence[0]], *(transitions(dose)[a, b] for a, b in itertools.pairwise(sequence))]
        there = np.array([[heard[i] and REGIMES[r] != ("missing", s) for i, s in enumerate(SENSES)] for r in sequence])
        known = np.array(
            [[heard[i] and REGIMES[r] != ("missing", s) for i, s in enumerate(SENSES)] for r in made.regimes]
        )
        if np.prod(steps) == 0 or (there != known).any():
            continue
        log, mean = float(np.log(steps).sum()), np.zeros((count, frames, 2))
        for target in range(2):
            blocks = [np.kron(covariances(dose, target)[r], height) for r in sequence]
            whole = np.zeros((count * 3 * frames,) * 2)
            for at, block in enumerate(blocks):
                rows = slice(at * 3 * frames, (at + 1) * 3 * frames)
                whole[rows, rows] = block
            kind = np.tile(np.repeat([0, 1, 2], frames), count)
            episode = np.repeat(np.arange(count), 3 * frames)
            seen = (kind > 0) & there[episode, np.maximum(kind - 1, 0)]
            values = np.concatenate([made.shown[:, :, target, i] for i in range(2)], axis=1)
            observed = np.concatenate([np.zeros((count, frames)), values], axis=1).reshape(-1)[seen]
            if seen.any():
                log += multivariate_normal(cov=whole[np.ix_(seen, seen)], allow_singular=False).logpdf(observed)
                gain = whole[np.ix_(kind == 0, seen)] @ np.linalg.inv(whole[np.ix_(seen, seen)])
                mean[..., target] = (gain @ observed).reshape(count, frames)
        for at, r in enumerate(sequence):
            for i, sense in enumerate(SENSES):
                if there[at, i]:
                    rise = np.full(frames, dose.cue * cue_rises(sense)[r])
                    log += multivariate_normal(rise, over_time).logpdf(made.cues[at, :, i])
        sequences.append(sequence)
        logs.append(log)
        means.append(mean.reshape(-1, 2))
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    regimes = np.zeros((count, len(REGIMES)))
    for weight, sequence in zip(weights, sequences, strict=True):
        regimes[np.arange(count), sequence] += weight
    return np.einsum("q,qft->ft", weights, np.stack(means)), regimes


@pytest.mark.parametrize("observer", ["ideal", "audio", "visual"])
def test_an_ideal_observer_is_what_brute_force_finds(observer):
    heard = (observer != "visual", observer != "audio")
    for seed in range(4):
        made = draw_episodes(np.random.default_rng(seed), RICH, 3, frames=4)
        emotion, regimes = brute_force(RICH, made, heard)
        assert np.allclose(ceilings.regime_posterior(RICH, made, heard), regimes, rtol=0, atol=1e-8)
        assert np.allclose(ceilings.estimate(RICH, made, observer), emotion, rtol=0, atol=1e-8)


def test_the_oracle_is_the_posterior_mean_given_the_regimes():
    made = draw_episodes(np.random.default_rng(5), RICH, 6, frames=5)
    height = np.outer(bump(5), bump(5)) * time_covariance(5)
    said = ceilings.estimate(RICH, made, "oracle").reshape(6, 5, 2)
    for at, r in enumerate(made.regimes):
        there = [i for i, sense in enumerate(SENSES) if REGIMES[r] != ("missing", sense)]
        for target in range(2):
            whole = np.kron(covariances(RICH, target)[r], height)
            seen = np.concatenate([np.arange(5) + 5 * (1 + i) for i in there])
            observed = np.concatenate([made.shown[at, :, target, i] for i in there])
            expected = whole[np.ix_(np.arange(5), seen)] @ np.linalg.solve(whole[np.ix_(seen, seen)], observed)
            assert np.allclose(said[at, :, target], expected, atol=1e-10)


def test_clips_have_the_moments_that_the_ceilings_assume():
    made = draw_episodes(np.random.default_rng(0), RICH, 30_000, frames=6)
    assert np.allclose(np.bincount(made.regimes, minlength=7) / 30_000, shares(RICH), atol=0.012)
    for target in range(2):
        both = np.concatenate([made.emotion[..., target, None], made.shown[:, :, target]], axis=-1)
        both /= bump(6)[None, :, None]
        for r in range(len(REGIMES)):
            rows = both[made.regimes == r].reshape(-1, 3)
            assert np.allclose(rows.T @ rows / len(rows), covariances(RICH, target)[r], atol=0.09)


def test_a_better_informed_observer_is_better():
    dose = SyntheticDose(missing=0.1, corrupted=0.1, conflict=0.3, cue=1, clips=60)
    clips = [make_clip(dose, info) for info in clip_infos(dose)]
    made = [ceilings.shown_of(clip.features, ceilings.regimes_of(clip.spans, len(clip.labels))) for clip in clips]
    labels, mask = np.concatenate([clip.labels for clip in clips]), np.ones(400 * len(clips), bool)
    for target in range(2):
        score = {}
        for observer in ceilings.OBSERVERS:
            said = np.concatenate(ceilings.best_predictions(dose, made, observer))[:, target]
            score[observer] = ccc(said, labels[:, target], mask)
            # The scale is right: CCC is as large as the correlation.
            assert score[observer] == pytest.approx(np.corrcoef(said, labels[:, target])[0, 1], abs=0.01)
        assert score["oracle"] > score["ideal"] > score["fixed"] + 0.02 > max(score["audio"], score["visual"])


def test_no_other_fixed_weights_are_better():
    dose = SyntheticDose(missing=0.3, conflict=0.3, complementary=0.5, shared=0.4)
    made = draw_episodes(np.random.default_rng(3), dose, 40_000, frames=4)
    there = np.array([[REGIMES[r] != ("missing", sense) for sense in SENSES] for r in made.regimes])
    for target in range(2):
        shown = np.where(there[:, None], made.shown[:, :, target], 0.0).reshape(-1, 2)
        fitted = np.linalg.lstsq(shown, made.emotion[..., target].reshape(-1), rcond=None)[0]
        assert np.allclose(ceilings.fixed_weights(dose)[target], fitted, atol=0.015)


def test_mixing_is_undone():
    latent = np.random.default_rng(0).standard_normal((50, 8))
    for sense in SENSES:
        mixed = mix(latent, sense)
        assert np.allclose(unmix(mixed, sense), latent) and not np.allclose(mixed, latent, atol=0.1)


def test_clips_do_not_depend_on_how_many_there_are_and_doses_share_what_they_can():
    few, many = SyntheticDose(clips=4), SyntheticDose(clips=8)
    damaged = SyntheticDose(clips=4, conflict=0.5)
    for info in clip_infos(few):
        one, other, hit = (make_clip(dose, info) for dose in (few, many, damaged))
        assert np.array_equal(one.features["audio"], other.features["audio"])
        # Only the regimes differ, so that gains at two doses are compared on the same emotions.
        assert np.array_equal(one.labels, hit.labels)
    assert [info.name for info in clip_infos(many)][4:8] == [f"train-{i:06}" for i in range(5, 9)]


def test_truth_as_a_modality():
    info = clip_infos(RICH)[0]
    truth = {kind: make_clip(RICH.model_copy(update={"truth": kind}), info) for kind in ("oracle", "shuffled")}
    regimes = ceilings.regimes_of(truth["oracle"].spans, info.frames)
    said = truth["oracle"].features["text"].argmax(axis=1).reshape(-1, 40)
    assert (said == regimes[:, None]).all()
    assert not np.array_equal(truth["shuffled"].features["text"], truth["oracle"].features["text"])
    assert np.array_equal(truth["shuffled"].features["audio"], truth["oracle"].features["audio"])


def test_the_name_of_a_corpus_says_its_dose():
    assert SyntheticDose().corpus == "synthetic-dose"
    for dose in (RICH, SyntheticDose(), SyntheticDose(conflict=1e-5, clips=7), SyntheticDose(truth="oracle")):
        assert dose_of(dose.corpus) == dose
    assert SyntheticDose(conflict=0.2, clips=96).corpus == "synthetic-dose-conflict=0.2-clips=96"
    for other in ("synthetic", "puppets", "synthetic-dose-clips=48", "synthetic-dose-x=1", "synthetic-dosed"):
        assert dose_of(other) is None


def test_a_list_of_doses_is_every_combination():
    found = list(expand_doses({"name": "synthetic", "conflict": [0, 0.2], "clips": [10, 20], "cue": 1}))
    assert [(dose.conflict, dose.clips) for dose in found] == [(0, 10), (0, 20), (0.2, 10), (0.2, 20)]
    for wrong, words in (
        ({"name": "affwild2", "conflict": 0.1}, "takes no dose"),
        ({"conflict": 0.1}, "takes no dose"),
        ({"name": "synthetic", "conflikt": 0.1}, "did you mean"),
        ({"name": "synthetic", "conflict": []}, "names no value"),
        ({"name": "synthetic", "conflict": 0.5, "missing": 0.6}, "at most 0.9"),
        ({"name": "synthetic", "conflict": 0.5, "frames": 50}, "multiple of 40"),
    ):
        with pytest.raises(UserError, match=words):
            list(expand_doses(wrong))
