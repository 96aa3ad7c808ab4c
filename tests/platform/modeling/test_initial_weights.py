"""Initial weights follow from the role and the shapes of a part, never from the name of a system."""

import pytest
import torch

from crossfold.fusion_models.catalogue import find_system, system_names
from crossfold.platform.core.seeds import dropout_seed
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.modeling.emotion_model import build_model
from crossfold.platform.modeling.initial_weights import roles_of

INPUTS = {"audio": 5, "visual": 6, "text": 4}


@pytest.fixture
def built(tiny_cell):
    """The model of a system under some parameters, and the weights of its parts by their role."""

    def make(name, params=(), **changes):
        cell = tiny_cell(name, **changes)
        resolved = find_system(name).params.parse(dict(params), name).model_dump(mode="json")
        model = build_model(cell.model_copy(update={"params": resolved}), INPUTS)
        weights = {
            f"{role}.{name}": parameter.detach()
            for role, module in roles_of(model)
            for name, parameter in module.named_parameters(recurse=False)
        }
        return model, weights

    return make


@pytest.mark.parametrize("name", system_names())
def test_every_weight_has_a_role_of_its_own_and_is_drawn_by_it(name, built):
    torch.manual_seed(1)
    model, weights = built(name)
    assert len(weights) == len(list(model.parameters()))
    before = torch.get_rng_state()
    _, again = built(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert weights.keys() == again.keys()
    assert all(torch.equal(value, again[role]) for role, value in weights.items())
    drawn = [value for value in weights.values() if value.numel() > 1 and value.std() > 0]
    assert len({tuple(value.flatten().tolist()) for value in drawn}) == len(drawn)
    _, other = built(name, seed=1)
    assert all(not torch.equal(value, other[role]) for role, value in weights.items() if len(value.unique()) > 1)


ONE = {"iterations": 1}
IDENTICAL = [("jca+dca", {}), ("grjca", ONE), ("hgrjca", ONE), ("rjca+dca", ONE)]


@pytest.mark.parametrize(("name", "params"), IDENTICAL[1:])
def test_functions_that_are_identical_start_from_the_same_weights(name, params, built):
    """B13."""
    _, first = built(*IDENTICAL[0])
    _, second = built(name, params)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[role]) for role, value in first.items())


def test_systems_share_the_weights_of_the_parts_that_they_share(built):
    """jca is the first iteration of rjca; both have the encoders and the head of any system."""
    (_, jca), (_, rjca), (_, gated), (_, without) = (built(n) for n in ("jca", "rjca", "rjca+dca", "concat"))
    assert jca.keys() < rjca.keys() < gated.keys()
    assert all(torch.equal(value, rjca[role]) for role, value in jca.items())
    assert all(torch.equal(value, gated[role]) for role, value in rjca.items())
    shared = [role for role in without if role.startswith(("encoders.", "heads."))]
    assert shared == list(without)
    assert all(torch.equal(without[role], jca[role]) for role in shared)


def test_another_shape_is_another_draw(built):
    (_, two), (_, three) = built("rjca"), built("rjca", {"modalities": "audio+visual+text"})
    role = "fusion.attend.blocks.0.fc.weight"
    assert two[role].shape != three[role].shape
    assert not torch.isin(two[role], three[role]).any()


def test_dropout_is_the_same_for_all_systems(tiny_cell):
    cells = [tiny_cell(name) for name in ("grjca", "jca")]
    assert len({dropout_seed(cell, epoch) for cell in cells for epoch in (0, 1)}) == 2
    assert len({dropout_seed(tiny_cell("jca", **c)) for c in ({}, {"seed": 1}, {"targets": ("arousal",)})}) == 3


@pytest.mark.usefixtures("in_double_precision")
def test_pairs_of_identical_functions_have_no_difference(tiny_cell, workspace):
    """The whole of a training with dropout: what is left between them is rounding."""
    curves = []
    for name, params in IDENTICAL[:3]:
        cell = tiny_cell(name, epochs=2, temporal__dropout=0.2)
        resolved = find_system(name).params.parse(params, name).model_dump(mode="json")
        cell = cell.model_copy(update={"params": resolved})
        assert attempt_cell(cell, workspace).status == "done"
        curves.append(list(workspace.read(cell.cell_id).curve["ccc_valence"]))
    assert curves[1] == pytest.approx(curves[0], abs=1e-9)
    assert curves[2] == pytest.approx(curves[0], abs=1e-9)
