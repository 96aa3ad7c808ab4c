"""CCC against an independent reference, torchmetrics and hand calculation; and where it is defined at the edges."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crossfold.platform.core.metrics import Moments, ccc, ccc_of, moments, pcc_of, rmse_of

values = st.floats(-1, 1, width=32)
pairs = st.integers(2, 60).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=values), arrays(np.float64, n, elements=values))
)


def everything(x):
    return np.ones(len(x), np.bool_)


def reference_ccc(x, y):
    """004 eq 7 with population moments, in six lines."""
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    var_x = math.fsum((a - mean_x) ** 2 for a in x) / n
    var_y = math.fsum((b - mean_y) ** 2 for b in y) / n
    cov = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    return 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2)


@given(pairs)
def test_equals_the_reference(xy):
    x, y = xy
    assume(np.ptp(x) + np.ptp(y) + abs(x.mean() - y.mean()) > 1e-6)
    assert ccc(x, y, everything(x)) == pytest.approx(reference_ccc(x, y), rel=1e-9, abs=1e-12)


def test_by_hand():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 4.0])
    # means 1, 2; sxx 2, syy 6, sxy 3; 2*3 / (2 + 6 + 3*1)
    assert ccc(x, y, everything(x)) == pytest.approx(6 / 11, rel=1e-15)
    assert pcc_of(moments(x, y, everything(x))) == pytest.approx(3 / math.sqrt(12), rel=1e-15)
    assert rmse_of(moments(x, y, everything(x))) == pytest.approx(math.sqrt(5 / 3), rel=1e-15)


def test_torchmetrics_differs_by_its_estimator_only():
    """torchmetrics divides variances and covariance by N - 1, and not the squared gap of the means.

    So it equals ours where the means agree, and everywhere once the gap is weighed by (N - 1) / N.
    """
    from torchmetrics.functional.regression import concordance_corrcoef

    generator = torch.Generator().manual_seed(0)
    for n in (10, 200):
        x, y = torch.randn(2, n, dtype=torch.float64, generator=generator)
        y = 0.5 * x + y + 0.3
        m = moments(x, y, torch.ones(n, dtype=torch.bool))
        theirs = concordance_corrcoef(x, y).squeeze()
        gap = (m.mean_x - m.mean_y) ** 2
        torch.testing.assert_close(theirs, 2 * m.sxy / (m.sxx + m.syy + (n - 1) * gap), rtol=1e-7, atol=0)
        assert abs(theirs - ccc_of(m)) < 1 / n
        x, y = x - x.mean(), y - y.mean()
        torch.testing.assert_close(
            ccc(x, y, torch.ones(n, dtype=torch.bool)), concordance_corrcoef(x, y).squeeze(), rtol=1e-7, atol=0
        )


@given(pairs, st.integers(0, 2**32 - 1))
def test_numpy_and_torch_are_one(xy, seed):
    x, y = xy
    mask = np.random.default_rng(seed).random(len(x)) < 0.7
    left = ccc(x, y, mask)
    right = ccc(torch.tensor(x), torch.tensor(y), torch.tensor(mask))
    assert right.dtype == torch.float64
    # Two nearly constant inputs have a value made of rounding; the libraries sum in another order.
    assume(not mask.any() or np.ptp(x[mask]) + np.ptp(y[mask]) > 1e-6)
    assert left == pytest.approx(float(right), rel=1e-9, abs=1e-12)


@given(pairs, st.integers(0, 2**32 - 1), st.floats(-1e6, 1e6))
def test_masked_frames_change_nothing(xy, seed, poison):
    """N12: what stands under the mask is never read, and the kept frames alone give the same value."""
    x, y = xy
    mask = np.random.default_rng(seed).random(len(x)) < 0.6
    clean = ccc(x, y, mask)
    assert ccc(np.where(mask, x, poison), np.where(mask, y, -poison), mask) == clean
    assume(mask.any() and np.ptp(x[mask]) + np.ptp(y[mask]) > 1e-6)
    assert ccc(x[mask], y[mask], everything(x[mask])) == pytest.approx(clean, rel=1e-9, abs=1e-12)


def test_unlabelled_frames_are_not_agreement():
    """N12, ran: a constant predictor must score 0, however many frames are unlabelled."""
    rng = np.random.default_rng(0)
    labels = rng.uniform(-1, 1, 500)
    mask = np.arange(500) >= 100
    assert abs(ccc(np.full(500, 0.1, np.float32), labels, mask)) < 1e-12


@given(arrays(np.float32, st.integers(2, 300), elements=values))
def test_a_perfect_prediction_is_exactly_one(x):
    """N14: not 0.9999; the estimator is the same above and below the line."""
    assume(np.ptp(x) > 0)
    assert ccc(x, x, everything(x)) == 1.0
    tensor = torch.tensor(x)
    assert float(ccc(tensor, tensor, torch.ones(len(x), dtype=torch.bool))) == 1.0


@given(pairs)
def test_bounded_and_symmetric(xy):
    x, y = xy
    value = ccc(x, y, everything(x))
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert ccc(y, x, everything(x)) == pytest.approx(value, abs=1e-12)
    assert abs(value) <= abs(pcc_of(moments(x, y, everything(x)))) + 1e-9 or np.ptp(x) * np.ptp(y) < 1e-6


def test_scale_and_shift_cost():
    x = np.linspace(-1, 1, 50)
    assert ccc(2 * x, 2 * x + 0, everything(x)) == 1.0
    assert ccc(x, -x, everything(x)) == pytest.approx(-1.0)
    assert ccc(x, 0.5 * x, everything(x)) == pytest.approx(2 * 0.5 / (1 + 0.25))
    assert pcc_of(moments(x, 0.5 * x + 0.2, everything(x))) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_equal_constants_are_zero(dtype):
    """The definition, whatever the constant is: rounding of its mean must not turn 0 into 1."""
    found = {}
    for level in (0.0, 0.1, 0.3, 1 / 3, -0.7, 1e6 + 0.1):
        for n in (1, 3, 10, 100, 1000):
            x = np.full(n, level, dtype)
            m = moments(x, x, everything(x))
            found[level, n] = (float(ccc_of(m)), float(pcc_of(m)), float(rmse_of(m)))
    assert {case: values for case, values in found.items() if values != (0, 0, 0)} == {}


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_edges_are_defined(n):
    rng = np.random.default_rng(n)
    ramp, constant = rng.standard_normal(n), np.full(n, 0.25)
    for x, y in [(ramp, constant), (constant, ramp), (constant, constant), (constant, -constant), (ramp, ramp)]:
        m = moments(x, y, everything(x))
        for value in (ccc_of(m), pcc_of(m), rmse_of(m)):
            assert np.isfinite(value)
    assert ccc(constant, ramp, everything(ramp)) == pytest.approx(0, abs=1e-12)
    nothing = moments(ramp, constant, np.zeros(n, np.bool_))
    assert (ccc_of(nothing), pcc_of(nothing), rmse_of(nothing), nothing.n) == (0, 0, 0, 0)


def test_tiny_variance_is_not_lost():
    """N14: an epsilon in the denominator would swallow these."""
    rng = np.random.default_rng(1)
    x, noise = 1e-6 * rng.standard_normal((2, 400))
    assert ccc(x, x, everything(x)) == 1.0
    assert ccc(x, x + 0.5 * noise, everything(x)) == pytest.approx(reference_ccc(x, x + 0.5 * noise), rel=1e-9)


def test_large_offset_does_not_cancel():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 400))
    y = 0.7 * x + 0.3 * y
    plain = ccc(x, y, everything(x))
    assert ccc(x + 1e6, y + 1e6, everything(x)) == pytest.approx(plain, rel=1e-8)
    m = moments(x + 1e6, y + 1e6, everything(x))
    assert rmse_of(m) == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), rel=1e-6)


def test_float32_inputs_are_summed_in_float64():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 10_000)).astype(np.float32) * np.float32(1e-3) + np.float32(100)
    exact = reference_ccc([float(v) for v in x], [float(v) for v in y])
    assert ccc(x, y, everything(x)) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_axes_are_groups():
    rng = np.random.default_rng(4)
    x, y, mask = rng.standard_normal((3, 20, 2)), rng.standard_normal((3, 20, 2)), rng.random((3, 20, 2)) < 0.8
    whole = ccc(x, y, mask, axis=1)
    assert whole.shape == (3, 2)
    for b in range(3):
        for t in range(2):
            assert whole[b, t] == pytest.approx(ccc(x[b, :, t], y[b, :, t], mask[b, :, t]), rel=1e-12)


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ("random", "random"),
        ("constant", "random"),
        ("random", "constant"),
        ("constant", "constant"),
        ("same", "same"),
    ],
)
@pytest.mark.parametrize("frames", [0, 1, 5, 40])
def test_gradients_are_finite(prediction, label, frames):
    generator = torch.Generator().manual_seed(0)
    label_values = torch.full((40,), 0.3) if label == "constant" else torch.randn(40, generator=generator)
    x = {
        "constant": torch.full((40,), 0.3),
        "same": label_values.clone(),
        "random": torch.randn(40, generator=generator),
    }
    x = x[prediction].clone().requires_grad_()
    ccc(x, label_values, torch.arange(40) < frames).backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[frames:].any()


def test_gradient_agrees_with_finite_differences():
    x, y = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(2)) < 0.8
    assert torch.autograd.gradcheck(lambda p: ccc(p, y, mask, axis=1), x.requires_grad_())


@settings(max_examples=60)
@given(pairs, st.lists(st.integers(0, 60), max_size=5), st.sampled_from([0.0, 1e6]))
@example((np.array([0.0, 1.0]), np.array([1.0, 0.0])), [0, 0, 1, 1, 2], 0.0)
def test_moments_merge_over_any_chunking(xy, cuts, offset):
    x, y = xy[0] + offset, xy[1]
    mask = np.arange(len(x)) % 3 != 0
    whole = moments(x, y, mask)
    edges = [0, *sorted(min(c, len(x)) for c in cuts), len(x)]
    parts = [moments(x[a:b], y[a:b], mask[a:b]) for a, b in itertools.pairwise(edges)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged + part
    size = max(1.0, offset)
    for name in Moments.__dataclass_fields__:
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-9 * size), name


@given(pairs)
def test_pcc_and_rmse_equal_numpy(xy):
    x, y = xy
    m = moments(x, y, everything(x))
    assert rmse_of(m) == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), rel=1e-6, abs=1e-7)
    assume(np.ptp(x) > 1e-3 and np.ptp(y) > 1e-3)
    assert pcc_of(m) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-6, abs=1e-9)
