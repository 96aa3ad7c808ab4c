"""What holds for everything that is registered: a new system gets these tests by being registered."""

import copy
import pickle
from typing import Literal, get_args, get_origin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.fusion_models.blocks.attention_maps import KINDS, maps_over_time
from crossfold.fusion_models.catalogue import citation, find_system, references, system_names
from crossfold.fusion_models.system import Features
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.modeling.emotion_model import EmotionModel

WIDTHS = {"audio": 4, "visual": 5, "text": 3}
L = 6
SYSTEMS = system_names()
NOTED = dict.fromkeys(("jca", "rjca", "grjca", "hgrjca", "rjcma"), "joint_correlation")
NOTED |= {"ca": "cross_attention", "hgrjca_v1": "channel_correlation"}
WITHOUT_MAPS = {"concat", "lstm", "unimodal_audio", "unimodal_visual", "unimodal_text"}
everything = pytest.mark.parametrize("name", SYSTEMS)


def build(name, seed=0, widths=WIDTHS, frames=L, **params):
    system = find_system(name)
    torch.manual_seed(seed)
    return system.build(system.params.parse(params, name), widths, frames).eval()


def features(seed=0, batch=3, frames=L, real=None, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = {m: scale * torch.randn(batch, frames, d, generator=generator, dtype=dtype) for m, d in WIDTHS.items()}
    lengths = torch.full((batch,), frames) if real is None else torch.tensor(real)
    return Features.masked(x, torch.arange(frames) < lengths[:, None])


def test_every_system_of_the_papers_is_registered():
    """Spec section 1 and issue 3."""
    alone = "concat lstm self_attention grjca hgrjca hgrjca_v1 leader_follower transformer lstm_transformer"
    alone += " tcn_transformer jmt unimodal_audio unimodal_visual unimodal_text ca_2stage jca_additive"
    paired = "ca tca jca rjca rjcma"
    assert set(alone.split()) <= set(SYSTEMS)
    assert {name + dca for name in paired.split() for dca in ("", "+dca")} <= set(SYSTEMS)


def test_every_reference_is_cited_by_a_system():
    cited = {find_system(name).bibtex for name in SYSTEMS}
    assert cited == {citation(key) for key in references()}


def test_released_variants_of_everything_build_and_run():
    for name in SYSTEMS:
        if find_system(name).released:
            z = build(name, variant="released")(features())
            assert torch.isfinite(z).all(), name


@everything
def test_z_has_one_row_a_frame(name):
    fusion = build(name)
    z = fusion(features())
    assert z.shape == (3, L, fusion.width)
    assert z.dtype == torch.float32
    assert torch.isfinite(z).all()
    assert fusion(features(batch=1)).shape == (1, L, fusion.width)  # N18: a batch of one keeps its rank


@everything
def test_every_weight_learns(name):
    """N1: no parameter, not one entry of one, is left without gradient by the wiring."""
    fusion = build(name).double().train()
    if not list(fusion.parameters()):
        assert fusion.attend.steps == 0, "only a system that does not attend may have no weights"
        return
    reached = {key: torch.zeros_like(p) for key, p in fusion.named_parameters()}
    for seed in range(12):
        fusion.zero_grad()
        z = fusion(features(seed, batch=8, dtype=torch.float64))
        (z * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(seed))).sum().backward()
        for key, p in fusion.named_parameters():
            assert p.grad is not None, key
            reached[key] += p.grad.abs()
    for key, total in reached.items():
        assert (total > 0).all(), f"{key}: {(total == 0).sum()} of {total.numel()} entries never get a gradient"


@everything
def test_every_modality_reaches_z(name):
    fusion, given = build(name), features()
    for m in fusion.modalities:
        x = given.x[m].clone().requires_grad_()
        fusion(Features(given.x | {m: x}, given.mask_BL)).square().sum().backward()
        assert (x.grad != 0).any(), m


@everything
def test_padding_influences_no_real_frame(name):
    fusion, given = build(name), features(real=[6, 4, 1])
    expected = fusion(given)
    for poison in (1e6, -1e6, 1.0):
        poisoned = {m: torch.where(given.mask_BL.unsqueeze(-1), x, torch.tensor(poison)) for m, x in given.x.items()}
        assert torch.equal(fusion(Features.masked(poisoned, given.mask_BL)), expected)
    assert not expected[~given.mask_BL].any()


