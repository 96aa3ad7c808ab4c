"""The convolution of the TCN and its dropout against the plain equation: padding, torch's convolution, a mask."""

import pytest
import torch
from torch import nn

from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.blocks.temporal import TCN
from crossfold.fusion_models.kernels import causal_conv, winograd
from crossfold.fusion_models.kernels.causal_conv import Way, causal_layer
from crossfold.fusion_models.kernels.keep_mask import keep_mask, kept_share
from crossfold.platform.core.recipe import Temporal

FRAMES, WINDOWS, INPUTS, WIDTH = 7, 3, 4, 5


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def plain(x_LBI, w_KID, b_D, dilation, slope, keep):
    """As the papers draw it: zeros before the window, a convolution, an activation, a scaled mask."""
    past = (len(w_KID) - 1) * dilation
    padded_BIL = nn.functional.pad(x_LBI.permute(1, 2, 0), (past, 0))
    h_BDL = nn.functional.conv1d(padded_BIL, w_KID.permute(2, 1, 0), b_D, dilation=dilation)
    return nn.functional.leaky_relu(h_BDL, slope).permute(2, 0, 1) * keep


def layer_and_plain(taps, dilation, slope, p):
    """Result and gradients of both, by name, under the same mask."""
    weight_of = drawn(FRAMES, WINDOWS, WIDTH, seed=9).detach()
    keep = torch.ones(FRAMES, WINDOWS, WIDTH, dtype=torch.float64)
    if p:
        torch.manual_seed(3)
        keep = keep_mask(keep.shape, p, keep) / kept_share(p)

    def results(function):
        x, w, b = drawn(FRAMES, WINDOWS, INPUTS, seed=1), drawn(taps, INPUTS, WIDTH, seed=2), drawn(WIDTH, seed=4)
        y = function(x, w, b)
        (y * weight_of).sum().backward()
        return {"y": y.detach(), "x": x.grad, "w": w.grad, "b": b.grad}

    torch.manual_seed(3)
    return (
        results(lambda x, w, b: causal_layer(x, w, b, dilation=dilation, slope=slope, p=p)),
        results(lambda x, w, b: plain(x, w, b, dilation, slope, keep)),
    )


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("slope", [0.0, 0.01])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 1), (3, 2), (5, 2), (2, FRAMES), (3, 4)])
def test_a_layer_and_its_gradients_equal_the_plain_equation(taps, dilation, slope, p):
    """Also where some taps reach only frames before the window."""
    found, expected = layer_and_plain(taps, dilation, slope, p)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("slope", [0.0, 0.01])
@pytest.mark.parametrize(
    ("way", "taps", "dilation"),
    [
        *((Way.LIBRARY, *sizes) for sizes in [(1, 1), (3, 2), (2, FRAMES), (3, 4)]),
        # One and several tiles, with and without spare frames, and each number of points.
        *((Way.WINOGRAD, *sizes) for sizes in [(2, 1), (2, FRAMES), (3, 2), (3, 4), (4, 1), (5, 1), (5, 3)]),
    ],
)
def test_each_way_to_convolve_equals_the_plain_equation(way, taps, dilation, slope, monkeypatch):
    """The other ways are chosen for many features in float32; here they are asked for few in float64."""
    monkeypatch.setattr(causal_conv, "_way", lambda x, w, dilation: way)
    found, expected = layer_and_plain(taps, dilation, slope, 0.3)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("way", "features", "taps", "frames"),
    [
        (Way.TAPS, (causal_conv.WIDE - 1, causal_conv.WIDE), 5, 30),
        (Way.WINOGRAD, (causal_conv.WIDE, causal_conv.WIDE), 5, 30),
        (Way.LIBRARY, (causal_conv.WIDE, causal_conv.WIDE - 1), 5, 30),
        (Way.LIBRARY, (causal_conv.WIDE, causal_conv.WIDE), winograd.MOST_TAPS + 1, 30),
        (Way.LIBRARY, (causal_conv.WIDE, causal_conv.WIDE), 1, 30),
        (Way.LIBRARY, (causal_conv.WIDE, causal_conv.WIDE), 5, 5),  # of two tiles of eight frames most is spare
    ],
)
def test_ways_to_convolve_agree_in_float32(way, features, taps, frames, monkeypatch):
    """Each where it is chosen, and without a kink that rounding may cross: as near float64 as a plain convolution."""
    inputs, width = features
    torch.manual_seed(0)
    x, w = torch.randn(frames, 2, inputs), torch.randn(taps, inputs, width) / (taps * inputs) ** 0.5
    assert causal_conv._way(x, w, 2) is way
    assert causal_conv._way(x.to(torch.bfloat16), w.to(torch.bfloat16), 2) is Way.LIBRARY
    assert causal_conv._way(x.to("meta"), w.to("meta"), 2) is Way.TAPS

    def results(dtype):
        of = [tensor.to(dtype).requires_grad_() for tensor in (x, w)]
        y = causal_layer(*of, torch.zeros(width, dtype=dtype), dilation=2, slope=1.0, p=0.0)
        return y, *torch.autograd.grad((y * y.detach()).sum(), of)

    for found, expected in zip(results(torch.float32), results(torch.float64), strict=True):
        assert found.is_contiguous()
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert 0 < error < 5e-6


