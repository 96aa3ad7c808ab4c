"""How often the statistics of reports are right, on data whose truth is known: the tables of `docs/statistics.md`.

Each function draws `times` independent data sets, gives them to the code of the reports, and returns shares of them.
"""

from itertools import combinations

import numpy as np

from crossfold.reports.stats.hypothesis_tests import ALPHA, Family, equivalence, groups_of
from crossfold.reports.stats.intervals import Interval, mean_interval, paired_folds, paired_gain
from crossfold.reports.stats.power import mean_squares, power_of
from tests.support.simulated_videos import SLOPE, draw_system, draw_videos, runs_of_data_set, true_ccc

SEEDS = 3
SEED_NOISE = {"seed_spread": 0.03, "seed_bias": 0.1}
"""How much the seeds of one system differ: in how predictions scale, and in the bias on a video."""


def systems_of(rng, times, count, model, slopes, seeds=SEEDS):
    """Runs of several systems on the same videos: [times][systems]."""
    videos = draw_videos(rng, times, count, model)
    noise = SEED_NOISE if seeds > 1 else {}
    drawn = [draw_system(rng, videos, seeds, slope=slope, **noise) for slope in slopes]
    return [[runs_of_data_set(found, at) for found in drawn] for at in range(times)]


def coverage(rng, times, count, model, seeds=SEEDS):
    """Shares of 95% intervals of a CCC, and of a gain between equal systems, that hold the truth.

    The second is one less the type I error of a single comparison.
    """
    truth = true_ccc(**(SEED_NOISE if seeds > 1 else {}))
    score = gain = 0
    for a, b in systems_of(rng, times, count, model, (SLOPE, SLOPE), seeds):
        found, difference = mean_interval([a]), paired_gain([a], [b])
        score += found.low <= truth <= found.high
        gain += difference.low <= 0 <= difference.high
    return score / times, gain / times


def percentile_coverage(rng, times, count, model, draws=400):
    """The same of the percentile bootstrap over videos, which earlier versions used, for one seed."""
    truth = true_ccc()
    score = gain = 0
    for a, b in systems_of(rng, times, count, model, (SLOPE, SLOPE), 1):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        first, second = (_resampled(runs[0].moments, drawn) for runs in (a, b))
        found, difference = (Interval(*np.quantile(x, [0.025, 0.975])) for x in (first, first - second))
        score += found.low <= truth <= found.high
        gain += difference.low <= 0 <= difference.high
    return score / times, gain / times


def _resampled(moments, counts):
    """CCC of the pooled frames of each resample."""
    n, x, y = moments.n, moments.mean_x, moments.mean_y
    sums = (n, n * x, n * y, moments.sxx + n * x * x, moments.syy + n * y * y, moments.sxy + n * x * y)
    n, x, y, xx, yy, xy = (counts @ each for each in sums)
    x, y, xx, yy, xy = (each / n for each in (x, y, xx, yy, xy))
    return 2 * (xy - x * y) / (xx + yy - 2 * x * y)


def family_errors(rng, times, count, model, systems, targets=2):
    """Shares of data sets of equal systems in which a report says that any differ.

    Three shares: in any comparison by target; in any claim, each of which asks for both targets of one pair; in the
    groups of the mean over targets.
    """
    by_target = [systems_of(rng, times, count, model, (SLOPE,) * systems) for _ in range(targets)]
    pairs = list(combinations(range(systems), 2))
    any_pair = any_claim = any_group = 0
    for at in range(times):
        runs = [sets[at] for sets in by_target]
        single = {
            (a, b): [paired_gain([one[a]], [one[b]], Family(systems, targets)).sign for one in runs] for a, b in pairs
        }
        mean = {
            (a, b): paired_gain([one[a] for one in runs], [one[b] for one in runs], Family(systems)).sign
            for a, b in pairs
        }
        any_pair += any(any(signs) for signs in single.values())
        any_claim += any(set(signs) in ({1}, {-1}) for signs in single.values())
        groups = groups_of([str(name) for name in range(systems)], lambda a, b, mean=mean: mean[int(a), int(b)] != 0)
        any_group += len(groups) != 1 or len(groups[0]) != systems
    return any_pair / times, any_claim / times, any_group / times