@everything
def test_a_model_never_sees_padding(name):
    """The same from the raw features on, through encoders and heads, in training order of operations."""
    recipe = Recipe.parse({"window": L, "hop": L, "temporal": {"width": 4, "levels": 2, "kernel": 3}}, "test")
    fusion = build(name, widths=dict.fromkeys(WIDTHS, 4))
    model = EmotionModel(WIDTHS, fusion, recipe, targets=2).eval()
    given = features(1, real=[6, 4, 1])
    expected = model(given.x, given.mask_BL)
    assert expected.shape == (3, L, 2)
    poisoned = {m: torch.where(given.mask_BL.unsqueeze(-1), x, torch.tensor(1e6)) for m, x in given.x.items()}
    assert torch.equal(model(poisoned, given.mask_BL)[given.mask_BL], expected[given.mask_BL])


@everything
def test_windows_of_a_batch_are_independent(name):
    fusion, given = build(name), features(2, batch=4, real=[6, 3, 5, 6])
    expected = fusion(given)
    order = torch.tensor([2, 0, 3, 1])
    permuted = fusion(Features({m: x[order] for m, x in given.x.items()}, given.mask_BL[order]))
    torch.testing.assert_close(permuted, expected[order], rtol=1e-5, atol=1e-6)
    alone = fusion(Features({m: x[1:2] for m, x in given.x.items()}, given.mask_BL[1:2]))
    torch.testing.assert_close(alone, expected[1:2], rtol=1e-5, atol=1e-6)


@everything
def test_inputs_are_left_as_they_were(name):
    """N18: forward writes nothing into what it was given."""
    given = features(3, real=[6, 4, 2])
    kept = {m: x.clone() for m, x in given.x.items()}
    build(name)(given)
    assert list(given.x) == list(kept)
    assert all(torch.equal(given.x[m], kept[m]) for m in kept)


@everything
def test_same_seed_same_numbers(name):
    given = features(4)
    assert torch.equal(build(name, seed=3)(given), build(name, seed=3)(given))
    if list(build(name).parameters()):
        assert not torch.equal(build(name, seed=3)(given), build(name, seed=4)(given))


@everything
def test_state_and_pickle_come_back(name):
    fusion, given = build(name, seed=5), features(5)
    other = build(name, seed=6)
    other.load_state_dict(fusion.state_dict())
    expected = fusion(given)
    assert torch.equal(other(given), expected)
    assert torch.equal(pickle.loads(pickle.dumps(fusion))(given), expected)
    assert torch.equal(copy.deepcopy(fusion)(given), expected)


@everything
def test_parameters_come_back_from_json(name):
    kind = find_system(name).params
    defaults = kind()
    assert kind.parse(defaults.model_dump(mode="json"), name) == defaults


@everything
def test_unknown_parameters_are_refused(name):
    kind = find_system(name).params
    with pytest.raises(UserError, match="unknown key 'no_such_thing'"):
        kind.parse({"no_such_thing": 1}, name)
    for field in kind.model_fields:
        with pytest.raises(UserError, match=f"did you mean '{field}'"):
            kind.parse({field + "x": 1}, name)


@everything
def test_the_search_space_names_parameters(name):
    system = find_system(name)
    assert set(system.space) <= set(system.params.model_fields)


@everything
def test_notes_hold_intermediates_and_change_nothing(name):
    fusion, given = build(name), features(6)
    notes = {}
    assert torch.equal(fusion(given, notes), fusion(given))
    assert all(not value.requires_grad and torch.isfinite(value).all() for value in notes.values())
    base, steps = name.removesuffix("+dca"), fusion.attend.steps
    names = {f"x.{m}.{t}" for m in fusion.modalities for t in range(steps + 1)}
    kind = NOTED.get(base)
    if kind:
        queries = {"audio": "visual", "visual": "audio"} if base == "ca" else dict.fromkeys(fusion.modalities, "joint")
        names |= {f"{kind}.{queries[m]}.{m}.{t + 1}" for m in fusion.modalities for t in range(steps)}
    if name.endswith("+dca") or base == "grjca":
        names |= {f"gate.{m}" for m in fusion.modalities}
    if base in {"hgrjca", "hgrjca_v1"}:
        names |= {f"gate.{step}.{m}" for m in fusion.modalities for step in ("final", 1, 2, 3)}
    assert names <= set(notes)
    if base in {*NOTED, "concat", "unimodal_audio", "unimodal_visual", "unimodal_text"}:
        assert set(notes) == names


