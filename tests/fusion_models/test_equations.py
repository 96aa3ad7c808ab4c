"""Every equation against a slow reference: NumPy, float64, one window, the papers' columns X : d x L, loops.

The references share no code and no layout with the modules: the modules work on rows and einsum, these on columns.
"""

import numpy as np
import pytest
import torch

from crossfold.fusion_models.blocks.joint_attention import JointAttention, JointAttentionParams, Linear
from crossfold.fusion_models.catalogue import find_system
from crossfold.fusion_models.system import Features

WIDTHS = {"audio": 3, "visual": 4, "text": 2}
L = 5
B = 3
TOLERANCE = 1e-9


def array(tensor):
    return tensor.detach().numpy()


def columns(x_BLD, b):
    """One window as the papers print it, d x L."""
    return array(x_BLD)[b].T


def softmax_column(values):
    """Of one list of logits."""
    top = max(values)
    powers = [np.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def relu(x):
    return np.where(x > 0, x, 0.0)


def reference_ca(x_a, x_v, w, *, temperature, tanh):
    """004 eqs 1-5 and 000 sec 3B."""
    frames = x_a.shape[1]
    z = np.zeros((frames, frames))
    for i in range(frames):
        for j in range(frames):
            z[i, j] = x_a[:, i] @ w @ x_v[:, j]  # 004 eq 1
    attended = []
    for x, logits in ((x_a, z), (x_v, z.T)):
        weights = np.zeros_like(logits)
        for j in range(frames):
            weights[:, j] = softmax_column(list(logits[:, j] / temperature))  # 004 eq 2, column-wise
        x_hat = np.zeros_like(x)
        for j in range(frames):
            for i in range(frames):
                x_hat[:, j] += weights[i, j] * x[:, i]  # 004 eq 3
        attended.append(np.tanh(x + x_hat) if tanh else x + x_hat)  # 004 eqs 4-5
    return attended


def reference_joint(x, fc):
    """J = FC([X_a ; X_v ; X_t]), frame by frame; `fc` is (weight, bias) or None for 003."""
    stacked = np.concatenate(list(x.values()))
    if fc is None:
        return stacked
    weight, bias = fc
    return np.stack([weight @ stacked[:, k] + bias for k in range(stacked.shape[1])], axis=1)


def same(x):
    return x


def reference_time_axis(x, joint, j, c, h, squash=same, after=same):
    """001 eqs 1-6: C : L x L, H : d_m x L. `squash`, `after` and the biases are what released code adds (G2a, G8)."""
    d, frames = joint.shape
    corr = np.zeros((frames, frames))
    for i in range(frames):
        for k in range(frames):
            corr[i, k] = np.tanh((x[:, i] @ j.w + j.b) @ joint[:, k] / np.sqrt(d))
    hidden = relu(squash((x @ c.w + c.b) @ corr))
    return after(hidden @ h.w + h.b) + x


def reference_feature_axis(x, joint, j, c, h, squash=same, after=same):
    """003 eqs 2-7 read as rows (A2): C : d_m x d, H : L x d."""
    d, d_m = len(joint), len(x)
    corr = np.zeros((d_m, d))
    for p in range(d_m):
        for q in range(d):
            corr[p, q] = np.tanh((x[p] @ j.w + j.b) @ joint[q] / np.sqrt(d))
    hidden = relu(squash((x.T @ c.w + c.b) @ corr))
    return after((hidden @ h.w + h.b).T) + x


def reference_additive(x, joint, *maps):
    """The first released JCA (A7): C : d_m x d, H : d_m x K. It has no biases."""
    w_j, w_x, w_c, w_h = (linear.w for linear in maps)
    c = np.zeros((len(x), len(joint)))
    for p in range(len(x)):
        for q in range(len(joint)):
            c[p, q] = np.tanh(x[p] @ w_j @ joint[q] / np.sqrt(len(joint)))
    h = relu(x @ w_x + c @ w_c)
    return h @ w_h + x


STEPS = {"time": reference_time_axis, "feature": reference_feature_axis, "additive": reference_additive}


def reference_block(x, weights, form, **released):
    """One iteration of joint cross-attention on {modality: d_m x L}."""
    joint = reference_joint(x, weights["fc"])
    return {m: STEPS[form](x[m], joint, *weights[m], **released) for m in x}


def reference_gate(x, x_att, w, temperature):
    """000 eqs 2-5 of one modality; column 0 unattended, 1 attended."""
    mixed = np.zeros_like(x)
    for frame in range(x.shape[1]):
        logits = [x_att[:, frame] @ w[:, k] / temperature for k in (0, 1)]
        g = softmax_column(logits)
        mixed[:, frame] = relu(g[0] * x[:, frame] + g[1] * x_att[:, frame])
    return mixed


def weights_of(block):
    """The weights of a `JointAttention`, as NumPy arrays."""
    fc = block.fc
    found = {"fc": (array(fc.weight), array(fc.bias)) if isinstance(fc, torch.nn.Linear) else None}
    for m in block.w["w_j"]:
        maps = block.maps_of(m, block.frames)
        found[m] = tuple(Linear(array(w), 0.0 if b is None else array(b)) for w, b in maps)
    return found


def random_features(seed=0, frames=L, real=None):
    generator = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(B, frames, d, generator=generator, dtype=torch.float64) for m, d in WIDTHS.items()}
    mask = torch.arange(frames).expand(B, frames) < (frames if real is None else real)
    return Features.masked(x, mask)


