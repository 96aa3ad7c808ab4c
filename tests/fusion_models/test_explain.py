"""`crossfold explain`: what it says is what the module is."""

import json

import pytest
import torch

from crossfold.fusion_models.catalogue import find_system, system_names
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.catalog import explain
from crossfold.platform.edge.terminal.system_rows import system_facts

WIDTHS = {"audio": 4, "visual": 5, "text": 3}


@pytest.mark.parametrize("name", system_names())
def test_every_system_can_be_explained(name):
    system = find_system(name)
    facts = system_facts(system, system.params(), WIDTHS, 6)
    fusion = system.build(system.params(), WIDTHS, 6)
    assert facts["parameters"] == sum(p.numel() for p in fusion.parameters())
    assert facts["equations"]
    assert facts["bibtex"] == system.bibtex
    assert facts["about"]
    assert facts["shapes"][-1] == {"name": "Z", "kind": "output", "shape": [6, fusion.width]}
    assert not any(row["departs"] for row in facts["switches"])
    assert json.loads(json.dumps(facts)) == facts


def test_flops_are_those_of_the_matrix_products():
    """CA at widths 4 and 5, L = 6: X_a W, (X_a W) X_v', and two maps, at two FLOPs a multiplication."""
    system = find_system("ca")
    assert system_facts(system, system.params(), WIDTHS, 6)["flops_per_window"] == 2 * (
        6 * 4 * 5 + 6 * 5 * 6 + 6 * 6 * 4 + 6 * 6 * 5
    )


def test_departures_are_named(capsys):
    explain("jca+dca", width=["audio=4"], set_=["variant=released", "modalities=audio+text"], frames=6, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    departing = {row["switch"]: row["value"] for row in facts["switches"] if row["departs"]}
    assert departing == {**dict(find_system("jca+dca").released), "variant": "released", "modalities": "audio+text"}
    assert facts["modalities"] == ["audio", "text"]
    assert {"name": "X_audio", "kind": "input", "shape": [6, 4]} in facts["shapes"]


def test_people_can_read_it(capsys):
    explain("hgrjca", frames=6)
    shown = capsys.readouterr().out
    for word in ("001 eqs 14-16", "parameters", "FLOPs per window", "praveen2025grjca", "final_gate_input", "B7"):
        assert word in shown, word


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"width": ["audio"]}, "modality=width"),
        ({"set_": ["iterations"]}, "no '='"),
        ({"set_": ["iters=2"]}, "unknown key"),
    ],
)
def test_wrong_options_are_named(wrong, match):
    with pytest.raises(UserError, match=match):
        explain("rjca", **wrong)


def test_a_wrong_name_answers_with_the_nearest_and_explaining_leaves_the_generator_alone():
    with pytest.raises(UserError, match="did you mean 'hgrjca'"):
        explain("hgrjcaa")
    before = torch.get_rng_state()
    system_facts(find_system("ca"), find_system("ca").params(), WIDTHS, 6)
    assert torch.equal(torch.get_rng_state(), before)
