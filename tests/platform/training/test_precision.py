"""What is narrow in a step, which precision `auto` takes, and where an epoch waits for its device."""

import contextlib
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from crossfold.datasets.batches.source import Batch
from crossfold.fusion_models.catalogue import system_names
from crossfold.platform.evaluation.predict import forward_pass
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.modeling.emotion_model import build_model, modalities_of
from crossfold.platform.training import precision, train
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.data_parallel import SINGLE_PROCESS
from crossfold.platform.training.losses import loss_of
from tests.support.factories import make_cell, tiny_recipe

WIDTHS = {"audio": 6, "visual": 8, "text": 5}
WINDOWS = 3
SYSTEMS = ("concat", "ca", "rjca+dca", "hgrjca", "lstm")


class Random:
    """A source of batches without a store."""

    def __init__(self, cell, device="cpu", windows=WINDOWS):
        self.cell, self.device, self.windows = cell, device, windows

    def __len__(self):
        return self.windows

    def batch(self, chosen):
        size = (len(chosen), self.cell.recipe.window)
        x = {m: torch.randn(*size, WIDTHS[m], device=self.device) for m in modalities_of(self.cell)}
        real = torch.ones(size, dtype=torch.bool, device=self.device)
        return Batch(x, torch.rand(*size, 1, device=self.device), real.unsqueeze(-1), real)


def model_of(cell, **how):
    torch.manual_seed(0)
    return build_model(cell, {m: WIDTHS[m] for m in modalities_of(cell)}, **how)


