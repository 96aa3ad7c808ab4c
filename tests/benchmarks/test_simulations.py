"""Whether the statistics of reports are right, on data whose truth is known: the tables of docs/statistics.md.

It measures no speed, so it records nothing: each share stands next to the bound that it must keep.
`CROSSFOLD_BENCH_FULL=1` draws three times as many data sets for the coverage, as the tables have it, and takes nearly
twice as long.
"""

import os
import sys

import numpy as np
import pytest

from crossfold.reports.stats.power import Design
from tests.support.simulated_videos import MODELS
from tests.support.simulations import (
    coverage,
    false_equivalence,
    family_errors,
    optimism,
    percentile_coverage,
    power,
    power_intervals,
)

COUNTS = (6, 9, 12, 24, 76)
FULL = bool(os.environ.get("CROSSFOLD_BENCH_FULL"))
DRAWN = 3 if FULL else 1
"""Thousands of data sets."""
# Three standard errors of a simulation are 0.012 of 3,000 data sets, and 0.021 of 1,000.
LOW, HIGH = (0.93, 0.97) if FULL else (0.921, 0.979)
"""Where the coverage of a 95% interval must lie."""
MOST_ERRORS = 0.06


@pytest.fixture
def say(capsys):
    def line(*words):
        with capsys.disabled():
            sys.stdout.write("| " + " | ".join(map(str, words)) + " |\n")

    return line


def shares(values):
    return " / ".join(f"{value:.3f}" for value in values)


@pytest.mark.benchmark
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("model", MODELS)
def test_coverage_and_type_one(model, seeds, say):
    """CCC / gain, by number of videos."""
    found = [coverage(np.random.default_rng([count, seeds]), DRAWN * 1000, count, model, seeds) for count in COUNTS]
    say("coverage", model, f"{seeds} seed(s)", *map(shares, found))
    assert all(LOW <= share <= HIGH for pair in found for share in pair)


@pytest.mark.benchmark
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_fewest_videos(count, say, monkeypatch):
    """CCC / gain, by model; two videos are below the minimum, which is lifted here."""
    monkeypatch.setattr("crossfold.reports.stats.intervals.MIN_VIDEOS", 2)
    found = [coverage(np.random.default_rng(count), DRAWN * 1000, count, model, 1) for model in MODELS]
    say("fewest", count, *map(shares, found))
    held = [LOW <= share <= HIGH for pair in found for share in pair]
    assert all(held) == (count >= 3)


@pytest.mark.benchmark
@pytest.mark.parametrize("model", MODELS)
def test_the_percentile_bootstrap_is_too_narrow(model, say):
    found = [percentile_coverage(np.random.default_rng(count), 1000, count, model) for count in COUNTS]
    say("percentile", model, *map(shares, found))
    assert found[0][0] < 0.9


@pytest.mark.benchmark
@pytest.mark.parametrize("count", [6, 12, 76])
@pytest.mark.parametrize("systems", [3, 6])
def test_family_wise_errors_and_groups(systems, count, say):
    """Any comparison by target / any claim / groups, by model."""
    found = [family_errors(np.random.default_rng([count, systems]), 400, count, model, systems) for model in MODELS]
    say("family", f"{systems} systems", f"{count} videos", *map(shares, found))
    # Three standard errors of the simulation are 0.035.
    assert np.max(found) <= MOST_ERRORS + 0.035
    assert np.max(np.mean(found, axis=0)) <= MOST_ERRORS


@pytest.mark.benchmark
def test_equivalence_is_rarely_false(say):
    found = [[false_equivalence(np.random.default_rng(c), 1500, c, model) for c in COUNTS] for model in MODELS]
    for model, row in zip(MODELS, found, strict=True):
        say("TOST", model, *(f"{share:.3f}" for share in row))
    assert 0.01 < np.max(found) <= MOST_ERRORS + 0.017


@pytest.mark.benchmark
def test_optimism_of_the_best_epoch(say):
    found = [optimism(np.random.default_rng(count), 300, count, MODELS[0]) for count in COUNTS]
    say("optimism", *(f"+{excess:.3f} / {wrong:.3f}" for excess, wrong in found))
    assert all(excess > 0 for excess, _ in found[:3])


@pytest.mark.benchmark
@pytest.mark.parametrize("systems", [2, 10])
def test_power(systems, say):
    for slope in (0.75, 0.65, 0.5):
        found = [power(np.random.default_rng(count), 500, count, MODELS[0], slope, systems) for count in COUNTS]
        say("power", f"{systems} systems", f"gain {found[0][0]:.3f}", *(f"{share:.2f}" for _, share in found))
    assert found[-1][1] > (0.9 if systems == 2 else 0.6)


PILOTS = (Design((12,), 3), Design((9, 9), 5), Design((20,) * 5, 3))
PLANS = (Design((12,), 3), Design((24,), 3), Design((9, 9, 9), 3), Design((12,) * 5, 3), Design((20,) * 5, 3))


@pytest.mark.benchmark
@pytest.mark.parametrize("ran", PILOTS, ids=str)
@pytest.mark.parametrize("model", MODELS[: 2 if FULL else 1])
def test_intervals_of_power(model, ran, say):
    """Coverage of 90% intervals / their width / mean chance less the truth, by plan."""
    found = power_intervals(np.random.default_rng([19, len(ran.videos)]), 200, ran, PLANS, model)
    say("power interval", model, f"{len(ran.videos)} x {ran.videos[0]}, {ran.seeds} seeds", *map(shares, found))
    # One and a half standard errors of the simulation are 0.03.
    assert min(held for held, _, _ in found) >= 0.87
