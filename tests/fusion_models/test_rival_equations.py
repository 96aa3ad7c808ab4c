"""The systems that are not joint attention, against slow references: NumPy, float64, one window, rows X : L x d."""

import math

import numpy as np
import pytest
import torch

from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features

WIDTHS = {"audio": 3, "visual": 4, "text": 2}
L, B = 5, 2
SMALL = {"heads": 2, "head_width": 2, "feedforward": 5, "layers": 2}


def built(name, **params):
    system = find_system(name)
    fusion = system.build(system.params.parse(params, name), WIDTHS, L).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return fusion, {key: value.numpy() for key, value in fusion.state_dict().items()}


def inputs(lengths=(L, 3)):
    generator = torch.Generator().manual_seed(1)
    x = {m: torch.randn(B, L, d, generator=generator, dtype=torch.float64) for m, d in WIDTHS.items()}
    return Features.masked(x, torch.arange(L) < torch.tensor(lengths)[:, None])


def windows(fusion, features):
    """(window, its real frames {modality: n x d}) of each window."""
    for b in range(B):
        real = int(features.mask_BL[b].sum())
        yield b, {m: features.x[m][b, :real].numpy() for m in fusion.modalities}


def check(fusion, reference):
    """Z on the real frames is the reference of those frames alone; on padding it is zero."""
    features = inputs()
    z = fusion(features).detach().numpy()
    for b, x in windows(fusion, features):
        expected = reference(x)
        np.testing.assert_allclose(z[b, : len(expected)], expected, rtol=1e-9, atol=1e-12)
        assert not z[b, len(expected) :].any()
        assert abs(expected).max() > 0.05


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def linear(w, key, x):
    return x @ w[f"{key}.weight"].T + w.get(f"{key}.bias", 0.0)


def multi_head(w, key, x, memory, heads, *, causal=False):
    """Loops over heads and frames; Vaswani 2017 sec. 3.2."""
    q, k, v = linear(w, f"{key}.q", x), linear(w, f"{key}.k", memory), linear(w, f"{key}.v", memory)
    size = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            seen = i + 1 if causal else len(memory)
            weights = softmax(np.array([q[i, part] @ k[j, part] / math.sqrt(size) for j in range(seen)]))
            out[i, part] = sum(weights[j] * v[j, part] for j in range(seen))
    return linear(w, f"{key}.o", out) if f"{key}.o.weight" in w else out


def layer_norm(w, key, x):
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return scaled * w[f"{key}.weight"] + w[f"{key}.bias"]


def gelu(x):
    return np.array([[0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in row] for row in x])


def block(w, key, x, memory, heads=2, *, causal=False):
    y = layer_norm(w, f"{key}.norms.0", x + multi_head(w, f"{key}.attention", x, memory, heads, causal=causal))
    fed = linear(w, f"{key}.feedforward.2", gelu(linear(w, f"{key}.feedforward.0", y)))
    return layer_norm(w, f"{key}.norms.1", y + fed)


def encoder(w, key, x, *, causal=False):
    h = linear(w, f"{key}.input", x)
    width = h.shape[1]
    for frame in range(len(h)):
        for column in range(width):
            angle = frame / 10000 ** ((column - column % 2) / width)
            h[frame, column] += math.cos(angle) if column % 2 else math.sin(angle)
    for layer in range(SMALL["layers"]):
        h = block(w, f"{key}.blocks.{layer}", h, h, causal=causal)
    return h


