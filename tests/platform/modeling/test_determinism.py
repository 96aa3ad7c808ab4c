"""What a cell computes with, while it runs and afterwards; and what becomes of a worker whose device broke."""

import itertools
import os
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn

from crossfold.datasets.batches.source import Batch
from crossfold.fusion_models.catalogue import system_names
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Failure, FailureClass, Outcome
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.emotion_model import build_model, modalities_of
from crossfold.platform.scheduling.cell_queue import CellQueue, QueueLimits
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.worker import work
from crossfold.platform.training.data_parallel import _sendable
from crossfold.platform.training.losses import loss_of
from crossfold.platform.training.train import make_optimizer
from tests.support.factories import make_cell, tiny_recipe


def settings():
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "kernels": cudnn.deterministic,
        "search": cudnn.benchmark,
        "tf32": (cuda.allow_tf32, cudnn.allow_tf32),
        "narrow sums": cuda.allow_bf16_reduced_precision_reduction,
        "filled memory": torch.utils.deterministic.fill_uninitialized_memory,
    }


@pytest.mark.parametrize("kind", ["strict", "fast"])
def test_a_cell_computes_as_its_recipe_says_and_leaves_no_trace(tiny_cell, monkeypatch, kind):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, state = settings(), torch.get_rng_state()
    strict = kind == "strict"
    with pytest.raises(ZeroDivisionError), arithmetic(tiny_cell("concat", determinism=kind)):
        # Also in a fast cell: the first product fixes it for the process, and the next cell may be strict.
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert settings() == {
            "algorithms": strict,
            "kernels": strict,
            "search": not strict,
            "tf32": (not strict, not strict),
            "narrow sums": not strict,
            "filled memory": False,
        }
        first = torch.rand(3)
        raise ZeroDivisionError
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), state)
    with arithmetic(tiny_cell("concat", determinism=kind)):
        assert torch.equal(torch.rand(3), first)


def two_steps(cell, *, filled):
    """Losses, weights and a prediction of two steps, with fresh memory as it comes, or full of NaN."""
    widths = {"audio": 6, "visual": 8, "text": 5}
    generator = torch.Generator().manual_seed(0)
    size = (3, cell.recipe.window)
    y_BLT = torch.rand(*size, 1, generator=generator) * 2 - 1
    x = {m: torch.randn(*size, widths[m], generator=generator) for m in modalities_of(cell)}
    real_BL = torch.ones(size, dtype=torch.bool)
    real_BL[1, 15:] = False
    batch = Batch(x, y_BLT, real_BL.unsqueeze(-1), real_BL)
    model = build_model(cell, widths).train()
    model.narrow = cell.recipe.precision == "bf16"
    optimizer = make_optimizer(list(model.parameters()), cell.recipe.optimizer)
    losses = []
    with arithmetic(cell):
        assert not torch.utils.deterministic.fill_uninitialized_memory
        torch.utils.deterministic.fill_uninitialized_memory = filled
        # Otherwise the two runs would be one.
        assert not filled or torch.empty(4).isnan().all()
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(batch.x, batch.real), batch, cell.recipe.loss)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        with torch.no_grad():
            predicted = model.eval()(batch.x, batch.real)
    return [*losses, predicted, *model.state_dict().values()]


EVERYWHERE: dict[str, dict[str, Any]] = {
    "tiny": {},
    "bf16": {"precision": "bf16"},
    "released": {
        "temporal__convolutions": 2,
        "temporal__batch_norm": True,
        "temporal__activation": "leaky_relu",
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    # So wide that the second level is a convolution of oneDNN.
    "wide": {"temporal__width": 128, "temporal__levels": 2},
    "recurrent": {"temporal__kind": "bilstm", "head__recurrent": True},
    "projection": {"temporal__kind": "none"},
}
"""Recipes that change the encoders and the head alone, which all systems share."""


@pytest.mark.parametrize(
    ("system", "recipe"),
    [*itertools.product(system_names(), EVERYWHERE), *(("rjcma", recipe) for recipe in ENCODERS)],
)
def test_nothing_reads_memory_that_it_did_not_write(system, recipe):
    """So a strict cell does without the filling of fresh memory, which PyTorch has for those that do."""
    cell = make_cell(system, recipe=tiny_recipe(**(EVERYWHERE | ENCODERS)[recipe]))
    expected, found = (two_steps(cell, filled=filled) for filled in (False, True))
    assert all(tensor.isfinite().all() for tensor in expected)
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


class Unwritten(nn.Module):
    """Of a plug-in that reads what it never wrote."""

    def forward(self, x):
        return x + torch.empty_like(x)


def test_memory_is_filled_where_code_of_others_runs(tiny_cell, monkeypatch):
    cell = tiny_cell("concat")
    monkeypatch.setattr("crossfold.platform.modeling.determinism.own_title", lambda name: "of a plug-in")
    with arithmetic(cell):
        assert Unwritten()(torch.zeros(3)).isnan().all()
    monkeypatch.undo()
    with_backbones = cell.recipe.model_copy(update={"backbones": {"visual": "resnet50"}})
    with arithmetic(cell.model_copy(update={"recipe": with_backbones})):
        assert torch.empty(3).isnan().all()


def test_only_the_device_of_the_cell_is_touched(tiny_cell, monkeypatch):
    """A worker may see all GPUs of its node; those of others are not woken."""
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(("read", device)))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: asked.append(("written", device)))
    for device in ("cpu", "cuda:5"):
        with arithmetic(tiny_cell("concat"), device):
            pass
    assert asked == [("read", "cuda:5"), ("written", "cuda:5")]


class Odd(Exception):
    """Cannot be taken apart: it is made of two things and remembers one."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def test_an_error_that_cannot_travel_sends_its_words():
    """Otherwise the first of several workers would fail to say so, and the others wait for ever."""
    known = _sendable(UserError("wrong", "fix it"))
    assert (type(known), pickle.loads(pickle.dumps(known)).remedy) == (UserError, "fix it")
    assert str(_sendable(Odd("a", "b"))) == "Odd: a b"
    assert str(_sendable(ValueError(threading.Lock()))).startswith("ValueError: <unlocked")


@pytest.mark.parametrize(("broken", "ends"), [(True, 1), (False, 0)])
def test_a_worker_whose_device_broke_ends_itself(workspace, tiny_cell, monkeypatch, broken, ends):
    """After some errors of CUDA every call of its process fails; the next cell must not meet it."""
    cell, ended = tiny_cell("concat"), []
    queue = CellQueue(QueueLimits(max_attempts=1))
    queue.submit([cell.model_dump_json()])
    queue.close()

    def runner(cell, workspace, *, reporter, attempt=1, device="cpu"):
        return Outcome(
            "failed", 0.1, Failure(cell.cell_id, cell.label, FailureClass.INFRA, attempt, "CUDA", "", "2026")
        )

    def ones(*shape, device):
        if broken:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return torch.zeros(*shape)

    monkeypatch.setattr(torch, "ones", ones)
    options = FleetOptions(runner=runner)
    assert work(queue, workspace, options, rank=0, device="cuda:0", end_process=ended.append) == 1
    assert len(ended) == ends
    assert [event.kind for event in queue.news().events][-1] == "failed"
