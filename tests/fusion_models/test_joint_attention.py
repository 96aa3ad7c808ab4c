"""The joint block against the plain equations, as the papers write them, with their gradients."""

import math

import pytest
import torch

from crossfold.fusion_models.blocks.joint_attention import JointAttention, JointAttentionParams
from crossfold.fusion_models.kernels.tanh import tanh_of
from crossfold.fusion_models.system import Features

WINDOWS, FRAMES = 3, 7
WIDTHS = {"audio": 2, "visual": 5, "text": 3}
PADDED = {"no padding": FRAMES, "padding": 4}
"""Real frames of the last window."""
SWITCHES = {"attention_bias": True, "squash": True, "attended_relu": True}


def plus(x, bias):
    return x if bias is None else x + bias


def plain(block, x, mask, params):
    """X_att of each modality by products of one window after the other, in the order of the printed factors."""
    attended = {m: [] for m in x}
    root = math.sqrt(sum(WIDTHS.values()))
    for b in range(WINDOWS):
        real = mask[b].unsqueeze(1)
        joint_JL = (block.fc(torch.cat([x[m][b] for m in x], dim=1)) * real).T
        scale = block.frames / mask[b].sum() if block.length_free else 1.0
        for m in x:
            x_DL = x[m][b].T
            (w_j, b_j), *between, (w_c, b_c), (w_h, b_h) = block.maps_of(m, FRAMES)
            if params.axis == "time" and "w_x" not in block.form.spaces:
                corr = torch.tanh(plus(x_DL.T @ w_j, b_j) @ joint_JL / root)
                corr = corr if b_j is None else corr * real
                summed_DL = plus(x_DL @ w_c, b_c) @ corr * scale
                hidden_DL = torch.relu(torch.tanh(summed_DL) if params.squash else summed_DL)
                change_DL = plus(hidden_DL @ w_h, b_h)
            else:
                corr = torch.tanh(plus(x_DL @ w_j, b_j) @ joint_JL.T * scale / root)
                if between:
                    summed = plus(x_DL @ between[0].w, between[0].b) + plus(corr @ w_c, b_c)
                else:
                    summed = plus(x_DL.T @ w_c, b_c) @ corr
                hidden = torch.relu(torch.tanh(summed) if params.squash else summed)
                change_DL = plus(hidden @ w_h, b_h) if between else plus(hidden @ w_h, b_h).T
            change_DL = torch.relu(change_DL) if params.attended_relu else change_DL
            attended[m].append((change_DL + x_DL).T * real)
    return {m: torch.stack(windows) for m, windows in attended.items()}


@pytest.mark.parametrize("real", PADDED.values(), ids=PADDED)
@pytest.mark.parametrize("switches", [{}, SWITCHES], ids=["printed", "released"])
@pytest.mark.parametrize("weights", ["full", "relative"])
@pytest.mark.parametrize("form", ["time", "feature", "additive"])
def test_the_block_and_its_gradients_equal_the_plain_equations(form, weights, switches, real):
    axis = "feature" if form == "feature" else "time"
    params = JointAttentionParams(axis=axis, gain=1.0, weights=weights, **switches)
    torch.manual_seed(0)
    block = JointAttention(params, WIDTHS, FRAMES, additive=4 if form == "additive" else None).double()
    for bias in block.b.parameters():
        torch.nn.init.normal_(bias)
    mask = torch.arange(FRAMES) < torch.tensor([[FRAMES], [FRAMES], [real]])
    x = {
        m: (torch.randn(WINDOWS, FRAMES, d, dtype=torch.float64) * mask.unsqueeze(2)).requires_grad_()
        for m, d in WIDTHS.items()
    }
    weight_of = {m: torch.randn(WINDOWS, FRAMES, d, dtype=torch.float64) for m, d in WIDTHS.items()}
    learnt = {**x, **dict(block.named_parameters())}

    def results(attended):
        gradients = torch.autograd.grad(sum((attended[m] * weight_of[m]).sum() for m in x), list(learnt.values()))
        return attended, dict(zip(learnt, gradients, strict=True))

    found = results(block(Features(x, mask)))
    expected = results(plain(block, x, mask, params))
    for ours, theirs in zip(found, expected, strict=True):
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2.0**-22), (torch.float64, 2.0**-51)])
def test_tanh_of_a_product_is_tanh_to_two_units_in_the_last_place_of_one(dtype, tolerance):
    x = torch.cat([torch.linspace(-30, 30, 20_001), torch.logspace(-12, 0, 2_000)]).to(dtype).requires_grad_()
    found, expected = tanh_of(x * 1), torch.tanh(x)
    assert float((found - expected).abs().max()) <= tolerance
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=4 * tolerance)
    assert float(gradients[0].min()) >= 0
