"""Effect sizes, equivalence, corrections and groups, against naive references and known answers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from crossfold.reports.stats.hypothesis_tests import (
    Family,
    equivalence,
    groups_of,
    paired_effect,
    rank_agreement,
)

values = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


@given(values)
@settings(deadline=None)
def test_the_paired_effect_is_mean_over_spread(differences):
    effect = paired_effect(differences)
    if np.ptp(differences) < 1e-12:
        assert effect is None
    else:
        assert effect == pytest.approx(np.mean(differences) / np.std(differences, ddof=1))


def test_nothing_has_no_effect():
    assert paired_effect([0.1]) is None


@given(st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=10, unique=True))
@settings(deadline=None)
def test_equivalence_is_the_larger_of_two_one_sided_tests(differences):
    if np.ptp(differences) < 1e-9:
        return
    lower = stats.ttest_1samp(differences, -0.005, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, 0.005, alternative="less").pvalue
    error = float(stats.sem(differences))
    assert equivalence(float(np.mean(differences)), error, len(differences) - 1) == pytest.approx(
        max(lower, upper), abs=1e-9
    )


def test_equivalence_separates_the_same_from_the_unknown_and_the_different():
    assert equivalence(0.0001, 0.0002, 10) < 0.05
    assert equivalence(0.0, 0.02, 10) > 0.05, "as near to zero, but far too uncertain to say"
    assert equivalence(0.1, 0.001, 10) > 0.9
    assert (equivalence(0.0, 0.0, 5), equivalence(0.3, 0.0, 5)) == (0.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        equivalence(0.0, 0.1, 5, margin=0)


def test_p_counts_every_pair_on_every_target():
    assert Family().p(-2.5, 7) == pytest.approx(2 * stats.t.sf(2.5, 7))
    p = float(stats.t.sf(6, 7) * 2)
    assert Family(systems=5, targets=2).p(6, 7) == pytest.approx(20 * p)
    assert Family(systems=5).p(0.1, 7) == 1


@given(st.integers(2, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=15))
def test_groups_are_all_largest_sets_that_are_not_apart(count, chosen):
    """Against a search of every subset."""
    names = [f"s{index}" for index in range(count)]
    pairs = {frozenset((f"s{a}", f"s{b}")) for a, b in chosen if a != b}
    whole = [
        set(subset)
        for size in range(2, count + 1)
        for subset in combinations(names, size)
        if not any(frozenset(pair) in pairs for pair in combinations(subset, 2))
    ]
    largest = [subset for subset in whole if not any(subset < other for other in whole)]
    groups = groups_of(names, lambda a, b: frozenset((a, b)) in pairs)
    assert sorted(map(sorted, largest)) == sorted(map(sorted, groups))


def test_rank_agreement_needs_three_rows():
    assert rank_agreement([1, 2, 3], [0.1, 0.2, 0.3]).tau == pytest.approx(1)
    assert rank_agreement([1, 2, 3], [0.3, 0.2, 0.1]).tau == pytest.approx(-1)
    assert rank_agreement([1, 2], [1, 2]) is None
    assert rank_agreement([1, 2, 3], [1, 1, 1]) is None