def lstm(w, key, x, layers=2):
    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    for layer in range(layers):
        w_x, w_h = w[f"{key}.weight_ih_l{layer}"], w[f"{key}.weight_hh_l{layer}"]
        bias = w[f"{key}.bias_ih_l{layer}"] + w[f"{key}.bias_hh_l{layer}"]
        h, c, out = np.zeros(w_h.shape[1]), np.zeros(w_h.shape[1]), []
        for frame in x:
            i, f, g, o = np.split(w_x @ frame + w_h @ h + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        x = np.array(out)
    return x


def tcn(w, key, x, kernel=3, levels=2):
    for level in range(levels):
        at = f"{key}.levels.{level}.conv"
        v, g, bias = w[f"{at}.v"], w[f"{at}.g"], w[f"{at}.bias"]
        y = np.zeros((len(x), len(v)))
        for out in range(len(v)):
            taps = g[out, 0, 0] * v[out] / np.sqrt((v[out] ** 2).sum())
            for frame in range(len(x)):
                y[frame, out] = bias[out]
                for tap in range(kernel):
                    past = frame - (kernel - 1 - tap) * 2**level
                    if past >= 0:
                        y[frame, out] += taps[:, tap] @ x[past]
        x = np.maximum(np.maximum(y, 0) + x, 0)
    return linear(w, f"{key}.out", x)


def stacked(x):
    return np.concatenate(list(x.values()), axis=1)


def test_concat_and_one_modality():
    for name in ("concat", "unimodal_audio", "unimodal_visual", "unimodal_text"):
        check(built(name)[0], stacked)


def test_lstm():
    fusion, w = built("lstm", hidden=3)
    check(fusion, lambda x: lstm(w, "readout.recurrent.lstm", stacked(x)))


def test_self_attention():
    fusion, w = built("self_attention")
    check(
        fusion, lambda x: stacked({m: v + multi_head(w, f"attend.blocks.0.heads.{m}", v, v, 1) for m, v in x.items()})
    )


def tca_pairs(w, x, causal):
    """(X, X_att) of TCA."""
    other = {"audio": "visual", "visual": "audio"}
    return {m: block(w, f"attend.blocks.0.blocks.{m}", x[m], x[other[m]], causal=causal) for m in x}


@pytest.mark.parametrize("causal", [False, True])
def test_tca(causal):
    fusion, w = built("tca", **SMALL, causal=causal)

    def reference(x):
        z = stacked(tca_pairs(w, x, causal))
        for layer in range(SMALL["layers"]):
            z = block(w, f"readout.blocks.{layer}", z, z, causal=causal)
        return z

    check(fusion, reference)


def test_tca_with_dca_gates_before_the_joint_layers():
    fusion, w = built("tca+dca", **SMALL, temperature=0.5)

    def reference(x):
        attended, gated = tca_pairs(w, x, causal=False), {}
        for m in x:
            gates = [softmax(row @ w[f"readout.gate.w.{m}"] / 0.5) for row in attended[m]]
            rows = zip(gates, x[m], attended[m], strict=True)
            gated[m] = np.array([np.maximum(g[0] * old + g[1] * new, 0) for g, old, new in rows])
        z = stacked(gated)
        for layer in range(SMALL["layers"]):
            z = block(w, f"readout.then.blocks.{layer}", z, z)
        return z

    check(fusion, reference)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("modalities", ["audio+visual", "visual+text", "audio+visual+text"])
def test_transformer(modalities, causal):
    fusion, w = built("transformer", **SMALL, modalities=modalities, causal=causal)
    assert list(fusion.modalities) == modalities.split("+")
    check(fusion, lambda x: encoder(w, "readout.encoder", stacked(x), causal=causal))


def test_lstm_transformer():
    fusion, w = built("lstm_transformer", **SMALL, hidden=3)

    def reference(x):
        recurrent = lstm(w, "readout.recurrent.recurrent.lstm", stacked(x))
        return np.concatenate([recurrent, encoder(w, "readout.encoder.encoder", stacked(x))], axis=1)

    check(fusion, reference)


def test_tcn_transformer():
    fusion, w = built("tcn_transformer", **SMALL, tcn_kernel=3, tcn_levels=2)

    def reference(x):
        encoded = {m: tcn(w, f"attend.blocks.0.tcns.{m}", value) for m, value in x.items()}
        return encoder(w, "readout.encoder", stacked(encoded))

    check(fusion, reference)


def test_jmt():
    fusion, w = built("jmt", **SMALL)

    def reference(x):
        tokens = {**x, "joint": linear(w, "readout.joint", stacked(x))}
        encoded = {m: encoder(w, f"readout.encoders.{m}", value) for m, value in tokens.items()}
        crossed = [
            multi_head(w, f"readout.cross.{m}_{n}", encoded[m], encoded[n], 2) for m in tokens for n in tokens if m != n
        ]
        return linear(w, "readout.out", np.concatenate(crossed, axis=1))

    check(fusion, reference)


@pytest.mark.parametrize("modalities", ["audio+visual", "visual+text", "audio+visual+text"])
def test_leader_follower(modalities):
    fusion, w = built("leader_follower", modalities=modalities, heads=2, head_width=3)

    def reference(x):
        frames = []
        for frame in range(len(x["visual"])):
            q, k, v = [], [], []
            for m, value in x.items():
                both = linear(w, f"readout.qkv.{m}", value[frame]).reshape(2, 9)  # heads x (Q, K, V)
                for store, part in zip((q, k, v), np.split(both, 3, axis=1), strict=True):
                    store.append(part)
            read = []
            for m in range(len(x)):
                for head in range(2):
                    logits = np.array([q[m][head] @ k[n][head] / math.sqrt(3) for n in range(len(x))])
                    weights = softmax(logits)
                    read.append(sum(weights[n] * v[n][head] for n in range(len(x))) + v[m][head])
            frames.append(np.concatenate(read))
        follower = layer_norm(w, "readout.out.2", linear(w, "readout.out.0", np.array(frames)))
        return np.concatenate([x["visual"], follower], axis=1)

    check(fusion, reference)


def test_the_leader_is_always_there():
    params = find_system("leader_follower").params
    with pytest.raises(Exception, match="modalities"):
        params.parse({"modalities": "audio+text"}, "leader_follower")
