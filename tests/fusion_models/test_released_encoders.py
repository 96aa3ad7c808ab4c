"""Encoders and heads as released (G2c, G7, G8) against loops over frames, in float64."""

import math

import numpy as np
import pytest
import torch

from crossfold.fusion_models.blocks.heads import MLPHead, recurrent_mix
from crossfold.fusion_models.blocks.recurrent import RecurrentMix
from crossfold.fusion_models.blocks.temporal import temporal_context, temporal_encoder
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Head, Temporal
from crossfold.sweeps.recipe_files import load_recipe

RELEASED = {"convolutions": 2, "activation": "leaky_relu", "output_linear": False, "batch_norm": True, "dropout": 0}


def drawn(module, seed=0):
    """The module in float64 with every parameter drawn, in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module.eval()


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def convolution(conv, x_LI, dilation):
    """Causal, with weight norm: the kernel is g V / |V|."""
    v, g, bias = (p.detach().numpy() for p in (conv.v, conv.g, conv.bias))
    kernel = g * v / np.sqrt((v**2).sum(axis=(1, 2), keepdims=True))
    size = kernel.shape[2]
    out = np.tile(bias, (len(x_LI), 1))
    for frame in range(len(x_LI)):
        for tap in range(size):
            seen = frame - (size - 1 - tap) * dilation
            if seen >= 0:
                out[frame] += kernel[:, :, tap] @ x_LI[seen]
    return out


def test_the_released_tcn_equals_its_facts():
    """G8: two convolutions a level with LeakyReLU, a skip, then batch norm, and no final linear map."""
    params = Temporal(kind="tcn", channels={"audio": (4, 4, 3)}, kernel=2, **RELEASED)
    encoder = drawn(temporal_encoder(5, params, "audio"))
    norm = encoder.norm.norm
    norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1]))
    norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0]))
    x = np.random.default_rng(1).normal(size=(11, 5))
    h = x
    for i, level in enumerate(encoder.encoder.levels):
        inside = h
        for conv in (level.conv, *level.further):
            inside = leaky(convolution(conv, inside, 2**i))
        if isinstance(level.skip, torch.nn.Conv1d):
            h = h @ level.skip.weight.detach().numpy()[:, :, 0].T + level.skip.bias.detach().numpy()
        h = leaky(inside + h)
    mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
    expected = (h - mean) / np.sqrt(var + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    found = encoder(torch.tensor(x)[None], torch.ones(1, 11, dtype=torch.bool))[0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_frame_of_the_released_tcn_sees_120_frames_of_the_past():
    """G8; with one convolution a level it is 60."""
    printed, released = (load_recipe(f"rjcma2024{variant}").temporal for variant in ("", "+released"))
    assert (temporal_context(printed), temporal_context(released)) == (60, 120)
    small = {"kind": "tcn", "width": 3, "levels": 4, "kernel": 5, **RELEASED}
    encoder = drawn(temporal_encoder(2, Temporal.parse(small, "test")))
    x = torch.randn(1, 200, 2, dtype=torch.float64, requires_grad=True)
    encoder(x, torch.ones(1, 200, dtype=torch.bool))[0, -1].sum().backward()
    assert torch.nonzero(x.grad[0].abs().sum(dim=1))[0] == 200 - 1 - 120


def test_the_widths_of_001_as_released():
    """G7: video 512-512-256-256, audio 128 x 4, and a head of 384-256-1."""
    recipe = load_recipe("grjca2025+released")
    found = {}
    with torch.device("meta"):
        for modality in ("visual", "audio"):
            levels = temporal_encoder(512, recipe.temporal, modality).encoder.levels
            found[modality] = [level.conv.v.shape[0] for level in levels]
        head = MLPHead(sum(recipe.temporal.width_of(m) for m in found), recipe.head)
    assert found == {"visual": [512, 512, 256, 256], "audio": [128, 128, 128, 128]}
    shapes = [tuple(m.weight.shape) for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert shapes == [(256, 384), (1, 256)]


def lstm(module, x_LI, layer, suffix, state):
    """One direction of one layer, in numpy."""
    w_i, w_h, b_i, b_h = (
        getattr(module, f"{kind}_l{layer}{suffix}").detach().numpy()
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    (h, c), out = state, np.zeros((len(x_LI), len(state[0])))
    frames = range(len(x_LI) - 1, -1, -1) if suffix else range(len(x_LI))
    for frame in frames:
        i, f, g, o = np.split(w_i @ x_LI[frame] + b_i + w_h @ h + b_h, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        out[frame] = h
    return out


def test_the_released_mix_equals_its_facts():
    """G2c, G8: two layers in both directions from a learnt state, Linear([x ; h]), frames of length one."""
    mix = drawn(RecurrentMix(3, 4, layers=2, form="concat"))
    x = np.random.default_rng(2).normal(size=(6, 3))
    state = mix.recurrent.initial.state.detach().numpy()
    h = x
    for layer in range(2):
        both = [
            lstm(mix.recurrent.lstm, h, layer, suffix, (state[0, 2 * layer + d], state[1, 2 * layer + d]))
            for d, suffix in enumerate(("", "_reverse"))
        ]
        h = np.concatenate(both, axis=1)
    mixed = np.concatenate([x, h], axis=1) @ mix.residual.weight.detach().numpy().T + mix.residual.bias.detach().numpy()
    expected = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    found = mix(torch.tensor(x)[None], torch.ones(1, 6, dtype=torch.bool))[0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_learnt_state_learns_and_padding_has_no_part_in_it():
    mix = drawn(RecurrentMix(3, 4, layers=2, form="concat"))
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    whole = mix(x * mask[..., None], mask)
    torch.testing.assert_close(whole[1, :4], mix(x[1:, :4], mask[1:, :4])[0])
    whole.square().sum(dim=-1)[0].sum().backward()
    assert mix.recurrent.initial.state.grad is not None


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_encoders_and_mix_of_the_release_of_000(modality):
    recipe = load_recipe("dca2024+released", {"temporal.width": 6, "head.recurrent_width": 8, "temporal.dropout": 0})
    encoder = temporal_encoder(5, recipe.temporal, modality).double().eval()
    x_BLI, mask_BL = torch.randn(2, 7, 5, dtype=torch.float64), torch.ones(2, 7, dtype=torch.bool)
    found = encoder(x_BLI, mask_BL)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 7, dtype=torch.float64))
    torch.testing.assert_close(found, encoder(3 * x_BLI, mask_BL))  # features enter with length one (G2c)
    mix = recurrent_mix(12, recipe.head)
    assert mix.recurrent.lstm.num_layers == recipe.temporal.levels == 2
    assert mix.width == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": {"audio": ()}}, "channels of audio are empty"),
        ({"channels": {"audio": (4, 3)}, "widths": {"audio": 5}}, "end with 3, and widths say 5"),
        ({"kind": "tcn", "recurrent_form": "concat"}, "recurrent_form concat is of kind bilstm"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        Temporal.parse(changes, "temporal")


def test_a_shared_mix_is_one_for_all_targets():
    assert MLPHead(6, Head(recurrent=True, recurrent_width=4)).mix is not None
    assert MLPHead(4, Head(recurrent=True, recurrent_width=4, recurrent_shared=True)).mix is None
    assert math.isinf(temporal_context(Temporal(kind="lstm")))