@everything
@pytest.mark.parametrize("real", [None, [6, 4, 1]])
def test_attention_maps_are_what_their_names_say(name, real):
    """Axes, shapes, sums and signs of every map that a system hands out when asked, with and without padding."""
    fusion, given, notes = build(name), features(7, real=real), {}
    fusion(given, notes)
    known = {*fusion.modalities, "joint"}
    handed = [each for each in notes if each.split(".")[0] in KINDS]
    assert bool(handed) == (name.removesuffix("+dca") not in WITHOUT_MAPS)
    for each in handed:
        kind, query, key, *step = each.split(".")
        assert {query, key} <= known
        assert all(part.isdigit() for part in step)
        assert notes[each].ndim == len(KINDS[kind].axes.split())
        if kind == "channel_correlation":
            assert notes[each].shape == (3, sum(WIDTHS[m] for m in fusion.modalities), WIDTHS[key])
    maps = maps_over_time(notes)
    assert len(maps) == sum(not each.startswith("channel_correlation") for each in handed)
    for each in maps:
        assert torch.isfinite(each.values).all()
        assert each.values.shape == ((3, L) if each.kind == "modal_attention" else (3, L, L))
        if KINDS[each.kind].softmax:
            assert (each.values >= 0).all()
        else:
            assert (each.values.abs() <= 1).all()
        if each.kind in ("cross_attention", "dot_attention"):
            torch.testing.assert_close(each.values.sum(-1), torch.ones(3, L))
            padded = ~given.mask_BL.unsqueeze(1).expand_as(each.values)
            assert (each.values[padded] == 0).all(), "nothing reads padding"
    for query in {each.query for each in maps if each.kind == "modal_attention"}:
        total = sum(each.values for each in maps if each.query == query)
        torch.testing.assert_close(total, torch.ones(3, L))


@everything
def test_widths_that_are_missing_are_named(name):
    system = find_system(name)
    with pytest.raises(ValueError, match=f"{name}.*needs {system.modalities[-1]}".replace("+", r"\+")):
        system.build(system.params(), dict.fromkeys(system.modalities[:-1], 4), L)


@everything
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), exponent=st.floats(-6, 4), real=st.integers(1, L), low=st.booleans())
def test_extreme_inputs_stay_finite(name, seed, exponent, real, low):
    fusion, given_features = build(name), features(seed % 1000, real=[real, L, 1], scale=10.0**exponent)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        z = fusion(given_features)
        assert torch.isfinite(z).all()
        if z.requires_grad:
            z.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)


@everything
def test_constant_and_zero_inputs_are_finite(name):
    fusion, mask = build(name), torch.ones(2, L, dtype=torch.bool)
    for value in (0.0, 1.0, -1e4):
        z = fusion(Features({m: torch.full((2, L, d), value) for m, d in WIDTHS.items()}, mask))
        assert torch.isfinite(z).all()


SWITCHED = [name for name in SYSTEMS if not name.endswith("+dca") or name in ("rjca+dca", "tca+dca")]


@st.composite
def switched(draw):
    """A system with every switch of few values at one of them: all that a sweep may ask for."""
    name = draw(st.sampled_from(SWITCHED))
    values = {"rank": 3, "reach": 2, "iterations": draw(st.integers(1, 3))}
    params = {}
    for field, info in find_system(name).params.model_fields.items():
        if get_origin(info.annotation) is Literal:
            params[field] = draw(st.sampled_from(get_args(info.annotation)))
        elif info.annotation is bool:
            params[field] = draw(st.booleans())
        elif field in values:
            params[field] = values[field]
    return name, params


@settings(max_examples=150, deadline=None)
@given(case=switched(), exponent=st.floats(-6, 3), low=st.booleans())
def test_any_combination_of_switches_holds(case, exponent, low):
    name, params = case
    fusion, given_features = build(name, **params), features(1, real=[6, 4, 1], scale=10.0**exponent)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        z = fusion(given_features)
    assert z.shape == (3, L, fusion.width)
    assert torch.isfinite(z).all()
    assert not z[~given_features.mask_BL].any()
    if z.requires_grad:
        z.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)
    kind = find_system(name).params
    assert kind.parse(kind.parse(params, name).model_dump(mode="json"), name) == kind.parse(params, name)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"'audio' has \(2, 6\).*mask has \(2, 5\)"):
        Features({"audio": torch.zeros(2, 6, 4)}, torch.ones(2, 5, dtype=torch.bool))
