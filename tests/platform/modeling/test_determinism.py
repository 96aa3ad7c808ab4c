"""What a cell computes with, while it runs and afterwards; and what becomes of a worker whose device broke."""

import os
import pickle
import threading

import pytest
import torch

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Failure, FailureClass, Outcome
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.scheduling.cell_queue import CellQueue, QueueLimits
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.worker import work
from crossfold.platform.training.data_parallel import _sendable


def settings():
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "kernels": cudnn.deterministic,
        "search": cudnn.benchmark,
        "tf32": (cuda.allow_tf32, cudnn.allow_tf32),
        "narrow sums": cuda.allow_bf16_reduced_precision_reduction,
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
        }
        first = torch.rand(3)
        raise ZeroDivisionError
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), state)
    with arithmetic(tiny_cell("concat", determinism=kind)):
        assert torch.equal(torch.rand(3), first)


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
