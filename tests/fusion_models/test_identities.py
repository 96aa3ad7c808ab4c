"""Relations between systems that hold exactly, and names and parameters that are refused."""

import pytest
import torch

from crossfold.fusion_models.blocks import gates
from crossfold.fusion_models.blocks.temporal import temporal_encoder
from crossfold.fusion_models.catalogue import find_system, system_names
from crossfold.fusion_models.system import Features, Trajectory
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Temporal

WIDTHS = {"audio": 4, "visual": 5, "text": 3}
L = 6
PAIRED = [name for name in system_names() if name.endswith("+dca")]


def build(name, **params):
    system = find_system(name)
    torch.manual_seed(0)
    fusion = system.build(system.params.parse(params, name), WIDTHS, L).double().eval()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return fusion


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(3, L, d, generator=generator, dtype=torch.float64) for m, d in WIDTHS.items()}
    return Features.masked(x, torch.arange(L) < torch.tensor([6, 4, 2])[:, None])


def base_state(fusion):
    """The weights of the base of a `+dca`, under their names there."""
    named = {key.replace("readout.then.", "readout."): value for key, value in fusion.state_dict().items()}
    return {key: value for key, value in named.items() if not key.startswith("readout.gate.")}


@pytest.mark.parametrize("axis", ["time", "feature"])
def test_rjca_of_one_iteration_is_jca(axis):
    jca, rjca = build("jca", axis=axis), build("rjca", axis=axis, iterations=1)
    rjca.load_state_dict(jca.state_dict())
    assert torch.equal(rjca(features()), jca(features()))


def test_tied_rjca_is_jca_applied_again():
    jca, rjca = build("jca"), build("rjca", iterations=3, tied=True)
    rjca.load_state_dict(jca.state_dict())
    given = features()
    x = given.x
    for _ in range(3):
        x = jca.attend(Features({m: x[m] for m in jca.modalities}, given.mask_BL))[-1]
    torch.testing.assert_close(rjca(given), torch.cat(list(x.values()), dim=-1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("column", "which"), [(0, "unattended"), (1, "attended")])
@pytest.mark.parametrize("name", PAIRED)
def test_a_gate_forced_open_is_the_base_and_forced_shut_is_concat(name, column, which, monkeypatch):
    gated, base = build(name, relu=False), build(name.removesuffix("+dca"))
    base.load_state_dict(base_state(gated))
    one_hot = torch.zeros(2, dtype=torch.float64)
    one_hot[column] = 1
    monkeypatch.setattr(gates, "gate", lambda logits, temperature: one_hot.expand_as(logits))
    given = features()
    x = {m: given.x[m] for m in base.modalities}
    expected = base(given) if which == "attended" else base.readout(Trajectory([x], given.mask_BL))
    torch.testing.assert_close(gated(given), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", PAIRED)
def test_a_hot_gate_weighs_both_alike(name):
    fusion, notes = build(name, temperature=1e12), {}
    fusion(features(), notes)
    for m in fusion.modalities:
        torch.testing.assert_close(
            notes[f"gate.{m}"], torch.full((3, L, 2), 0.5, dtype=torch.float64), rtol=1e-9, atol=0
        )


@pytest.mark.parametrize("name", PAIRED)
def test_a_cold_gate_chooses(name):
    fusion, notes = build(name, temperature=1e-6), {}
    given = features()
    fusion(given, notes)
    assert (notes["gate.audio"][given.mask_BL].amax(-1) > 0.999).all()


def test_ca_does_not_care_for_the_order_of_frames():
    """No position enters CA: shuffled frames give shuffled features."""
    ca, given = build("ca"), features()
    full = Features(given.x, torch.ones_like(given.mask_BL))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = Features({m: x[:, order] for m, x in full.x.items()}, full.mask_BL)
    torch.testing.assert_close(ca(shuffled), ca(full)[:, order])


def test_jca_does_care_for_the_order_of_frames():
    jca, given = build("jca"), features()
    full = Features(given.x, torch.ones_like(given.mask_BL))
    shuffled = Features({m: x.flip(1) for m, x in full.x.items()}, full.mask_BL)
    assert not torch.allclose(jca(shuffled), jca(full).flip(1), atol=1e-3)


@pytest.mark.parametrize("name", [n for n in system_names() if "jc" in n])
def test_another_window_length_names_both(name):
    fusion = build(name)
    x = {m: torch.zeros(1, 9, d, dtype=torch.float64) for m, d in WIDTHS.items()}
    with pytest.raises(ValueError, match=r"9 frames.*L = 6"):
        fusion(Features(x, torch.ones(1, 9, dtype=torch.bool)))


@pytest.mark.parametrize("name", ["concat+dca", "unimodal_audio+dca", "unimodal_visual+dca"])
def test_dca_needs_a_base_that_attends(name):
    with pytest.raises(UserError, match=r"no .unattended, attended. features") as caught:
        find_system(name)
    assert "rjca" in caught.value.remedy


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("rjcaa", "rjca"), ("rjcaa+dca", r"rjca\+dca"), ("jac", "jca"), ("unimodal_vidual", "unimodal_visual")],
)
def test_a_wrong_name_answers_with_the_nearest(wrong, right):
    with pytest.raises(UserError, match=f"did you mean '{right}'"):
        find_system(wrong)


