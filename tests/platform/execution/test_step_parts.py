"""Where a training step's operations and memory go, part by part; its times are only shown to be there."""

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from crossfold.platform.edge.cli.app import app
from crossfold.platform.execution.step_parts import _random_batch, _step, profile_step
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.emotion_model import build_model, modalities_of
from crossfold.platform.training.losses import loss_of
from crossfold.platform.training.train import make_optimizer
from tests.support.factories import make_cell, tiny_recipe

WIDTHS = {"audio": 6, "visual": 8, "text": 5}


def cell_and_widths(system, **changes):
    cell = make_cell(system, recipe=tiny_recipe(**changes))
    return cell, {m: WIDTHS[m] for m in modalities_of(cell)}


class Around:
    def __init__(self, *key):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize("system", ["concat", "rjcma", "hgrjca", "jmt"])
def test_a_step_in_parts_is_the_step_that_training_takes(system):
    cell, widths = cell_and_widths(system, optimizer__clip_norm=0.5)
    weights = []
    for in_parts in (True, False):
        with arithmetic(cell):
            model = build_model(cell, widths).train()
            batch, optimizer = (
                _random_batch(cell, widths),
                make_optimizer(list(model.parameters()), cell.recipe.optimizer),
            )
            if in_parts:
                _step(cell, model, optimizer, batch, Around)
            else:
                loss_of(model(batch.x, batch.real), batch, cell.recipe.loss).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy())
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-5)


def test_parts_have_all_operations_of_the_step():
    cell, widths = cell_and_widths("rjcma")
    profiled = profile_step(cell, widths)
    assert [part.part for part in profiled.parts] == [
        *(f"encoder of {m}" for m in ("audio", "visual", "text")),
        "fusion and head",
        "loss",
        "optimiser",
    ]
    with arithmetic(cell):
        model, batch = build_model(cell, widths).train(), _random_batch(cell, widths)
        with FlopCounterMode(display=False) as counter:
            loss_of(model(batch.x, batch.real), batch, cell.recipe.loss).backward()
    assert sum(part.flops for part in profiled.parts) == counter.get_total_flops() > 0
    encoder, fusion = profiled.parts[0], profiled.parts[3]
    assert encoder.limit == pytest.approx(encoder.flops / profiled.rates.products)
    # Its input, at least, and of the fusion the map of all frames by all frames of each modality.
    batch, frames = cell.recipe.batch, cell.recipe.window
    assert encoder.kept >= 4 * batch * frames * WIDTHS["audio"]
    assert fusion.kept >= 3 * 4 * batch * frames * frames
    optimiser = profiled.parts[-1]
    assert (optimiser.flops, optimiser.kept, optimiser.backward) == (0, 0, 0.0)
    # Weight, gradient and both moments are read, and all but the gradient are written.
    assert optimiser.limit == pytest.approx(7 * 4 * profiled.parameters / profiled.rates.copies)
    assert all(part.forward > 0 for part in profiled.parts)


def test_recurrent_parts_are_not_counted():
    cell, widths = cell_and_widths("concat", temporal__kind="lstm", temporal__dropout=0.0)
    parts = {part.part: part for part in profile_step(cell, widths).parts}
    assert (parts["encoder of audio"].flops, parts["encoder of audio"].limit) == (None, None)
    assert parts["fusion and head"].flops > 0


def test_bf16_keeps_less():
    kept = {}
    for precision in ("float32", "bf16"):
        cell, widths = cell_and_widths("rjcma", precision=precision, temporal__width=64)
        kept[precision] = sum(part.kept for part in profile_step(cell, widths).parts)
    assert kept["bf16"] < kept["float32"]


SMALL = [f"--set={setting}" for setting in ("window=20", "hop=10", "batch=2", "temporal.width=8", "iterations=2")]


def test_the_command_prints_a_table_and_json():
    shown = CliRunner().invoke(app, ["profile", "rjca", *SMALL], catch_exceptions=False)
    assert shown.exit_code == 0
    for expected in ("encoder of visual", "fusion and head", "optimiser", "GFLOP/s", "2 windows of 20"):
        assert expected in shown.output
    facts = json.loads(CliRunner().invoke(app, ["profile", "rjca", *SMALL, "--json"], catch_exceptions=False).output)
    assert (facts["system"], facts["batch"], facts["window"], facts["precision"]) == ("rjca", 2, 20, "float32")
    assert facts["seconds"] == pytest.approx(sum(part["forward"] + part["backward"] for part in facts["parts"]))


def test_backbones_are_refused_with_the_recipe_that_fits():
    refused = CliRunner().invoke(app, ["profile", "rjca", "--recipe", "rjcma2024"])
    assert "rjcma2024+features" in refused.exception.remedy
