"""`variant: released` against compositions of the facts about the authors' code, in NumPy and float64.

Each is written from the facts (decisions A7, G2, G4, G7, G8) with rows for frames, and shares nothing with
the blocks but the weights. Every bias is a random number.

Legend: L frames, D features of one modality, J features of the joint, K gate columns.
"""

import numpy as np
import pytest
import torch

from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features

FRAMES, WINDOWS = 5, 3
WIDTHS = {"audio": 3, "visual": 4, "text": 2}


class Weights:
    """The weights of a fusion by name, in float64."""

    def __init__(self, fusion):
        self.by_name = {name: value.detach().numpy() for name, value in fusion.named_parameters()}

    def __call__(self, name):
        return self.by_name[name]

    def linear(self, name, x):
        return x @ self(f"{name}.weight").T + self(f"{name}.bias")


def released(name, **params):
    """A fusion whose weights and biases are all drawn, its modalities, and windows of features."""
    system = find_system(name)
    resolved = system.params.parse(params, name)
    fusion = system.build(resolved, WIDTHS, FRAMES).double().eval()
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7)
    x = {m: torch.randn(WINDOWS, FRAMES, d, generator=generator, dtype=torch.float64) for m, d in WIDTHS.items()}
    return fusion, x


def relu(x):
    return np.maximum(x, 0)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def joint_of(w, t, x, fc):
    """J : L x J, of all modalities; the FC of J is used but in RJCMA (G4a)."""
    stacked = np.concatenate(list(x.values()), axis=1)
    return w.linear(f"attend.blocks.{t}.fc", stacked) if fc else stacked


def attended(w, t, x, fc):
    """G2a, G8: feature axis, a tanh before the ReLU of H, a ReLU after W_h, biases."""
    joint, out = joint_of(w, t, x, fc), {}
    for m, x_LD in x.items():
        (w_j, b_j), (w_c, b_c), (w_h, b_h) = (
            (w(f"attend.blocks.{t}.w.{n}.{m}.w"), w(f"attend.blocks.{t}.b.{n}.{m}")) for n in ("w_j", "w_c", "w_h")
        )
        c_DJ = np.tanh((x_LD.T @ w_j + b_j) @ joint / np.sqrt(joint.shape[1]))
        h_LJ = relu(np.tanh((x_LD @ w_c + b_c) @ c_DJ))
        out[m] = relu(h_LJ @ w_h + b_h) + x_LD
    return out


def trajectory(w, x, iterations, *, fc=True, norm=True):
    """[X^(0), ..., X^(M)]; X^(0) has frames of length one (G7) but in RJCMA."""
    found = [{m: unit(x_LD) for m, x_LD in x.items()} if norm else x]
    for t in range(iterations):
        found.append(attended(w, t, found[-1], fc))
    return found


def gated(w, name, m, read, candidates):
    """ReLU of the mix of candidates; T = 0.1, and a bias of the logits (G2d, G7)."""
    g_LK = softmax((read @ w(f"readout.{name}.w.{m}") + w(f"readout.{name}.bias.{m}")) / 0.1)
    return relu(sum(g_LK[:, [k]] * candidate for k, candidate in enumerate(candidates)))


def together(x):
    return np.concatenate(list(x.values()), axis=1)


def grjca(w, x):
    """G7: one softmax over X^(0), X^(1), X^(2), logits from X^(2)."""
    path = trajectory(w, x, 2)
    return together({m: gated(w, "gate", m, path[2][m], [p[m] for p in path]) for m in x})


def hgrjca(w, x):
    """G7: stage 1 of two columns, stage 2 of three, and a final gate whose logits come from the ungated X^(2)."""
    path, out = trajectory(w, x, 2), {}
    for m in x:
        x0, x1, x2 = (p[m] for p in path)
        first = gated(w, "gates.0", m, x1, [x0, x1])
        second = gated(w, "gates.1", m, x2, [x0, x1, x2])
        out[m] = gated(w, "final.gate", m, x2, [first, second])
    return together(out)


def dca(w, x, iterations):
    """G2d: the unattended features against the last attended ones."""
    path = trajectory(w, x, iterations)
    return together({m: gated(w, "gate", m, path[-1][m], [path[0][m], path[-1][m]]) for m in x})


