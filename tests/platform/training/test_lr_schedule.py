"""The schedule alone: warm-up, plateau, stages, ends; and against what the trainer released with 002 was seen to do."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.platform.core.recipe import Recipe
from crossfold.platform.training.lr_schedule import Schedule, simulate

PAPER = {"backbones": {"visual": "resnet50"}, "optimizer": {"lr": 1e-5, "warmup_epochs": 5}}


def recipe_of(**changes):
    return Recipe.parse({**PAPER, **changes}, "test")


def improving(epochs):
    return itertools.chain((epoch / 1000 for epoch in range(epochs)), itertools.repeat(-1.0))


@pytest.mark.parametrize(("improves", "ran"), [(3, 87), (8, 90), (12, 94), (20, 100), (40, 100)])
def test_runs_as_long_as_the_released_trainer(improves, ran):
    """Counts of epochs of the authors' own loop with a metric that improves for so many epochs, then never."""
    found = simulate(recipe_of(), 10, improving(improves))
    assert len(found.epochs) == ran
    assert found.end == ("exhausted" if ran < 100 else "epochs")


def test_a_stage_is_five_warm_epochs_and_four_plateaus_of_six():
    found = simulate(recipe_of(), 10, improving(0 + 1))
    assert [epoch.stage for epoch in found.epochs] == [0] * 29 + [1] * 29 + [2] * 29
    assert [epoch.groups for epoch in found.epochs] == [1] * 29 + [2] * 29 + [3] * 29
    rates = [1e-5] * 11 + [1e-6] * 6 + [1e-7] * 6 + [1e-8] * 6
    assert [epoch.last_rate for epoch in found.epochs] == pytest.approx(rates * 3, rel=1e-9)
    events = {epoch.epoch: epoch.event for epoch in found.epochs if epoch.event}
    assert events[28] == "stage 2 begins"
    assert events[86] == "rate below its minimum, no group left"


def test_warm_up_as_printed_ramps_to_the_rate_in_each_epoch():
    schedule = Schedule(recipe_of())
    for _ in range(5):
        assert [schedule.rate(step, 4) for step in range(4)] == pytest.approx([2.5e-6, 5e-6, 7.5e-6, 1e-5])
        schedule.after_epoch(0.1)
    assert schedule.rate(0, 4) == 1e-5


def test_warm_up_as_released_is_a_sawtooth_to_a_fifth_of_the_rate():
    """E4: peaks grow to 2e-6 in the fifth epoch, then the rate steps to 1e-5."""
    schedule = Schedule(recipe_of(optimizer={"lr": 1e-5, "warmup_epochs": 5, "warmup": "release"}))
    steps, peaks = 1000, []
    for epoch in range(5):
        assert schedule.rate(0, steps) == 0
        peaks.append(schedule.rate(steps - 1, steps))
        schedule.after_epoch(epoch)
    assert peaks == pytest.approx([4e-7, 8e-7, 1.2e-6, 1.6e-6, 2e-6], rel=2e-3)
    assert schedule.rate(0, steps) == 1e-5


def test_a_forced_rate_overrides_everything():
    """G2(e), N9: from epoch 6 on, 1e-3 x 0.8^k, k counted in pairs of epochs from epoch 5."""
    optimizer = {"lr": 3e-4, "plateau_patience": 0, "forced": {"after": 5, "lr": 1e-3, "factor": 0.8, "every": 2}}
    schedule = Schedule(recipe_of(backbones={}, optimizer=optimizer | {"plateau_factor": 1.0}))
    rates = []
    for _ in range(10):
        rates.append(schedule.rate(0, 3))
        schedule.after_epoch(0.1)
    assert rates == pytest.approx([3e-4] * 6 + [1e-3, 8e-4, 8e-4, 6.4e-4])


def test_frozen_features_have_one_stage_unless_the_recipe_goes_through_all():
    plain = simulate(recipe_of(backbones={}), 10, improving(3))
    assert {epoch.stage for epoch in plain.epochs} == {0}
    assert plain.end == "patience"
    assert plain.epochs[-1].last_rate == pytest.approx(1e-8), "the rate stays at its minimum"
    assert len(simulate(recipe_of(backbones={}, thaw={"always": True}), 10, improving(3)).epochs) == 87


def test_patience_counts_anew_from_each_stage():
    recipe = recipe_of(patience=30)
    assert len(simulate(recipe, 10, improving(1)).epochs) == 87
    never = recipe_of(patience=30, thaw={"reset_patience": False})
    found = simulate(never, 10, improving(1))
    assert (len(found.epochs), found.end) == (31, "patience")


def test_a_constant_rate_is_one():
    found = simulate(recipe_of(backbones={}, optimizer={"plateau_factor": 1.0, "plateau_patience": 0}), 3, improving(2))
    assert {(epoch.first_rate, epoch.last_rate) for epoch in found.epochs} == {(1e-3, 1e-3)}


def reference_rates(scores, lr, patience, factor, minimum):
    """Torch's scheduler with its threshold and its eps off, which is what the papers name."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", patience=patience, factor=factor, min_lr=minimum, threshold=0.0, eps=0.0
    )
    rates = []
    for score in scores:
        rates.append(optimizer.param_groups[0]["lr"])
        plateau.step(score)
    return rates


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 3), st.sampled_from([0.1, 0.5]))
def test_the_plateau_is_the_one_of_torch(scores, patience, factor):
    optimizer = {"lr": 1e-2, "min_lr": 1e-5, "plateau_patience": patience, "plateau_factor": factor}
    schedule = Schedule(recipe_of(backbones={}, optimizer=optimizer, patience=1000))
    rates = []
    for score in scores:
        rates.append(schedule.rate(0, 1))
        schedule.after_epoch(score / 10)
    assert rates == pytest.approx(reference_rates([s / 10 for s in scores], 1e-2, patience, factor, 1e-5), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=60, max_size=60), st.integers(0, 59))
def test_taken_up_anywhere_it_goes_on_as_it_would_have(scores, stop):
    recipe = recipe_of(optimizer={"lr": 1e-5, "warmup_epochs": 2, "plateau_patience": 1}, epochs=60, patience=20)
    whole, resumed = Schedule(recipe), Schedule(recipe)
    for epoch, score in enumerate(scores):
        if epoch == stop:
            taken = Schedule(recipe)
            taken.load_state_dict(resumed.state_dict())
            resumed = taken
        if whole.end is not None:
            break
        assert (whole.rate(0, 3), whole.groups, whole.end) == (resumed.rate(0, 3), resumed.groups, resumed.end)
        assert whole.after_epoch(score) == resumed.after_epoch(score)
    assert whole.state_dict() == resumed.state_dict()
    assert math.isfinite(whole.rate(0, 3))