def built(name, seed=0, frames=L, **params):
    """A system in float64 whose weights are all of ordinary size, so that no term of an equation can hide."""
    system = find_system(name)
    fusion = system.build(system.params.parse(params, name), WIDTHS, frames).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return fusion


def base_reference(fusion, features, b, name, params):
    """(X, X_att) of window b of a base system, each {modality: d_m x L}."""
    reached = trajectory_reference(fusion, features, b, name, params)
    return reached[0], reached[-1]


def trajectory_reference(fusion, features, b, name, params):
    """[X^(0), ..., X^(M)] of window b, each {modality: d_m x L}."""
    trajectory = [{m: columns(features.x[m], b) for m in fusion.modalities}]
    if name in ("ca", "ca_2stage"):
        for stage in range(1 if name == "ca" else 2):
            x = trajectory[-1]
            tanh = params.get("residual", "tanh") == "tanh"
            skip = {m: sum(earlier[m] for earlier in trajectory[:-1]) if params.get("dense") else 0.0 for m in x}
            attended = reference_ca(
                x["audio"],
                x["visual"],
                array(fusion.attend.blocks[stage].w),
                temperature=params.get("attention_temperature", 1.0),
                tanh=False,
            )
            summed = {m: value + skip[m] for m, value in zip(x, attended, strict=True)}
            trajectory.append({m: np.tanh(value) if tanh else value for m, value in summed.items()})
        return trajectory
    form = "additive" if name == "jca_additive" else params.get("axis", "time")
    released = {"squash": np.tanh, "after": relu} if params.get("squash") else {}
    for t in range(1 if name.startswith("jca") else params.get("iterations", 3)):
        block = fusion.attend.blocks[0 if params.get("tied") else t]
        trajectory.append(reference_block(trajectory[-1], weights_of(block), form, **released))
    return trajectory


CASES = [
    ("ca", {}),
    ("ca", {"residual": "sum"}),
    ("ca", {"residual": "sum", "attention_temperature": 0.3}),
    ("jca", {}),
    ("jca", {"joint": "concat"}),
    ("jca", {"axis": "feature"}),
    ("jca", {"axis": "feature", "joint": "concat"}),
    ("rjca", {}),
    ("rjca", {"tied": True}),
    ("rjca", {"axis": "feature"}),
    ("rjca", {"axis": "feature", "joint": "concat", "iterations": 2, "tied": True}),
    ("rjca", {"modalities": "audio+text"}),
    ("rjca", {"modalities": "audio+visual+text", "axis": "feature"}),
    ("rjca", {"axis": "feature", "squash": True, "attended_relu": True}),
    ("jca", {"attention_bias": True}),
    ("rjca", {"attention_bias": True, "axis": "feature", "iterations": 2}),
    ("rjca", {"attention_bias": True, "iterations": 2, "modalities": "audio+visual+text"}),
    ("rjcma", {}),
    ("rjcma", {"axis": "feature", "joint": "concat", "iterations": 2}),
    ("jca_additive", {"hidden": 3}),
    ("jca_additive", {"hidden": 6, "joint": "fc", "modalities": "audio+visual+text"}),
    ("ca_2stage", {}),
    ("ca_2stage", {"dense": True}),
    ("ca_2stage", {"dense": True, "residual": "sum"}),
]