def test_dca_composes_once():
    with pytest.raises(UserError, match=r"unknown system 'rjca\+dca\+dca', did you mean 'rjca\+dca'"):
        find_system("rjca+dca+dca")
    assert find_system("rjca+dca").params is find_system("rjca+dca").params


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rjca", {"iterations": 0}),
        ("rjca", {"gain": 0}),
        ("jca", {"axis": "diagonal"}),
        ("ca", {"attention_temperature": 0}),
        ("ca", {"attention_dropout": 1.0}),
        ("ca+dca", {"temperature": 0}),
        ("ca+dca", {"temperature": -0.1}),
    ],
)
def test_impossible_parameters_are_refused(name, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        find_system(name).params.parse(wrong, name)


@pytest.mark.parametrize("kind", ["none", "tcn"])
def test_encoders_see_the_past_only(kind):
    params = Temporal(kind=kind, width=4, levels=3, kernel=3, dropout=0.0)
    torch.manual_seed(0)
    encoder = temporal_encoder(5, params).double().eval()
    x = torch.randn(2, 40, 5, dtype=torch.float64)
    expected = encoder(x)
    assert expected.shape == (2, 40, 4)
    changed = x.clone()
    changed[:, 25:] += 1e3
    assert torch.equal(encoder(changed)[:, :25], expected[:, :25])
    changed = x.clone()
    changed[:, 20] += 1.0
    moved = (encoder(changed) != expected).any(-1).any(0).nonzero().flatten().tolist()
    reach = 0 if kind == "none" else (params.kernel - 1) * (2**params.levels - 1)
    assert moved[0] == 20
    assert moved[-1] <= 20 + reach


def test_the_receptive_field_is_as_documented():
    """(k - 1)(2^n - 1) frames of the past, the last of them too."""
    params = Temporal(width=6, levels=2, kernel=3, dropout=0.0)
    torch.manual_seed(1)
    encoder = temporal_encoder(3, params).double().eval()
    x = torch.randn(1, 30, 3, dtype=torch.float64, requires_grad=True)
    encoder(x)[0, 20].sum().backward()
    seen = x.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert seen[-1] == 20
    assert seen[0] >= 20 - 2 * 3
    assert seen[0] <= 20 - 2 * 2


@pytest.mark.parametrize(
    "options", [{}, {"axis": "feature"}, {"relu": False}, {"modalities": "audio+visual+text"}], ids=str
)
def test_with_one_iteration_the_gated_systems_are_one(options):
    """B13: grjca == hgrjca == jca+dca at M = 1, with shared weights."""
    flat, hierarchical = build("grjca", iterations=1, **options), build("hgrjca", iterations=1, **options)
    pair = build("jca+dca", **options)
    state = flat.state_dict()
    hierarchical.load_state_dict({key.replace("readout.gate.", "readout.gates.0."): v for key, v in state.items()})
    pair.load_state_dict(state)
    given = features()
    assert torch.equal(flat(given), pair(given))
    assert torch.equal(flat(given), hierarchical(given))


@pytest.mark.parametrize("axis", ["time", "feature"])
def test_rjcma_without_text_is_rjca_and_rjca_with_text_is_rjcma(axis):
    for modalities in ("audio+visual", "audio+visual+text"):
        rjca, rjcma = build("rjca", axis=axis, modalities=modalities), build("rjcma", axis=axis, modalities=modalities)
        rjcma.load_state_dict(rjca.state_dict())
        assert torch.equal(rjca(features()), rjcma(features()))


def test_hgrjca_v1_is_hgrjca_on_the_other_joint_block():
    """B11."""
    first, later = build("hgrjca_v1"), build("hgrjca", axis="feature", joint="concat")
    later.load_state_dict(first.state_dict())
    assert torch.equal(first(features()), later(features()))


def test_one_stage_is_ca():
    one, ca = build("ca_2stage", stages=1), build("ca")
    one.load_state_dict(ca.state_dict())
    assert torch.equal(one(features()), ca(features()))


@pytest.mark.parametrize("name", ["grjca", "hgrjca", "hgrjca_v1"])
def test_hot_gates_weigh_all_iterations_alike(name):
    fusion, notes = build(name, temperature=1e12), {}
    fusion(features(), notes)
    gates_of = {key: value for key, value in notes.items() if key.startswith("gate")}
    assert gates_of
    for value in gates_of.values():
        torch.testing.assert_close(value, torch.full_like(value, 1 / value.shape[-1]), rtol=1e-9, atol=0)


def test_a_flat_gate_forced_to_the_last_iteration_is_rjca(monkeypatch):
    gated, base = build("grjca", relu=False), build("rjca")
    base.load_state_dict({k: v for k, v in gated.state_dict().items() if k.startswith("attend.")})
    last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    monkeypatch.setattr(gates, "gate", lambda logits, temperature: last.expand_as(logits))
    torch.testing.assert_close(gated(features()), base(features()), rtol=0, atol=0)


SUBSETS = [
    (name, subset)
    for name in system_names()
    if "modalities" in find_system(name).params.model_fields
    for subset in ("audio+visual", "audio+text", "visual+text", "audio+visual+text")
    if not (name == "leader_follower" and "visual" not in subset)
]


@pytest.mark.parametrize(("name", "subset"), SUBSETS)
def test_a_subset_of_the_modalities_is_all_that_is_read(name, subset):
    system = find_system(name)
    params = system.params.parse({"modalities": subset}, name)
    assert system.modalities_for(params) == tuple(subset.split("+"))
    widths = {m: WIDTHS[m] for m in subset.split("+")}
    fusion, given = system.build(params, widths, L).double().eval(), features()
    z = fusion(given)
    others = {m: x if m in widths else x + 1e3 for m, x in given.x.items()}
    assert torch.equal(fusion(Features(others, given.mask_BL)), z)
    assert fusion.modalities == tuple(widths)


def test_issue_subsets_are_offered():
    offered = {name for name, _ in SUBSETS}
    assert {"grjca", "hgrjca", "rjca", "leader_follower", "transformer"} <= offered


@pytest.mark.parametrize("name", system_names())
def test_listed_modalities_are_those_of_the_defaults(name):
    system = find_system(name)
    assert system.modalities_for(system.params()) == system.modalities