def additive(w, x):
    """A7: C compares channels, H = ReLU(W_a X + W_c C)."""
    joint, out = together(x), {}
    for m, x_LD in x.items():
        names = ("w_j", "w_x", "w_c", "w_h")
        maps = [(w(f"attend.blocks.0.w.{n}.{m}.w"), w(f"attend.blocks.0.b.{n}.{m}")) for n in names]
        (w_j, b_j), (w_x, b_x), (w_c, b_c), (w_h, b_h) = maps
        c_DJ = np.tanh((x_LD.T @ w_j + b_j) @ joint / np.sqrt(joint.shape[1]))
        h_DK = relu(x_LD.T @ w_x + b_x + c_DJ @ w_c + b_c)
        out[m] = (h_DK @ w_h + b_h).T + x_LD
    return together(out)


def leader_follower(w, x):
    """Spec 1.15: two heads of 16 over the modalities of a frame, V added, then linear map and layer norm."""
    rows = []
    for frame in range(FRAMES):
        tokens = {m: w.linear(f"readout.qkv.{m}", x_LD[frame]).reshape(2, 3, 16) for m, x_LD in x.items()}
        read = []
        for query in tokens.values():
            for head in range(2):
                logits = np.array([query[head, 0] @ key[head, 1] / 4 for key in tokens.values()])
                values = sum(p * v[head, 2] for p, v in zip(softmax(logits), tokens.values(), strict=True))
                read.append(values + query[head, 2])
        f = w.linear("readout.out.0", np.concatenate(read))
        f = (f - f.mean()) / np.sqrt(f.var() + 1e-5)
        rows.append(np.concatenate([x["visual"][frame], f * w("readout.out.2.weight") + w("readout.out.2.bias")]))
    return np.stack(rows)


RELEASED = {"variant": "released"}
COMPOSED = {
    "jca": (RELEASED, lambda w, x: together(trajectory(w, x, 1)[-1])),
    "rjca": (RELEASED, lambda w, x: together(trajectory(w, x, 1)[-1])),
    "rjcma": (RELEASED, lambda w, x: together(trajectory(w, x, 2, fc=False, norm=False)[-1])),
    "jca+dca": (RELEASED, lambda w, x: dca(w, x, 1)),
    "rjca+dca": (RELEASED, lambda w, x: dca(w, x, 2)),
    "grjca": (RELEASED, grjca),
    "hgrjca": (RELEASED, hgrjca),
    "jca_additive": ({"attention_bias": True}, additive),
    "leader_follower": ({}, leader_follower),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_the_released_form_equals_the_composition_of_its_facts(name):
    params, composition = COMPOSED[name]
    fusion, x = released(name, **params)
    used = {m: x[m] for m in fusion.modalities}
    z = fusion(Features(used, torch.ones(WINDOWS, FRAMES, dtype=torch.bool))).detach().numpy()
    biases = [name for name, _ in fusion.named_parameters() if "bias" in name or ".b." in name]
    assert biases
    for window in range(WINDOWS):
        expected = composition(Weights(fusion), {m: values[window].numpy() for m, values in used.items()})
        np.testing.assert_allclose(z[window], expected, rtol=1e-12, atol=1e-12)
        assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("name", ["grjca", "hgrjca"])
def test_the_switches_of_the_public_code_of_001(name):
    """G7, and no other: what is not named stays as printed."""
    kind = find_system(name).params
    printed, made = kind().model_dump(), kind.parse(RELEASED, name).model_dump()
    gates = {"stage_gate": "all_before"} if name == "hgrjca" else {}
    assert {key: value for key, value in made.items() if value != printed[key]} == gates | {
        "variant": "released",
        "input_norm": "l2",
        "axis": "feature",
        "attention_bias": True,
        "gain": 1.0,
        "score_dropout": 0.6,
        "squash": True,
        "attended_relu": True,
        "attended_dropout": 0.6,
        "iterations": 2,
        "gate_bias": True,
    }
    assert made["joint"] == "fc"
    assert made.get("final_gate_input", "attended") == "attended"