def label(case):
    return case if isinstance(case, str) else ",".join(f"{key}={value}" for key, value in case.items()) or "default"


@pytest.mark.parametrize(("name", "params"), CASES, ids=label)
def test_base_systems_equal_the_reference(name, params):
    fusion = built(name, **params)
    features = random_features(1)
    z = array(fusion(features))
    assert z.shape == (B, L, sum(WIDTHS[m] for m in fusion.modalities))
    for b in range(B):
        _, attended = base_reference(fusion, features, b, name, params)
        expected = np.concatenate(list(attended.values())).T
        np.testing.assert_allclose(z[b], expected, rtol=TOLERANCE, atol=1e-12)
        assert abs(expected).max() > 0.1


@pytest.mark.parametrize(("name", "params"), CASES, ids=label)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_dca_equals_the_reference(name, params, temperature):
    fusion = built(f"{name}+dca", temperature=temperature, **params)
    features = random_features(2)
    z = array(fusion(features))
    for b in range(B):
        x, attended = base_reference(fusion, features, b, name, params)
        gated = [reference_gate(x[m], attended[m], array(fusion.readout.gate.w[m]), temperature) for m in x]
        np.testing.assert_allclose(z[b], np.concatenate(gated).T, rtol=TOLERANCE, atol=1e-12)


def test_columns_of_the_gate_are_unattended_then_attended():
    """B2, by hand: a gate that sees only its second column takes the attended features."""
    x, attended = np.array([[1.0, 2.0]]), np.array([[5.0, 7.0]])
    np.testing.assert_allclose(reference_gate(x, attended, np.array([[-9.0, 9.0]]), 0.01), attended)
    fusion = built("ca+dca", temperature=0.1)
    notes = {}
    fusion(random_features(3), notes)
    assert notes["gate.audio"].shape == (B, L, 2)
    np.testing.assert_allclose(notes["gate.audio"].sum(-1), 1, rtol=1e-12)


def test_ca_by_hand():
    """L = 2, widths 1: small enough for pencil and paper."""
    system = find_system("ca")
    fusion = system.build(system.params.parse({"residual": "sum"}, "ca"), {"audio": 1, "visual": 1}, 2).double()
    with torch.no_grad():
        fusion.attend.blocks[0].w.fill_(1.0)
    x = {"audio": torch.tensor([[[1.0], [2.0]]]).double(), "visual": torch.tensor([[[3.0], [4.0]]]).double()}
    z = fusion(Features(x, torch.ones(1, 2, dtype=torch.bool)))
    # Z_c = [[3, 4], [6, 8]]; columns of A_a: e^3 : e^6 and e^4 : e^8; of A_v (from the transpose): e^3 : e^4, e^6 : e^8
    a = [1 + (1 * np.e**3 + 2 * np.e**6) / (np.e**3 + np.e**6), 2 + (1 * np.e**4 + 2 * np.e**8) / (np.e**4 + np.e**8)]
    v = [3 + (3 * np.e**3 + 4 * np.e**4) / (np.e**3 + np.e**4), 4 + (3 * np.e**6 + 4 * np.e**8) / (np.e**6 + np.e**8)]
    np.testing.assert_allclose(z[0].detach(), np.array([a, v]).T, rtol=1e-12)


@pytest.mark.parametrize(("name", "params"), CASES, ids=label)
def test_a_padded_window_equals_the_short_one(name, params):
    """With n real frames of L, the result is the equations on n frames with the top-left n x n of each L x L weight."""
    real = 3
    fusion, short = built(name, **params), built(name, frames=real, **params)
    state = fusion.state_dict()
    for key, wanted in short.state_dict().items():
        state[key] = state[key][tuple(slice(size) for size in wanted.shape)]
    short.load_state_dict(state)
    features = random_features(4, real=real)
    cropped = Features({m: x[:, :real] for m, x in features.x.items()}, features.mask_BL[:, :real])
    z = fusion(features)
    torch.testing.assert_close(z[:, :real], short(cropped), rtol=1e-10, atol=1e-12)
    assert not z[:, real:].any()


