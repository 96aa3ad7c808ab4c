"""Ceilings that are estimated from training clips agree, on synthetic clips, with the exact ones."""

from functools import cache

import numpy as np
import pytest

from crossfold.datasets.corpora.embedded import ceilings
from crossfold.datasets.corpora.embedded.dose import SyntheticDose
from crossfold.datasets.corpora.embedded.episodes import SENSES, clip_infos, make_clip
from crossfold.datasets.corpora.embedded.estimated_ceilings import estimated_predictions
from crossfold.datasets.corpora.embedded.switching_fit import Cutting, ObservedClip, SwitchingModel, _find_delay
from crossfold.platform.core.metrics import ccc

TOLERANCE = 0.025
"""CCC, of one target; a fit to 60 clips of 5 episodes is that close to what is exact."""


def observed(clip):
    return ObservedClip({m: clip.features[m] for m in SENSES}, clip.present, clip.labels, clip.spans)


@cache
def scores(dose):
    """Observer -> exact and estimated CCC of valence and arousal on the validation clips."""
    made = [make_clip(dose, info) for info in clip_infos(dose)]
    train, reported = made[: dose.clips], made[dose.clips :]
    estimated = estimated_predictions([observed(clip) for clip in train], [observed(clip) for clip in reported])
    shown = [ceilings.shown_of(clip.features, ceilings.regimes_of(clip.spans, dose.frames)) for clip in reported]
    labels = np.concatenate([clip.labels for clip in reported])
    found = {}
    for observer in ceilings.OBSERVERS:
        both = (ceilings.best_predictions(dose, shown, observer), estimated[observer])
        found[observer] = np.array(
            [
                [ccc(np.concatenate(said)[:, t], labels[:, t], np.ones(len(labels), bool)) for t in range(2)]
                for said in both
            ]
        )
    return found


@pytest.mark.parametrize(
    "dose",
    [
        SyntheticDose(conflict=0.4, clips=60, validation=24, frames=200),
        SyntheticDose(
            missing=0.2, corrupted=0.2, conflict=0.2, severity=0.8, cue=3, clips=60, validation=24, frames=200
        ),
    ],
    ids=["conflict", "all"],
)
def test_estimated_ceilings_of_synthetic_clips_are_the_exact_ones(dose):
    found = scores(dose)
    for observer, (exact, estimated) in found.items():
        assert estimated == pytest.approx(exact, abs=TOLERANCE), observer
    exact, estimated = (found["ideal"].mean(axis=1) - found["fixed"].mean(axis=1)).tolist()
    assert estimated == pytest.approx(exact, rel=0.15), "the way of which a share is taken"


def test_labels_that_lag_and_features_that_say_nothing_of_damage():
    """Without damage all observers of both modalities are one, and the delay of the labels is found."""
    dose = SyntheticDose(clips=20, validation=4, frames=200)
    made = [observed(make_clip(dose, info)) for info in clip_infos(dose)]
    late = [
        ObservedClip(c.features, c.present, np.concatenate([np.full((3, 2), np.nan), c.labels[:-3]]), ()) for c in made
    ]
    cutting = Cutting.of(late)
    assert _find_delay([part for clip in late for part in cutting.parts(clip)], cutting) == 3
    said = estimated_predictions(late[:20], late[20:])
    for one, other, third in zip(said["fixed"], said["ideal"], said["oracle"], strict=True):
        assert one.shape == (200, 2)
        assert one == pytest.approx(other, abs=1e-9) and one == pytest.approx(third, abs=1e-9)


def test_long_and_wide_clips_are_cut():
    """A clip that is longer than a Gaussian process may be, with wider features than are regressed on."""
    dose = SyntheticDose(conflict=0.4, clips=8, validation=3, frames=480)
    rng = np.random.default_rng(0)
    made = [observed(make_clip(dose, info)) for info in clip_infos(dose)]
    wide = [
        ObservedClip(
            {m: np.concatenate([x, 0.01 * rng.standard_normal((480, 130))], axis=1) for m, x in c.features.items()},
            c.present,
            c.labels,
            c.spans,
        )
        for c in made
    ]
    said = estimated_predictions(wide[:8], wide[8:])
    labels = np.concatenate([clip.labels for clip in wide[8:]])
    for observer in ("fixed", "oracle"):
        assert np.corrcoef(np.concatenate(said[observer])[:, 0], labels[:, 0])[0, 1] > 0.5
    with pytest.raises(ValueError, match="7 training clips are too few"):
        SwitchingModel.of(wide[:7])
