"""Each statistic against arithmetic done by hand or by a loop."""

from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from crossfold.platform.core.metrics import Moments, ccc_of, moments
from crossfold.reports.stats.bootstrap import (
    MIN_VIDEOS,
    Run,
    bootstrap_mean,
    holm,
    mean_interval,
    mean_scores,
    mean_sd,
    merged_ccc,
    moments_of,
    paired_gain,
    rank_agreement,
    resample,
    restrict_to_common_runs,
)


def make_run(fold: int, seed: int, noise: float, videos: int = 6, offset: float = 0.4) -> Run:
    """A run whose predictions are a shared truth plus noise; fields are per video."""
    rng = np.random.default_rng([fold, seed])
    label = np.random.default_rng(fold).standard_normal((videos, 80)) + offset
    prediction = label + noise * rng.standard_normal((videos, 80))
    mask = np.ones_like(label, bool)
    pooled = moments(prediction.ravel(), label.ravel(), mask.ravel())
    names = tuple(f"v{index}" for index in range(videos))
    return Run(fold, seed, float(ccc_of(pooled)), names, moments(prediction, label, mask))


def one(m: Moments, index: int) -> Moments:
    return Moments(*(field[index] for field in (m.n, m.mean_x, m.mean_y, m.sxx, m.syy, m.sxy)))


def test_a_resample_is_the_sum_of_its_videos():
    run = make_run(0, 0, 0.7)
    counts = resample(6, fold=0, draws=50)
    by_loop = [
        float(ccc_of(reduce(add, [one(run.moments, v) for v in range(6) for _ in range(int(row[v]))])))
        for row in counts
    ]
    np.testing.assert_allclose(merged_ccc(run.moments, counts), by_loop, rtol=0, atol=1e-12)


def test_a_resample_survives_labels_far_from_zero():
    near, far = make_run(0, 0, 0.7, offset=0.0), make_run(0, 0, 0.7, offset=1e6)
    counts = resample(6, fold=0, draws=50)
    np.testing.assert_allclose(merged_ccc(near.moments, counts), merged_ccc(far.moments, counts), atol=1e-6)


def test_every_video_once_is_the_pooled_score():
    run = make_run(1, 0, 0.5)
    assert merged_ccc(run.moments, np.ones((1, 6)))[0] == pytest.approx(run.ccc, abs=1e-12)


def test_resamples_depend_on_the_fold_and_on_nothing_else():
    np.testing.assert_array_equal(resample(6, fold=0, draws=10), resample(6, fold=0, draws=10))
    assert (resample(6, fold=0, draws=10) != resample(6, fold=1, draws=10)).any()
    assert (resample(6, fold=0, draws=10).sum(1) == 6).all()


def test_means_weigh_folds_alike_and_spread_is_that_of_seeds():
    cells = pd.DataFrame({"fold": [0, 0, 0, 1], "seed": [0, 1, 2, 0], "ccc": [0.1, 0.2, 0.3, 0.6]})
    result = mean_sd(cells)
    assert result.mean == pytest.approx((0.2 + 0.6) / 2)
    assert result.sd == pytest.approx(0.1)
    assert mean_sd(cells[cells["seed"] == 0]).sd is None


def test_an_interval_holds_the_score_and_is_the_same_every_time():
    runs = [make_run(fold, seed, 0.6) for fold in (0, 1) for seed in (0, 1)]
    interval = mean_interval([runs])
    assert interval is not None
    assert interval.low < np.mean([run.ccc for run in runs]) < interval.high
    assert interval == mean_interval([runs])


def test_few_videos_give_no_interval():
    assert mean_interval([[make_run(0, 0, 0.6, videos=MIN_VIDEOS - 1)]]) is None
    assert mean_interval([[make_run(0, 0, 0.6, videos=1)]]) is None
    assert mean_interval([[]]) is None


def test_a_fold_of_one_video_stays_as_it_is():
    large, single = make_run(0, 0, 0.6), make_run(1, 0, 0.6, videos=1)
    alone, both = mean_interval([[large]]), mean_interval([[large, single]])
    assert alone is not None
    assert both is not None
    assert both.high - both.low == pytest.approx((alone.high - alone.low) / 2)


def test_a_gain_is_paired():
    good = [make_run(fold, seed, 0.4) for fold in (0, 1) for seed in (0, 1, 2)]
    bad = [make_run(fold, seed, 0.6) for fold in (0, 1) for seed in (0, 1, 2)]
    gain = paired_gain([good], [bad])
    assert gain is not None
    assert gain.n == 6
    assert gain.mean == pytest.approx(np.mean([a.ccc - b.ccc for a, b in zip(good, bad, strict=True)]))
    assert gain.low < gain.mean < gain.high
    assert gain.sign == 1
    assert gain.p < 0.01
    assert gain.p_wilcoxon == pytest.approx(2 / 2**6)
    back = paired_gain([bad], [good])
    assert (back.mean, back.sign) == (pytest.approx(-gain.mean), -1)
    alone = mean_interval([good]), mean_interval([bad])
    assert gain.high - gain.low < sum(interval.high - interval.low for interval in alone)


