"""Each statistic against arithmetic done by hand or by a loop."""

from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from crossfold.platform.core.metrics import Moments, ccc_of, moments
from crossfold.reports.stats.intervals import (
    MIN_VIDEOS,
    left_out,
    mean_interval,
    paired_gain,
    spread_of,
    unpaired_gain,
)
from crossfold.reports.stats.runs import Run, mean_scores, mean_sd, moments_of, restrict_to_common_runs


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


def test_a_video_is_left_out_as_by_a_loop():
    run = make_run(0, 0, 0.7)
    by_loop = [ccc_of(reduce(add, [one(run.moments, v) for v in range(6) if v != out])) - run.ccc for out in range(6)]
    other = make_run(0, 1, 0.3)  # computed with it at once
    np.testing.assert_allclose(left_out([run, other])[:, 0], by_loop, rtol=0, atol=1e-12)
    np.testing.assert_allclose(left_out([run, other])[:, 1], left_out([other])[:, 0], rtol=0, atol=1e-15)


def test_labels_far_from_zero_lose_no_digits():
    near, far = make_run(0, 0, 0.7, offset=0.0), make_run(0, 0, 0.7, offset=1e6)
    np.testing.assert_allclose(left_out([near]), left_out([far]), atol=1e-6)


def test_the_jackknife_of_a_plain_mean_is_its_standard_error():
    """With equal videos the variance about the mean is that of a sample, whose t has one degree of freedom fewer."""
    values = np.array([0.1, -0.1, 0.1, -0.1])
    changes = (values.mean() - values) / 3
    spread = spread_of([(changes[:, None], np.array([values.mean()]))])
    assert spread.error == pytest.approx(stats.sem(values))
    assert (spread.df, spread.seeds) == (3, False)


def test_one_video_that_decides_leaves_few_degrees_of_freedom():
    even = np.tile([[0.01], [-0.01]], (10, 1))
    lone = even.copy()
    lone[0] = 0.5
    df = [spread_of([(changes, np.array([0.5]))]).df for changes in (even, lone)]
    assert df[0] == 19
    assert df[1] < 4


def test_seeds_add_to_the_spread_once_three_ran():
    changes, scores = np.tile([[0.02], [-0.02], [0.01], [-0.01]], (1, 4)), np.array([0.3, 0.5, 0.4, 0.6])
    two, four = (spread_of([(changes[:, :n], scores[:n])]) for n in (2, 4))
    assert four.error**2 == pytest.approx(two.error**2 + scores.var(ddof=1) / 4)
    assert (two.seeds, four.seeds) == (False, True)


def test_what_videos_and_seeds_share_counts_once():
    """Where seeds differ on videos by chance alone, the spread over seeds is in the jackknife over videos already."""
    ratios = []
    for own in np.random.default_rng(0).standard_normal((200, 40, 5)):
        changes = (own.mean(axis=0) - own) / 39
        ratios.append(spread_of([(changes, own.mean(axis=0))]).error ** 2 * 200)
    # 2 without the interaction; a little above 1, because a negative rest counts as none.
    assert 1 < np.mean(ratios) < 1.4


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


def test_a_fold_with_too_few_videos_leaves_no_interval():
    assert mean_interval([[make_run(0, 0, 0.6), make_run(1, 0, 0.6, videos=MIN_VIDEOS - 1)]]) is None


def test_two_seeds_give_an_interval_and_no_verdict():
    a, b = ([make_run(0, seed, noise) for seed in (0, 1)] for noise in (0.3, 0.9))
    gain = paired_gain([a], [b])
    assert gain.low > 0
    assert (gain.judged, gain.p, gain.sign) == (False, None, 0)


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
    assert (gain.mean, gain.sign, gain.p) == (0, 0, 1)


def test_runs_on_other_videos_are_never_paired():
    with pytest.raises(ValueError, match="fold 0 seed 0"):
        paired_gain([[make_run(0, 0, 0.5, videos=6)]], [[make_run(0, 0, 0.5, videos=5)]])


def two_targets(noise: float) -> list[list[Run]]:
    """Two folds and seeds of two targets with different difficulty."""
    return [[make_run(fold, seed, scale * noise) for fold in (0, 1) for seed in (0, 1)] for scale in (1.0, 1.4)]


def test_a_gain_in_the_mean_is_the_mean_of_gains():
    good, bad = two_targets(0.4), two_targets(0.6)
    single = [paired_gain([a], [b]) for a, b in zip(good, bad, strict=True)]
    assert paired_gain(good, bad).mean == pytest.approx(np.mean([each.mean for each in single]))
    assert abs(paired_gain(good, good).mean) < 1e-12


def test_a_video_without_labels_for_a_target_weighs_nothing_there():
    full, short = make_run(0, 0, 0.5), make_run(0, 0, 0.5, videos=5)
    _, padded = restrict_to_common_runs([[full], [short]])
    assert padded[0].videos == full.videos
    np.testing.assert_allclose(left_out([padded[0]])[:, 0], [*left_out([short])[:, 0], 0], atol=1e-12)
    assert mean_interval([[full], [short]]) is not None


def test_a_mean_needs_every_target():
    full = two_targets(0.5)
    part = [full[0], full[1][:1]]
    assert len(mean_scores(part)) == 1
    assert paired_gain([full[0], []], full) is None


def test_moments_are_read_in_order_of_name():
    names, m = moments_of({"b": [2, 0, 0, 1, 1, 1], "a": [1, 0, 0, 3, 3, 3]})
    assert names == ("a", "b")
    assert m.n.tolist() == [1, 2]


def test_a_gain_keeps_the_difference_of_each_pair():
    better, worse = ([make_run(0, seed, noise) for seed in range(3)] for noise in (0.3, 0.6))
    gain = paired_gain([better], [worse])
    assert gain.differences == pytest.approx([a.ccc - b.ccc for a, b in zip(better, worse, strict=True)])


def test_without_pairs_the_errors_of_both_sides_add_up():
    easy, hard = ([[make_run(fold, seed, noise) for seed in range(3)]] for fold, noise in ((1, 0.4), (0, 0.9)))
    gain = unpaired_gain(easy, hard)
    alone = [unpaired_gain(side, 0.0) for side in (easy, hard)]
    assert gain.mean == pytest.approx(alone[0].mean - alone[1].mean)
    first, second = (each.spread for each in alone)
    assert gain.spread.error == pytest.approx(np.hypot(first.error, second.error))
    assert min(first.df, second.df) <= gain.spread.df <= first.df + second.df
    assert (gain.n, gain.judged) == (0, True)
    assert unpaired_gain(easy, 0.25).mean == pytest.approx(alone[0].mean - 0.25)
    assert unpaired_gain(easy, [[]]) is None
    assert not unpaired_gain(easy, [[make_run(0, 0, 0.9)]]).judged
