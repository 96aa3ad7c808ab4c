"""Maps against sums written out by hand: which axis is the query, which the key, and which frame is which."""

import math

import numpy as np
import pytest
import torch

from crossfold.fusion_models.blocks.attention_maps import KINDS, maps_over_time, note_map
from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features

L, WIDTHS = 5, {"audio": 3, "visual": 4}
REAL = (5, 3)


def noted(name, **params):
    """The module, its features as arrays, and (kind, query, key, step) -> map."""
    system = find_system(name)
    torch.manual_seed(0)
    fusion = system.build(system.params.parse(params, name), WIDTHS, L).double().eval()
    x = {m: torch.randn(2, L, d, dtype=torch.float64) for m, d in WIDTHS.items()}
    given = Features.masked(x, torch.arange(L) < torch.tensor(REAL)[:, None])
    notes = {}
    with torch.no_grad():
        fusion(given, notes)
    found = {(m.kind, m.query, m.key, m.step): m.values.numpy() for m in maps_over_time(notes)}
    return fusion, {m: values.numpy() for m, values in given.x.items()}, found


def test_cross_attention_row_by_row():
    """004 eqs 1-2: Z = X_a' W X_v; the output at visual frame j reads audio frames i by softmax_i Z[i, j]."""
    fusion, x, found = noted("ca", attention_temperature=0.7)
    w = fusion.attend.blocks[0].w.detach().numpy()
    assert set(found) == {("cross_attention", "visual", "audio", "1"), ("cross_attention", "audio", "visual", "1")}
    for b, real in enumerate(REAL):
        for j in range(real):
            z_audio = [x["audio"][b, i] @ w @ x["visual"][b, j] / 0.7 for i in range(real)]
            z_visual = [x["audio"][b, j] @ w @ x["visual"][b, i] / 0.7 for i in range(real)]
            for query, key, z in (("visual", "audio", z_audio), ("audio", "visual", z_visual)):
                expected = np.exp(z) / np.exp(z).sum()
                row = found["cross_attention", query, key, "1"][b, j]
                np.testing.assert_allclose(row[:real], expected, rtol=1e-5)
                assert (row[real:] == 0).all()


def test_joint_correlation_cell_by_cell():
    """001 eqs 1-2: C[i, k] = tanh(x_i W_j J_k / sqrt(d)), i of the modality (key), k of J (query)."""
    fusion, x, found = noted("jca")
    block = fusion.attend.blocks[0]
    joint = np.concatenate([x["audio"], x["visual"]], axis=-1)
    joint = joint @ block.fc.weight.detach().numpy().T + block.fc.bias.detach().numpy()
    assert set(found) == {("joint_correlation", "joint", m, "1") for m in WIDTHS}
    for m in WIDTHS:
        w_j = block.w["w_j"][m](L).detach().numpy()
        for b, real in enumerate(REAL):
            for i in range(real):
                for k in range(real):
                    expected = math.tanh(x[m][b, i] @ w_j @ joint[b, k] / math.sqrt(joint.shape[-1]))
                    assert found["joint_correlation", "joint", m, "1"][b, k, i] == pytest.approx(expected, abs=1e-6)


def test_every_iteration_and_layer_has_its_own_map():
    *_, found = noted("rjca", iterations=2)
    assert {step for *_, step in found} == {"1", "2"}
    assert not np.allclose(*(found["joint_correlation", "joint", "audio", step] for step in ("1", "2")))
    *_, found = noted("jmt", layers=2)
    steps = {(query, key): sorted(s for _, q, k, s in found if (q, k) == (query, key)) for _, query, key, _ in found}
    assert steps["audio", "visual"] == [""]
    assert steps["joint", "joint"] == ["1", "2"]


def test_heads_are_averaged():
    notes, heads = {}, torch.rand(2, 3, L, L)
    note_map(notes, "dot_attention", ("audio", "visual"), heads)
    (only,) = maps_over_time(notes)
    torch.testing.assert_close(only.values, heads.mean(1))


def test_nobody_asked_nothing_is_kept_and_wrong_axes_are_refused():
    note_map(None, "cross_attention", ("audio", "visual"), torch.zeros(1))
    with pytest.raises(AssertionError, match="cross_attention"):
        note_map({}, "cross_attention", ("audio", "visual"), torch.zeros(2, L))
    assert maps_over_time({"gate.audio": torch.zeros(2, L, 2), "x.audio.0": torch.zeros(2, L, 3)}) == []
    assert all(kind.source for kind in KINDS.values())
