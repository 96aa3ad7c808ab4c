"""Ranges of ranks against a bootstrap that copies frames of videos one by one."""

import numpy as np
import pytest

from crossfold.platform.core.metrics import ccc, moments
from crossfold.reports.stats.ranks import RankRange, _drawn_ccc, rank_ranges
from crossfold.reports.stats.runs import Run

FRAMES = 40


def signals(noise, videos, seed=0, offset=0.0):
    """Labels, which depend on the video alone, and predictions: [videos, frames]."""
    label = np.random.default_rng(videos).standard_normal((videos, FRAMES)) + offset
    return label, label + noise * np.random.default_rng([seed, round(1000 * noise)]).standard_normal(label.shape)


def run_of(noise, videos=12, fold=0, seed=0, offset=0.0):
    label, prediction = signals(noise, videos, seed, offset)
    each = moments(prediction, label, np.ones_like(label, bool))
    whole = float(ccc(prediction.ravel(), label.ravel(), np.ones(label.size, bool)))
    return Run(fold, seed, whole, tuple(f"v{at:02d}" for at in range(videos)), each)


def group(noise, **other):
    return [[run_of(noise, fold=fold, seed=seed, **other) for fold in (0, 1) for seed in (0, 1, 2)]]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_draw_is_the_score_of_the_videos_as_often_as_drawn(offset):
    counts = np.random.default_rng(3).multinomial(5, [0.2] * 5, size=7).T
    label, prediction = signals(0.6, 5, offset=offset)
    for draw in range(7):
        often = [video for video in range(5) for _ in range(counts[video, draw])]
        expected = ccc(prediction[often].ravel(), label[often].ravel(), np.ones(5 * FRAMES, bool))
        found = _drawn_ccc([run_of(0.6, videos=5, offset=offset)], counts)[0, draw]
        assert found == pytest.approx(float(expected), abs=1e-7)


def test_far_apart_ranks_are_sure_and_equal_systems_share_theirs():
    ranges = rank_ranges({"bad": group(3.0), "good": group(0.1), "like": group(0.501), "alike": group(0.5)})
    assert ranges["good"] == RankRange(1, 1, 1)
    assert ranges["bad"] == RankRange(4, 4, 4)
    assert {ranges["like"].rank, ranges["alike"].rank} == {2, 3}
    for name in ("like", "alike"):
        assert (ranges[name].low, ranges[name].high) == (2, 3)
    assert rank_ranges({"bad": group(3.0), "good": group(0.1)}) == {
        "bad": RankRange(2, 2, 2),
        "good": RankRange(1, 1, 1),
    }


def test_without_enough_there_are_no_ranges():
    assert rank_ranges({}) == {}
    assert rank_ranges({"alone": group(0.5)}) == {}
    assert rank_ranges({"a": group(0.5, videos=2), "b": group(0.6, videos=2)}) == {}
    assert rank_ranges({"a": [[run_of(0.5, seed=0)]], "b": [[run_of(0.6, seed=1)]]}) == {}