@pytest.mark.parametrize(("windows", "way", "most"), [(7, Way.LIBRARY, 5e-3), (8, Way.WINOGRAD, 2e-2)])
def test_ways_to_convolve_in_bfloat16_stay_near_float64(windows, way, most):
    """Winograd's way rounds more, by a hundredth, which is little next to a dropout of a tenth."""
    width = causal_conv.WIDE_IN_BF16
    torch.manual_seed(0)
    x, w = torch.randn(20, windows, width), torch.randn(5, width, width) / (5 * width) ** 0.5
    assert causal_conv._way(x.to(torch.bfloat16), w.to(torch.bfloat16), 1) is way

    def results(dtype):
        of = [tensor.to(dtype).requires_grad_() for tensor in (x, w)]
        y = causal_layer(*of, torch.zeros(width, dtype=dtype), dilation=1, slope=1.0, p=0.0)
        return y, *torch.autograd.grad((y * x.to(dtype)).sum(), of)

    for found, expected in zip(results(torch.bfloat16), results(torch.float64), strict=True):
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert 1e-4 < error < most


def test_frames_of_the_batch_first_are_taken_too():
    x, w, b = drawn(WINDOWS, FRAMES, INPUTS), drawn(3, INPUTS, WIDTH), drawn(WIDTH)
    view = causal_layer(x.transpose(0, 1), w, b, dilation=1, slope=0.0, p=0.0)
    copy = causal_layer(x.transpose(0, 1).contiguous(), w, b, dilation=1, slope=0.0, p=0.0)
    assert torch.equal(view, copy)


def test_a_layer_without_a_gradient_for_its_input_has_those_of_its_weights():
    x, w, b = drawn(FRAMES, WINDOWS, INPUTS).detach(), drawn(3, INPUTS, WIDTH), drawn(WIDTH)
    causal_layer(x, w, b, dilation=1, slope=0.0, p=0.0).sum().backward()
    of_x = drawn(FRAMES, WINDOWS, INPUTS)
    again, b_again = w.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
    causal_layer(of_x, again, b_again, dilation=1, slope=0.0, p=0.0).sum().backward()
    assert x.grad is None
    assert torch.equal(w.grad, again.grad)
    assert torch.equal(b.grad, b_again.grad)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.2, 0.5, 0.9, 0.999999])
def test_a_mask_keeps_the_share_that_is_asked_for(p):
    torch.manual_seed(0)
    mask = keep_mask((1000, 1001), p, torch.zeros(()))
    kept = kept_share(p)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(kept - (1 - p)) <= 2**-16
    # Five standard deviations of a binomial share.
    assert abs(float(mask.mean()) - kept) <= 5 * (kept * (1 - kept) / mask.numel()) ** 0.5


def test_the_four_values_of_a_draw_are_independent():
    """Neighbours, and values one draw apart, are kept together as often as chance has it."""
    torch.manual_seed(1)
    mask = keep_mask((400_000,), 0.3, torch.zeros(())) - kept_share(0.3)
    for lag in (1, 2, 3, 4, 8):
        correlation = float((mask[lag:] * mask[:-lag]).mean()) / (0.3 * 0.7)
        assert abs(correlation) < 5 / len(mask) ** 0.5, lag


def test_dropout_keeps_the_mean_and_is_nothing_in_evaluation():
    x = torch.ones(300, 301)
    dropout = Dropout(0.2)
    torch.manual_seed(2)
    dropped = dropout(x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1.25, abs=1e-4)]
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)


def test_equal_seeds_drop_the_same_values():
    def result():
        torch.manual_seed(4)
        return Dropout(0.5)(torch.ones(9, 7))

    assert torch.equal(result(), result())


@pytest.mark.parametrize("convolutions", [1, 2])
def test_a_tcn_in_bfloat16_stays_near_the_one_in_float32(convolutions):
    params = Temporal(width=16, levels=2, kernel=3, convolutions=convolutions, dropout=0.0)
    torch.manual_seed(0)
    tcn, x = TCN(16, params), torch.randn(4, 20, 16)
    whole = tcn(x)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = tcn(x)
    torch.testing.assert_close(narrow.float(), whole, rtol=0.05, atol=0.05)
    narrow.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in tcn.parameters())