def false_equivalence(rng, times, count, model, margin=0.1):
    """Share of pairs called equivalent within `margin` where the true difference is `margin`."""
    low, high = 0.2, SLOPE
    for _ in range(40):  # the slope at which the truth is lower by the margin
        middle = (low + high) / 2
        low, high = (low, middle) if true_ccc(SLOPE) - true_ccc(middle) < margin else (middle, high)
    found = 0
    for a, b in systems_of(rng, times, count, model, (SLOPE, low), 1):
        gain = paired_gain([a], [b])
        found += equivalence(gain.mean, gain.spread.error, gain.spread.df, margin) < ALPHA
    return found / times


def optimism(rng, times, count, model, epochs=30):
    """Mean by which the best of `epochs` equally good epochs exceeds the truth when the reported videos pick it.

    Returns it with the share of gains between two such systems that exclude zero, which is a type I error.
    """
    excess, wrong = [], 0
    videos = draw_videos(rng, times, count, model)
    sides = [draw_system(rng, videos, epochs, **SEED_NOISE) for _ in range(2)]
    truth = true_ccc(**SEED_NOISE)
    for at in range(times):
        best = [max(runs_of_data_set(side, at), key=lambda run: run.ccc) for side in sides]
        a, b = ([type(run)(0, 0, run.ccc, run.videos, run.moments)] for run in best)
        excess.append(a[0].ccc - truth)
        gain = paired_gain([a], [b])
        wrong += not gain.low <= 0 <= gain.high
    return float(np.mean(excess)), wrong / times


def power(rng, times, count, model, slope, systems):
    """Share of data sets in which the better of two systems beats the other, with the true difference in CCC."""
    found = 0
    for a, b in systems_of(rng, times, count, model, (SLOPE, slope)):
        found += paired_gain([a], [b], Family(systems)).sign == 1
    return true_ccc(**SEED_NOISE) - true_ccc(slope, **SEED_NOISE), found / times


def pairs_of_systems(rng, times, design, slopes, spread, model):
    """Runs of two systems, whose predictions scale by `slopes`, on independent data sets of a design.

    spread: deviation of the slope, and of the bias on a video, between seeds.
    """
    found = [([], []) for _ in range(times)]
    for fold, count in enumerate(design.videos):
        videos = draw_videos(rng, times, count, model)
        for at, slope in enumerate(slopes):
            moments = draw_system(rng, videos, design.seeds, slope, *spread)
            for t in range(times):
                found[t][at].extend(runs_of_data_set(moments, t, fold))
    return found


def power_intervals(rng, times, ran, plans, model, slopes=(1.2, 0.8), spread=(0.1, 0.15)):
    """For each plan: share of pilots whose 90% interval of the power holds it, its mean width, and mean chance less it.

    ran: the design of the pilots. The truth is the share of verdicts among `5 * times` data sets of the plan.
    """
    gain = true_ccc(slopes[0], *spread) - true_ccc(slopes[1], *spread)
    pilots = [mean_squares(paired_folds([a], [b])) for a, b in pairs_of_systems(rng, times, ran, slopes, spread, model)]
    found = []
    for plan in plans:
        sets = pairs_of_systems(rng, 5 * times, plan, slopes, spread, model)
        truth = np.mean([paired_gain([a], [b]).sign > 0 for a, b in sets])
        said = [power_of(squares, gain, plan) for squares in pilots]
        held = np.mean([each.low <= truth <= each.high for each in said])
        width = np.mean([each.high - each.low for each in said])
        found.append((held, width, np.mean([each.chance for each in said]) - truth))
    return found