SMALL = {"heads": 2, "head_width": 2, "feedforward": 4, "layers": 1}


def test_gradients_agree_with_finite_differences():
    for name, params in [
        ("ca", {}),
        ("ca+dca", {"relu": False, "temperature": 0.5}),
        ("jca", {}),
        ("jca", {"axis": "feature"}),
        ("rjca+dca", {"iterations": 2, "temperature": 0.5}),
        ("jca_additive", {"hidden": 4}),
        ("ca_2stage", {"dense": True}),
        ("grjca", {"iterations": 2, "temperature": 0.5, "relu": False}),
        ("hgrjca", {"iterations": 2, "temperature": 0.5, "relu": False}),
        ("rjca", {"iterations": 1, "weights": "relative", "reach": 1}),
        ("rjca", {"iterations": 1, "weights": "lowrank", "rank": 2}),
        ("self_attention", {}),
        ("lstm", {"hidden": 3}),
        ("tca+dca", SMALL | {"temperature": 0.5, "relu": False}),
        ("transformer", SMALL),
        ("lstm_transformer", SMALL | {"hidden": 3}),
        ("jmt", SMALL),
        ("leader_follower", {}),
    ]:
        fusion = built(name, frames=3, **params)
        features = random_features(5, frames=3, real=2)
        names = [key for key, _ in fusion.named_parameters()]

        def z_of(audio, visual, *weights, fusion=fusion, features=features, names=names):
            given = Features.masked({"audio": audio, "visual": visual}, features.mask_BL)
            return torch.func.functional_call(fusion, dict(zip(names, weights, strict=True)), (given,))

        inputs = [features.x["audio"], features.x["visual"], *fusion.parameters()]
        inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        assert torch.autograd.gradcheck(z_of, inputs, fast_mode=True), name


@pytest.mark.parametrize("axis", ["time", "feature"])
def test_parameter_counts_as_printed(axis):
    """Spec 1.7: sum_m(d_m d + 2 L^2) + d^2 + d, or sum_m(L^2 + d_m^2 + d d_m) + d^2 + d."""
    block = JointAttention(JointAttentionParams(axis=axis), WIDTHS, L)
    d = sum(WIDTHS.values())
    each = [w * d + 2 * L**2 if axis == "time" else L**2 + w**2 + d * w for w in WIDTHS.values()]
    assert sum(p.numel() for p in block.parameters()) == sum(each) + d * d + d
    assert sum(p.numel() for p in built("ca").parameters()) == 3 * 4
    extra = sum(p.numel() for p in built("ca+dca").parameters()) - 3 * 4
    assert extra == 2 * (3 + 4)


def reference_mix(read, candidates, w, temperature, *, relu_after=True):
    """One gate over K candidates d x L, from what it reads: 001 eqs 9-13, 14-18."""
    mixed = np.zeros_like(candidates[0])
    for frame in range(mixed.shape[1]):
        logits = [read[k][:, frame] @ w[:, k] / temperature for k in range(len(candidates))]
        for weight, candidate in zip(softmax_column(logits), candidates, strict=True):
            mixed[:, frame] += weight * candidate[:, frame]
    return relu(mixed) if relu_after else mixed


GATED = [
    ("grjca", {}),
    ("grjca", {"gate_input": "each", "iterations": 2}),
    ("grjca", {"relu": False, "temperature": 1.0, "axis": "feature"}),
    ("grjca", {"modalities": "audio+visual+text"}),
    ("hgrjca", {}),
    ("hgrjca", {"iterations": 1}),
    ("hgrjca", {"final_gate_input": "all", "iterations": 2}),
    ("hgrjca", {"final_gate_input": "last"}),
    ("hgrjca", {"stage_gate": "all_before"}),
    ("hgrjca", {"modalities": "audio+visual+text", "temperature": 0.5}),
    ("hgrjca", {"relu": False}),
    ("hgrjca_v1", {}),
    ("hgrjca_v1", {"final_gate_input": "all", "temperature": 0.7}),
]