def test_a_gain_uses_only_the_folds_and_seeds_that_both_have():
    a = [make_run(0, seed, 0.4) for seed in (0, 1)]
    b = [make_run(0, seed, 0.6) for seed in (1, 2)]
    gain = paired_gain([a], [b])
    assert gain.n == 1
    assert gain.p is None
    assert paired_gain([a], [[make_run(1, 0, 0.4)]]) is None


def test_a_system_gains_nothing_over_itself():
    runs = [make_run(0, seed, 0.5) for seed in (0, 1, 2)]
    gain = paired_gain([runs], [runs])
    assert (gain.mean, gain.sign, gain.p, gain.p_wilcoxon) == (0, 0, None, None)


def test_runs_on_other_videos_are_never_paired():
    with pytest.raises(ValueError, match="fold 0 seed 0"):
        paired_gain([[make_run(0, 0, 0.5, videos=6)]], [[make_run(0, 0, 0.5, videos=5)]])


def two_targets(noise: float) -> list[list[Run]]:
    """Two folds and seeds of two targets with different difficulty."""
    return [[make_run(fold, seed, scale * noise) for fold in (0, 1) for seed in (0, 1)] for scale in (1.0, 1.4)]


def test_the_mean_over_targets_meets_one_draw_of_videos():
    groups = two_targets(0.5)
    drawn = [bootstrap_mean(group, draws=300) for group in groups]
    interval = mean_interval(groups, draws=300)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])))
    assert mean_scores(groups)["ccc"].to_list() == pytest.approx(
        [np.mean([a.ccc, b.ccc]) for a, b in zip(*groups, strict=True)]
    )


def test_a_gain_in_the_mean_is_the_mean_of_gains_and_paired_by_video():
    good, bad = two_targets(0.4), two_targets(0.6)
    gain = paired_gain(good, bad, draws=300)
    single = [paired_gain([a], [b], draws=300) for a, b in zip(good, bad, strict=True)]
    assert gain.mean == pytest.approx(np.mean([each.mean for each in single]))
    assert gain.n == 4
    drawn = np.mean([bootstrap_mean(a, 300) - bootstrap_mean(b, 300) for a, b in zip(good, bad, strict=True)], axis=0)
    assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_a_video_without_labels_for_a_target_weighs_nothing_there():
    full, short = make_run(0, 0, 0.5), make_run(0, 0, 0.5, videos=5)
    _, padded = restrict_to_common_runs([[full], [short]])
    assert padded[0].videos == full.videos
    assert merged_ccc(padded[0].moments, np.ones((1, 6)))[0] == pytest.approx(short.ccc, abs=1e-12)
    assert mean_interval([[full], [short]]) is not None


def test_a_mean_needs_every_target():
    full = two_targets(0.5)
    part = [full[0], full[1][:1]]
    assert len(mean_scores(part)) == 1
    assert paired_gain([full[0], []], full) is None


def test_holm_corrects_what_was_tested():
    assert holm([0.01, None, 0.04, 0.03]) == (pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06))
    assert holm([None]) == (None,)


def test_rank_agreement_needs_three_rows():
    assert rank_agreement([1, 2, 3], [0.1, 0.2, 0.3]).tau == pytest.approx(1)
    assert rank_agreement([1, 2, 3], [0.3, 0.2, 0.1]).tau == pytest.approx(-1)
    assert rank_agreement([1, 2], [1, 2]) is None
    assert rank_agreement([1, 2, 3], [1, 1, 1]) is None


def test_moments_are_read_in_order_of_name():
    names, m = moments_of({"b": [2, 0, 0, 1, 1, 1], "a": [1, 0, 0, 3, 3, 3]})
    assert names == ("a", "b")
    assert m.n.tolist() == [1, 2]


@given(st.lists(st.floats(0, 1), max_size=12))
@settings(deadline=None)
def test_holm_is_that_of_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    np.testing.assert_allclose(holm(p_values), expected, atol=1e-12)


def test_runs_on_the_same_videos_merge_together_as_they_do_alone():
    runs = [make_run(0, seed, 0.4 + 0.2 * seed) for seed in range(3)]
    counts = resample(6, fold=0, draws=40)
    fields = ("n", "mean_x", "mean_y", "sxx", "syy", "sxy")
    together = Moments(*(np.stack([getattr(run.moments, name) for run in runs], axis=-1) for name in fields))
    alone = np.stack([merged_ccc(run.moments, counts) for run in runs], axis=1)
    np.testing.assert_allclose(merged_ccc(together, counts), alone, rtol=0, atol=1e-12)
    np.testing.assert_allclose(bootstrap_mean(runs, 40), alone.mean(axis=1), rtol=0, atol=1e-12)


def test_the_order_of_runs_changes_nothing_and_the_cache_is_read_only():
    runs = [make_run(fold, seed, 0.5) for fold in range(2) for seed in range(2)]
    kept = bootstrap_mean(runs, 30)
    assert bootstrap_mean(runs[::-1], 30) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1.0


def test_a_gain_keeps_the_difference_of_each_pair():
    better, worse = ([make_run(0, seed, noise) for seed in range(3)] for noise in (0.3, 0.6))
    gain = paired_gain([better], [worse])
    assert gain.differences == pytest.approx([a.ccc - b.ccc for a, b in zip(better, worse, strict=True)])
