"""Beyond the papers: weights that fit any window length, and predictions of a stream, frame by frame."""

import numpy as np
import pytest
import torch

from crossfold.fusion_models.blocks.recurrent import Recurrent
from crossfold.fusion_models.blocks.temporal import temporal_context, temporal_encoder
from crossfold.fusion_models.blocks.time_weights import LowRankWeights, RelativeWeights
from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Head, Recipe, Temporal
from crossfold.platform.modeling.emotion_model import Stream, build_model, modalities_of

WIDTHS = {"audio": 4, "visual": 5, "text": 3}
L = 12


def features(frames, seed=0, batch=2, real=None):
    generator = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(batch, frames, d, generator=generator, dtype=torch.float64) for m, d in WIDTHS.items()}
    return Features.masked(x, torch.arange(frames).expand(batch, frames) < (real or frames))


def build(name, **params):
    system = find_system(name)
    torch.manual_seed(0)
    return system.build(system.params.parse(params, name), WIDTHS, L).double().eval()


@pytest.mark.parametrize("axis", ["time", "feature"])
@pytest.mark.parametrize("weights", ["relative", "lowrank"])
@pytest.mark.parametrize("name", ["jca", "rjca", "rjca+dca", "grjca", "hgrjca", "rjcma"])
def test_a_model_built_for_one_length_runs_on_any(name, weights, axis):
    fusion = build(name, weights=weights, axis=axis, reach=4, rank=5, gain=1.0)
    for frames in (1, 5, L, 40):
        z = fusion(features(frames))
        assert z.shape == (2, frames, fusion.width)
        assert torch.isfinite(z).all()


@pytest.mark.parametrize("axis", ["time", "feature"])
def test_with_relative_weights_a_padded_window_is_the_short_one(axis):
    fusion = build("rjca", weights="relative", axis=axis, reach=4, gain=1.0)
    padded = features(L, real=7)
    short = Features({m: x[:, :7] for m, x in padded.x.items()}, padded.mask_BL[:, :7])
    torch.testing.assert_close(fusion(padded)[:, :7], fusion(short), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", ["relative", "lowrank"])
def test_every_length_free_weight_learns(weights):
    fusion = build("rjca", weights=weights, reach=3, rank=4, gain=1.0)
    total = {key: torch.zeros_like(p) for key, p in fusion.named_parameters()}
    for seed in range(8):
        fusion.zero_grad()
        fusion(features(L, seed)).square().sum().backward()
        for key, p in fusion.named_parameters():
            total[key] += p.grad.abs()
    assert all((value > 0).all() for value in total.values())


def test_relative_weights_depend_on_the_distance():
    """W[i, k] = r[i - k + R], by hand."""
    made = RelativeWeights(10, 2, 1.0)
    w, r = made(7).detach().numpy(), made.r.detach().numpy()
    for i in range(7):
        for k in range(7):
            assert w[i, k] == (r[i - k + 2] if abs(i - k) <= 2 else 0)


def test_low_rank_weights_are_one_operator_on_functions_of_time():
    """W x on twice the frames is the same function, seen twice as finely; and the rank is as said."""
    torch.manual_seed(1)
    made = LowRankWeights(100, 4, 1.0).double()
    answers = []
    for frames in (400, 800):
        time = (torch.arange(frames, dtype=torch.float64) + 0.5) / frames
        answers.append((made(frames) @ torch.sin(3 * time)).detach().numpy())
    assert np.linalg.matrix_rank(made(50).detach().numpy()) == 4
    np.testing.assert_allclose(answers[1].reshape(400, 2).mean(axis=1), answers[0], rtol=1e-3, atol=1e-4)


def test_without_them_another_length_is_refused_and_the_error_names_the_way_out():
    with pytest.raises(ValueError, match=r"9 frames.*L = 12.*weights=relative"):
        build("rjca")(features(9))


@pytest.mark.parametrize("weights", ["relative", "lowrank"])
def test_a_whole_video_in_one_pass(tiny_cell, weights):
    """Trained at L = 20 (here: built), a model predicts 75 frames at once, through encoders and heads."""
    cell = tiny_cell("hgrjca", params={"weights": weights})
    model = build_model(cell, {"audio": 5, "visual": 6}).eval()
    x = {"audio": torch.randn(1, 75, 5), "visual": torch.randn(1, 75, 6)}
    y = model(x, torch.ones(1, 75, dtype=torch.bool))
    assert y.shape == (1, 75, 1)
    assert torch.isfinite(y).all()


STREAMING = [
    ("concat", {}),
    ("unimodal_visual", {}),
    ("leader_follower", {}),
    ("lstm", {}),
    ("transformer", {"causal": True}),
    ("tca", {"causal": True}),
    ("lstm_transformer", {"causal": True}),
    ("tcn_transformer", {"causal": True}),
    ("jmt", {"causal": True}),
]


@pytest.mark.parametrize("kind", ["none", "tcn", "lstm"])
@pytest.mark.parametrize(("name", "params"), STREAMING, ids=[name for name, _ in STREAMING])
def test_a_stream_equals_the_window(tiny_cell, name, params, kind):
    cell = tiny_cell(name, params=params, targets=("valence", "arousal"), temporal__kind=kind, temporal__levels=2)
    widths = {m: {"audio": 5, "visual": 6}[m] for m in modalities_of(cell)}
    model = build_model(cell, widths).double().eval()
    x = {m: torch.randn(2, 30, d, dtype=torch.float64) for m, d in widths.items()}
    expected = model(x, torch.ones(2, 30, dtype=torch.bool))
    stream, pieces = Stream(cell, model), []
    for start, end in [(0, 1), (1, 2), (2, 9), (9, 10), (10, 24), (24, 30)]:
        pieces.append(stream.push({m: value[:, start:end] for m, value in x.items()}))
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-9, atol=1e-10)


