"""Steps that are recorded once and replayed, on a GPU that is not there: operations are recorded and run again.

What only a driver shows, as that its kernels may be recorded at all, is in `test_gpu.py`.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training import graphed_step
from tests.support.factories import tiny_recipe


class Tape(TorchDispatchMode):
    """A CUDA graph of the CPU: the same operations on the same memory, with what the generator then draws."""

    replays = 0

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, found))
        return found

    def replay(self):
        Tape.replays += 1
        with torch._C._AutoDispatchBelowAutograd():  # where the operations were recorded
            for func, args, kwargs, before in self.operations:
                again = func(*args, **kwargs)
                pairs = zip(before, again, strict=True) if isinstance(before, (tuple, list)) else [(before, again)]
                for place, values in pairs:
                    if isinstance(place, torch.Tensor) and place.data_ptr() != values.data_ptr():
                        place.copy_(values)


@contextlib.contextmanager
def recording(tape, **options):
    """A recording computes nothing: what it drew and what it left in gradients has not happened."""
    state = torch.get_rng_state()
    with tape:
        yield
    torch.set_rng_state(state)


@pytest.fixture
def graphs(monkeypatch):
    """Replays are counted."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, fake in (
        ("CUDAGraph", Tape),
        ("graph", recording),
        ("Stream", lambda: stream),
        ("current_stream", lambda: stream),
        ("stream", lambda chosen: contextlib.nullcontext()),
    ):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(Recipe, "check_device", lambda recipe, kind: None)
    monkeypatch.setattr(Tape, "replays", 0)
    return Tape


@pytest.mark.parametrize(
    ("system", "changes"),
    [
        ("rjca", {}),
        ("rjca+dca", {"optimizer__clip_norm": 0.5, "modality_dropout": {"audio": 0.5}}),
        ("concat", {"reload_best": True, "optimizer__kind": "sgd"}),
    ],
)
def test_replayed_steps_train_as_plain_ones_to_the_last_bit(graphs, new_workspace, tiny_cell, system, changes):
    """With dropout, and a last batch that is smaller than the others."""
    changes = {"epochs": 3, "batch": 3, "temporal__dropout": 0.3, **changes}
    scores = []
    for graphed in (False, True):
        workspace, cell = new_workspace(), tiny_cell(system, cuda_graph=graphed, **changes)
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome.failure
        record = workspace.read(cell.cell_id)
        scores.append((record.curve["train_loss"].tolist(), record.result["metrics"]))
        assert bool(graphs.replays) is graphed
    assert scores[0] == scores[1]


def test_batches_of_full_size_are_replayed_after_the_first_steps(graphs):
    weight = torch.nn.Parameter(torch.ones(2))

    def plain(batch):
        loss = (batch.x["audio"] * weight).sum()
        loss.backward()
        return loss.detach(), batch.x["audio"].detach()

    step = graphed_step.GraphedStep(plain, [weight], size=3)
    for turn, windows in enumerate((3, 3, 3, 2, 3, 2, 3)):
        weight.grad = None
        values = torch.full((windows, 2), float(turn))
        loss, _ = step(graphed_step.Batch({"audio": values}, *(torch.zeros(windows) for _ in range(3))))
        assert float(loss) == 2 * windows * turn
        assert weight.grad.tolist() == [windows * turn] * 2
    assert graphs.replays == 2


def test_a_cpu_has_no_graphs_and_says_so():
    with pytest.raises(UserError, match=r"cuda_graph is true, and the device is cpu[^$]*cuda_graph=false"):
        Recipe(cuda_graph=True).check_device("cpu")
    Recipe(cuda_graph=True).check_device("cuda")
    Recipe().check_device("cpu")


@pytest.mark.parametrize("other", [{"accumulate": 2}, {"devices": 2}, {"backbones": {"visual": "resnet50"}}])
def test_a_recipe_with_several_passes_or_backbones_has_no_graph(other):
    """And the error shows the rule alone, not every field of the recipe."""
    rule = f"cuda_graph records one pass over features: leave out {next(iter(other))}, or cuda_graph"
    with pytest.raises(UserError) as refused:
        Recipe.parse({"cuda_graph": True, **other}, "recipe mine")
    assert refused.value.problem == f"recipe mine: {rule}"


def test_a_graph_is_part_of_the_identity_where_there_is_one():
    assert "cuda_graph" not in tiny_recipe().identity()
    assert tiny_recipe(cuda_graph=True).identity()["cuda_graph"] is True
