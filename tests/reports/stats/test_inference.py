"""Effect sizes, equivalence and ranks, against naive references and known answers."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from crossfold.reports.stats.hypothesis_tests import equivalence, paired_effect, rank_systems

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
    assert equivalence([0.001]) is None


@given(st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=10, unique=True))
@settings(deadline=None)
def test_equivalence_is_the_larger_of_two_one_sided_tests(differences):
    if np.ptp(differences) < 1e-9:
        return
    lower = stats.ttest_1samp(differences, -0.005, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, 0.005, alternative="less").pvalue
    assert equivalence(differences, 0.005) == pytest.approx(max(lower, upper), abs=1e-9)


def test_equivalence_separates_the_same_from_the_unknown_and_the_different():
    assert equivalence([0.0005, -0.0004, 0.0002, -0.0001, 0.0003, 0.0]) < 0.05
    # As near to zero on average, but far too scattered to say.
    assert equivalence([0.05, -0.05, 0.04, -0.04, 0.03, -0.03]) > 0.05
    assert equivalence([0.1, 0.101, 0.099]) > 0.9
    assert (equivalence([0.0, 0.0]), equivalence([0.3, 0.3])) == (0.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        equivalence([0.0, 0.1], margin=0)


def test_ranks_are_those_of_a_loop_and_the_critical_difference_that_of_the_table():
    """q of Nemenyi's test for four systems at 0.05 is tabulated as 2.569, so CD = 2.569 sqrt(4 * 5 / (6 * 14))."""
    rng = np.random.default_rng(1)
    scores = pd.DataFrame(rng.integers(0, 9, (14, 4)) / 10, columns=list("abcd"))
    ranks = rank_systems(scores)
    for name in scores:
        naive = []
        for _, row in scores.iterrows():
            others = [row[other] for other in scores if other != name]
            naive.append(
                1 + sum(other > row[name] for other in others) + sum(other == row[name] for other in others) / 2
            )
        assert ranks.mean[name] == pytest.approx(np.mean(naive))
    assert list(ranks.mean) == sorted(ranks.mean)
    assert ranks.critical_difference == pytest.approx(2.569 * np.sqrt(20 / 84), abs=1e-3)
    assert (ranks.statistic, ranks.p) == pytest.approx(tuple(stats.friedmanchisquare(*scores.to_numpy().T)))


def test_groups_agree_with_the_critical_difference_and_with_the_pairwise_test():
    rng = np.random.default_rng(3)
    scores = pd.DataFrame(rng.normal(size=(20, 6)) + np.arange(6) * 0.6, columns=list("abcdef"))
    ranks = rank_systems(scores)
    pairs = scikit_posthocs.posthoc_nemenyi_friedman(scores)
    inside = {frozenset(pair) for group in ranks.groups for pair in pairwise(group)}
    assert inside
    for i, a in enumerate(ranks.mean.index):
        for b in ranks.mean.index[i + 1 :]:
            apart = ranks.mean[b] - ranks.mean[a] > ranks.critical_difference
            assert apart == (pairs.loc[a, b] < 0.05)
            assert apart != any({a, b} <= set(group) for group in ranks.groups)


def test_ranks_need_three_systems_and_two_complete_blocks():
    scores = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 3.0, 1.0], "c": [3.0, 1.0, np.nan]})
    assert rank_systems(scores[["a", "b"]]) is None
    assert rank_systems(scores.iloc[1:]) is None
    assert rank_systems(scores).blocks == 2


def test_systems_that_are_all_alike_are_one_group():
    ranks = rank_systems(pd.DataFrame({name: [0.5, 0.5, 0.5] for name in "abc"}))
    assert (ranks.p, ranks.groups) == (1.0, (("a", "b", "c"),))