def test_a_stream_keeps_only_what_a_prediction_depends_on(tiny_cell):
    cell = tiny_cell("concat", temporal__levels=2, temporal__kernel=3)
    stream = Stream(cell, build_model(cell, {"audio": 5, "visual": 6}))
    for _ in range(5):
        stream.push({"audio": torch.randn(1, 4, 5), "visual": torch.randn(1, 4, 6)})
    assert stream.context == 2 * 3
    assert stream._past["audio"].shape == (1, 6, 5)


@pytest.mark.parametrize(
    ("name", "params", "kind", "culprit"),
    [
        ("rjca", {}, "tcn", "system rjca"),
        ("transformer", {}, "tcn", "system transformer"),
        ("concat", {}, "bilstm", "encoder bilstm"),
    ],
)
def test_what_sees_the_future_cannot_stream(tiny_cell, name, params, kind, culprit):
    cell = tiny_cell(name, params=params, temporal__kind=kind)
    with pytest.raises(UserError, match=f"{culprit} sees future frames"):
        Stream(cell, build_model(cell, {"audio": 5, "visual": 6}))


@pytest.mark.parametrize("kind", ["none", "tcn", "lstm", "bilstm"])
def test_encoders_never_read_padding(kind):
    torch.manual_seed(0)
    encoder = temporal_encoder(3, Temporal(kind=kind, width=4, levels=2, kernel=2, dropout=0)).double().eval()
    x, mask = torch.randn(2, 9, 3, dtype=torch.float64), torch.arange(9) < torch.tensor([9, 5])[:, None]
    expected = encoder(x, mask)
    poisoned = torch.where(mask.unsqueeze(-1), x, torch.tensor(1e6, dtype=torch.float64))
    assert torch.equal(encoder(poisoned, mask)[mask], expected[mask])
    torch.testing.assert_close(encoder(x[1:, :5], mask[1:, :5]), expected[1:, :5])
    assert (temporal_context(Temporal(kind=kind)) is None) == (kind == "bilstm")


def test_a_bidirectional_lstm_starts_from_the_last_real_frame():
    torch.manual_seed(0)
    both = Recurrent(3, 4, bidirectional=True).double()
    x = torch.randn(1, 8, 3, dtype=torch.float64)
    z = both(x, torch.ones(1, 8, dtype=torch.bool))
    z_short = both(x, (torch.arange(8) < 5)[None])
    torch.testing.assert_close(z_short[:, :5], both(x[:, :5], torch.ones(1, 5, dtype=torch.bool)))
    assert not torch.allclose(z_short[:, 0, 4:], z[:, 0, 4:])
    assert not z_short[:, 5:].any()


@pytest.mark.parametrize("learnt_state", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_device_reads_both_ways_without_packing_and_gets_the_same(layers, learnt_state):
    """Without lengths on the host; output and gradients in float64, a window without a real frame included."""
    torch.manual_seed(0)
    both = Recurrent(3, 4, layers=layers, bidirectional=True, learnt_state=learnt_state).double()
    mask = torch.arange(9) < torch.tensor([9, 5, 1, 0])[:, None]
    found = []
    for unpacked in (False, True):
        both.zero_grad()
        x = torch.randn(4, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        state = both.initial(4) if learnt_state else None
        z = both._both_ways(x, state, mask) if unpacked else both(x, mask)
        z.square().sum().backward()
        found.append([z, x.grad, *(weight.grad.clone() for weight in both.parameters())])
    for packed, unpacked in zip(*found, strict=True):
        torch.testing.assert_close(unpacked, packed, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "head", [{"layers": 0}, {"layers": 1}, {"layers": 3, "activation": "tanh", "hidden": 2}, {"recurrent": True}]
)
def test_heads(tiny_cell, head):
    """Any of them, and none reads padding."""
    cell = tiny_cell("concat", head=Head(**head).model_dump())
    assert isinstance(cell.recipe, Recipe)
    model, mask = build_model(cell, {"audio": 5, "visual": 6}).eval(), (torch.arange(20) < 13)[None]
    x = {"audio": torch.randn(1, 20, 5), "visual": torch.randn(1, 20, 6)}
    y = model(x, mask)
    assert y.shape == (1, 20, 1)
    assert (y.abs() <= 1).all() or head == {"layers": 0}
    poisoned = {m: torch.where(mask.unsqueeze(-1), value, torch.tensor(1e6)) for m, value in x.items()}
    assert torch.equal(model(poisoned, mask)[mask], y[mask])