@pytest.mark.parametrize(("name", "params"), GATED, ids=label)
def test_gated_systems_equal_the_reference(name, params):
    """001 eqs 9-20; 003 eqs 1-15."""
    fusion, features = built(name, **params), random_features(6)
    z = array(fusion(features))
    temperature, relu_after = params.get("temperature", 0.1), params.get("relu", True)
    axis = {"axis": "feature"} if name == "hgrjca_v1" else {}
    for b in range(B):
        x = trajectory_reference(fusion, features, b, name, params | axis)
        steps, final = len(x) - 1, []
        for m in fusion.modalities:
            if name == "grjca":
                read = [x[t if params.get("gate_input") == "each" else -1][m] for t in range(steps + 1)]
                w = array(fusion.readout.gate.w[m])
                final.append(reference_mix(read, [one[m] for one in x], w, temperature, relu_after=relu_after))
                continue
            gated = []
            for t in range(1, steps + 1):
                w = array(fusion.readout.gates[t - 1].w[m])
                chosen = [one[m] for one in x[0 if params.get("stage_gate") else t - 1 : t + 1]]
                gated.append(reference_mix([x[t][m]] * len(chosen), chosen, w, temperature, relu_after=relu_after))
            if steps == 1:
                final.append(gated[0])
                continue
            reads = {"attended": x[-1][m], "last": gated[-1], "all": np.concatenate(gated)}
            read = reads[params.get("final_gate_input", "attended")]
            w = array(fusion.readout.final.gate.w[m])
            final.append(reference_mix([read] * steps, gated, w, temperature, relu_after=relu_after))
        np.testing.assert_allclose(z[b], np.concatenate(final).T, rtol=TOLERANCE, atol=1e-12)


def test_feedback_goes_on_from_gated_features():
    """B8: X_g^(t) is gated between X_g^(t-1) and the block of it; the high-level gate is as before."""
    fusion, features = built("hgrjca", feedback=True, iterations=2, temperature=0.5), random_features(7)
    z = array(fusion(features))
    for b in range(B):
        x, gated = {m: columns(features.x[m], b) for m in fusion.modalities}, []
        for step in fusion.attend.blocks:
            attended = reference_block(x, weights_of(step.block), "time")
            x = {m: reference_mix([attended[m]] * 2, [x[m], attended[m]], array(step.gate.w[m]), 0.5) for m in x}
            gated.append(x)
        final = [
            reference_mix([gated[-1][m]] * 2, [one[m] for one in gated], array(fusion.readout.gate.w[m]), 0.5)
            for m in x
        ]
        np.testing.assert_allclose(z[b], np.concatenate(final).T, rtol=TOLERANCE, atol=1e-12)


def test_released_variants_set_the_facts_and_leave_the_rest():
    """Decisions G2a, G2d, G4a; off by default."""
    for name, iterations, joint in [("rjca", 1, "fc"), ("rjcma", 2, "concat"), ("rjca+dca", 2, "fc")]:
        kind = find_system(name).params
        made = kind.parse({"variant": "released"}, name)
        assert (made.axis, made.iterations, made.joint, made.squash) == ("feature", iterations, joint, True)
        assert kind().squash is False
        assert kind.parse(made.model_dump(mode="json"), name) == made
        assert kind.parse({"variant": "released", "iterations": 4}, name).iterations == 4
    assert find_system("jca+dca").params.parse({"variant": "released"}, "jca+dca").gate_bias


def test_parameters_of_an_older_cell_stay_as_they_are():
    """A cell of the released variant lacks the switches that were found later; it was trained without them."""
    system = find_system("rjca+dca")
    today = system.params.parse({"variant": "released"}, "rjca+dca").model_dump(mode="json")
    older = {key: value for key, value in today.items() if key not in ("attention_bias", "input_norm")}
    found = system.resolved(older)
    assert (found.attention_bias, found.input_norm) == (False, "none")
    assert (found.axis, found.squash, found.iterations) == ("feature", True, 2)
    assert system.resolved(today).attention_bias