class Products(TorchDispatchMode):
    """The types of the factors of all products, and how often each weight is cast."""

    NAMES = ("mm", "bmm", "addmm", "baddbmm", "convolution", "mkldnn_rnn_layer")

    def __init__(self, model):
        super().__init__()
        self.weights = {parameter.data_ptr() for parameter in model.parameters()}
        self.factors, self.casts = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        name = func.overloadpacket.__name__
        # The last map to one value, and its two gradients, are wide on purpose.
        if name in self.NAMES and not any(1 in tensor.shape[-2:] for tensor in tensors):
            self.factors[tensors[-1].dtype] += 1
        if name == "_to_copy" and args[0].data_ptr() in self.weights:
            self.casts[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("system", ["concat", "ca", "rjca+dca", "hgrjca", "rjcma", "jmt"])
def test_products_of_a_step_are_narrow_and_gradients_wide(system):
    cell = make_cell(system, recipe=tiny_recipe(precision="bf16"))
    model = model_of(cell).train()
    model.narrow = True
    batch = Random(cell).batch(np.arange(WINDOWS))
    with Products(model) as seen:
        prediction_BLT = model(batch.x, batch.real)
        loss_of(prediction_BLT, batch, cell.recipe.loss).backward()
    assert set(seen.factors) == {torch.bfloat16}
    assert max(seen.casts.values()) == 1, "a weight is cast once a step"
    assert prediction_BLT.dtype == torch.float32
    assert not torch.equal(prediction_BLT, prediction_BLT.bfloat16().float()), "the last map rounded to bfloat16"
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_auto_asks_for_a_margin():
    assert precision.chosen(precision.MARGIN).kind == "bf16"
    assert precision.chosen(precision.MARGIN - 0.01).kind == "float32"


def test_the_measurement_leaves_model_and_generator_alone():
    cell = make_cell("rjca", recipe=tiny_recipe(precision="auto"))
    model = model_of(cell)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    state = torch.get_rng_state()
    source = Random(cell)
    one = source.batch(np.arange(WINDOWS))
    torch.set_rng_state(state)
    source.batch = lambda chosen: one
    found = precision.precision_of(cell, model, source)
    assert found.ratio is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(before, model.state_dict().values(), strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def finished(new_workspace, tiny_cell):
    def go(system="rjca+dca", workspace=None, **changes):
        cell = tiny_cell(system, **changes)
        workspace = workspace or new_workspace()
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome.failure and outcome.failure.log_tail
        return workspace.read(cell.cell_id)

    return go


@pytest.mark.parametrize(("slow", "taken"), [(False, "bf16"), (True, "float32")])
def test_auto_is_the_quicker_precision_and_the_record_says_which(finished, monkeypatch, slow, taken):
    """`slow`: whichever precision takes longer in a faked measurement."""
    seconds = {slow: 1.0, not slow: 2.0}
    monkeypatch.setattr(precision, "_seconds_of_step", lambda cell, model, batch: seconds[not model.narrow])
    auto, plain = finished(precision="auto", epochs=2), finished(precision=taken, epochs=2)
    assert (auto.env["precision"], auto.env["precision_ratio"]) == (taken, 0.5 if slow else 2.0)
    assert (plain.env["precision"], "precision_ratio" in plain.env) == (taken, False)
    assert auto.curve.equals(plain.curve)
    np.testing.assert_array_equal(auto.predictions.prediction, plain.predictions.prediction)
    assert auto.cell.cell_id != plain.cell.cell_id


def test_a_checkpoint_keeps_what_auto_took(monkeypatch, tmp_path):
    cell = make_cell("concat", recipe=tiny_recipe(precision="auto"))
    monkeypatch.setattr(precision, "_seconds_of_step", lambda cell, model, batch: 1.0 if model.narrow else 2.0)
    first = train._Run(cell, model_of(cell), Random(cell), SINGLE_PROCESS)
    first.save(tmp_path / "last.pt")
    monkeypatch.setattr(precision, "_seconds_of_step", lambda cell, model, batch: 1.0)
    again = train._Run(cell, model_of(cell), Random(cell), SINGLE_PROCESS)
    assert not again.model.narrow
    again.restore(tmp_path / "last.pt")
    assert (again.precision, again.model.narrow) == (precision.Precision("bf16", 2.0), True)


def test_bf16_reports_predictions_of_float32(finished, synthetic_store):
    """The saved weights give them again on a model that was never narrow, as that of a user's program."""
    record = finished(precision="bf16", epochs=2)
    data = open_data(record.cell, synthetic_store.path, "cpu")
    model = data.new_model()
    model.load_state_dict(load_file(record.path / "best.safetensors"))
    again = forward_pass(model, data, data.reported).predictions.prediction
    np.testing.assert_allclose(again, record.predictions.prediction, rtol=0, atol=1e-6)


def test_scores_of_bf16_are_within_the_noise_of_seeds(finished):
    """Five systems, four seeds each: the interval of the paired difference holds zero, and is narrower than that of the
    difference between seeds."""
    found = {
        kind: np.array([[best_ccc(finished, system, seed, kind) for seed in range(4)] for system in SYSTEMS])
        for kind in ("float32", "bf16")
    }
    wide = found["float32"]
    mean, half = interval(found["bf16"] - wide)
    _, between_seeds = interval(wide - np.roll(wide, 1, axis=1))
    print(f"bf16 - float32: {mean:.4f} +- {half:.4f}; between seeds +- {between_seeds:.4f}")
    assert half > 0, "bf16 was not used"
    assert abs(mean) <= half < between_seeds


def best_ccc(finished, system, seed, kind):
    record = finished(system, seed=seed, precision=kind, epochs=4, optimizer__lr=1e-3)
    return record.result["selection"]["best_ccc"]


def interval(differences):
    """The mean, and half the width of its interval of 99 %."""
    flat = differences.ravel()
    return flat.mean(), stats.sem(flat) * stats.t.ppf(0.995, len(flat) - 1)


@pytest.fixture
def reads(monkeypatch):
    """How often the host waited; tensors of the device `meta` have no values, and whatever else asks for one fails."""
    sizes = []

    def read(values_N):
        sizes.append(len(values_N))
        return [0.5] * len(values_N)

    monkeypatch.setattr(train, "to_host", read)
    # PyTorch has no autocast for `meta`, and fuses no kernel of it.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(train, "make_optimizer", lambda weights, _: torch.optim.SGD(weights, lr=0.1))
    return sizes


def epoch_elsewhere(system, **changes):
    cell = make_cell(system, recipe=tiny_recipe(batch=2, **changes))
    model = model_of(cell).to("meta")
    run = train._Run(cell, model, Random(cell, "meta", windows=5), SINGLE_PROCESS)
    return run.train_epoch()


BILSTM = {"temporal__kind": "bilstm", "window": 4, "hop": 2}
"""Short windows: without kernels PyTorch takes an LSTM apart, frame by frame."""


@pytest.mark.parametrize(
    ("system", "changes"),
    [
        *((system, {"window": 8, "hop": 4}) for system in system_names()),
        ("rjca+dca", {"optimizer__clip_norm": 1.0}),
        ("hgrjca", {"accumulate": 2, "loss__scope": "window"}),
        ("concat", BILSTM | {"temporal__levels": 2}),
        ("concat", BILSTM | {"temporal__recurrent_form": "concat"}),
    ],
)
def test_an_epoch_waits_for_its_device_once(system, changes, reads):
    assert epoch_elsewhere(system, **changes) == 0.5
    assert reads == [2 * 3], "a loss and a norm of each of three steps"


@pytest.mark.parametrize(
    ("ask", "refusal"),
    [
        (lambda y: float(y.sum()), r"item\(\) cannot be called on meta tensors"),
        (lambda y: bool(y.any()), r"item\(\) cannot be called on meta tensors"),
        (lambda y: y.cpu(), "Cannot copy out of meta tensor"),
    ],
)
def test_another_wait_would_fail(ask, refusal, reads, monkeypatch):
    plain = train.loss_of

    def asking(prediction_BLT, *others):
        ask(prediction_BLT)
        return plain(prediction_BLT, *others)

    monkeypatch.setattr(train, "loss_of", asking)
    with pytest.raises(RuntimeError, match=refusal):
        epoch_elsewhere("concat")


def test_an_epoch_that_diverged_elsewhere_names_the_step(reads, monkeypatch):
    monkeypatch.setattr(train, "to_host", lambda values_N: [0.5, 0.0, 0.5, float("inf"), 0.5, 0.0])
    with pytest.raises(train.Diverged, match="epoch 1, step 2: the gradient is not finite"):
        epoch_elsewhere("concat")
