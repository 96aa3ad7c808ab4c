"""The short form of tests/benchmarks/test_simulations.py: errors that a wrong formula would make, on little data."""

import numpy as np
import pytest

from tests.support.simulated_videos import MODELS
from tests.support.simulations import coverage, false_equivalence, family_errors, optimism, percentile_coverage, power

TIMES = 150


@pytest.mark.parametrize("model", MODELS)
def test_intervals_cover_and_a_bootstrap_does_not(model):
    held = [coverage(np.random.default_rng([count, 1]), TIMES, count, model) for count in (6, 12)]
    assert 0.91 <= np.mean(held) <= 0.99
    old = percentile_coverage(np.random.default_rng(1), TIMES, 6, model)
    assert old[0] < 0.9


def test_equal_systems_rarely_differ():
    assert max(family_errors(np.random.default_rng(2), 60, 9, MODELS[0], 4)) <= 0.1


def test_different_systems_are_rarely_equivalent_and_better_ones_are_found():
    assert false_equivalence(np.random.default_rng(3), TIMES, 12, MODELS[0]) <= 0.1
    gain, found = power(np.random.default_rng(4), 60, 24, MODELS[0], 0.5, 2)
    assert gain > 0.05
    assert found > 0.5


def test_the_best_epoch_flatters():
    few, many = (optimism(np.random.default_rng(5), 30, count, MODELS[0], 20)[0] for count in (6, 48))
    assert few > many > 0
