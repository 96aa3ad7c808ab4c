"""Every system on a GPU that is not there: tensors without content, whose device PyTorch follows all the same.

A tensor that is made on the CPU, a wait for the device (`.item()`, a branch on a value) and a shape that does not fit
fail here. What only a driver can show, as gradients and the numbers of bfloat16, is in `test_gpu.py`.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from crossfold.datasets.batches import gpu_cache
from crossfold.datasets.batches.source import Batch
from crossfold.fusion_models.catalogue import system_names
from crossfold.platform.core.outcome import Silent
from crossfold.platform.evaluation.evaluate import evaluate, evaluation_of
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.modeling.emotion_model import build_model, modalities_of
from crossfold.platform.training import train
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.losses import loss_of
from crossfold.sweeps.recipe_files import load_recipe
from tests.support.factories import make_cell, make_store, tiny_recipe

WIDTHS = {"audio": 6, "visual": 8, "text": 5}
WINDOWS, DEVICE = 3, "cuda"


@pytest.fixture
def gpu(monkeypatch):
    """A mode in which tensors may be on a GPU; they have a shape, a type and a device, and no content."""
    # It packs weights for a library of the driver.
    monkeypatch.setattr(nn.LSTM, "flatten_parameters", lambda self: None)
    with torch.backends.cudnn.flags(enabled=False):
        yield FakeTensorMode(allow_non_fake_inputs=False)


def moved(model: nn.Module, gpu: FakeTensorMode) -> nn.Module:
    """The model with weights and buffers of the same shapes there."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    with gpu:
                        there = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
                    tensors[name] = nn.Parameter(there) if isinstance(tensor, nn.Parameter) else there
    return model


def batch_of(cell, targets: int) -> Batch:
    size = (WINDOWS, cell.recipe.window)
    labelled, real = (torch.ones(shape, dtype=torch.bool, device=DEVICE) for shape in ((*size, targets), size))
    x = {name: torch.empty(*size, WIDTHS[name], device=DEVICE) for name in modalities_of(cell)}
    return Batch(x, torch.empty(*size, targets, device=DEVICE), labelled, real)


def loss_there(cell, gpu, targets=1):
    model = moved(build_model(cell, {name: WIDTHS[name] for name in modalities_of(cell)}), gpu).train()
    model.narrow = cell.recipe.precision == "bf16"
    with gpu:
        batch = batch_of(cell, targets)
        prediction_BLT = model(batch.x, batch.real)
        assert prediction_BLT.device.type == DEVICE
        assert prediction_BLT.shape == batch.y.shape
        return loss_of(prediction_BLT, batch, cell.recipe.loss)


@pytest.mark.parametrize("system", system_names())
def test_a_step_of_every_system_stays_there_and_waits_for_nothing(system, gpu):
    assert loss_there(make_cell(system, recipe=tiny_recipe()), gpu).device.type == DEVICE


@pytest.fixture
def narrow_gpu(gpu, monkeypatch):
    """The same, on a machine that PyTorch takes for one with bfloat16; otherwise autocast turns itself off."""
    monkeypatch.setattr(torch.amp.autocast_mode.torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    return gpu


class NarrowResults(TorchDispatchMode):
    """Counts the results in bfloat16."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += isinstance(result, torch.Tensor) and result.dtype == torch.bfloat16
        return result


@pytest.mark.parametrize("system", system_names())
def test_a_step_in_bf16_stays_there_and_its_loss_is_wide(system, narrow_gpu):
    with NarrowResults() as narrow:
        loss = loss_there(make_cell(system, recipe=tiny_recipe(precision="bf16")), narrow_gpu)
    assert (loss.device.type, loss.dtype) == (DEVICE, torch.float64)
    assert narrow.count > 0, "autocast was off"


def test_a_step_in_float32_has_nothing_narrow(narrow_gpu):
    with NarrowResults() as narrow:
        loss_there(make_cell("rjcma", recipe=tiny_recipe()), narrow_gpu)
    assert narrow.count == 0


@pytest.mark.parametrize("scope", ["window", "batch"])
@pytest.mark.parametrize("kind", ["ccc", "mse", "ccc+mse"])
def test_every_loss_stays_there(kind, scope, gpu):
    recipe = tiny_recipe(loss__kind=kind, loss__scope=scope)
    loss = loss_there(make_cell("concat", targets=("valence", "arousal"), recipe=recipe), gpu, targets=2)
    assert (loss.device.type, loss.shape) == (DEVICE, ())


@pytest.mark.parametrize("recipe", ["rjcma2024+released+features", "grjca2025+released+features"])
@pytest.mark.parametrize("system", ["rjca", "rjcma", "hgrjca", "rjca+dca", "leader_follower"])
def test_released_networks_stay_there(recipe, system, gpu):
    # Frozen features: raw frames have a test of their own.
    parsed = load_recipe(recipe)
    assert loss_there(make_cell(system, recipe=parsed), gpu).device.type == DEVICE


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four clips with all modalities; a window of each is padded."""
    generator = np.random.default_rng(0)
    clips = [
        {
            "name": f"c{index}",
            "partition": partition,
            "labels": generator.uniform(-1, 1, (45, 2)),
            "features": {m: generator.standard_normal((45, width)) for m, width in WIDTHS.items()},
        }
        for index, partition in enumerate(("train", "train", "validation", "validation"))
    ]
    return make_store(tmp_path_factory.mktemp("stores"), clips)


@pytest.fixture
def waits(narrow_gpu, monkeypatch):
    """Where the host asked for values, in order; the answers are random, and any other way to ask for them fails.

    Autograd looks for a driver before it runs a backward pass there, so a gradient is made for each weight instead;
    `test_precision.py` runs the backward pass of every system on the device `meta`.
    """
    asked, generator, made = [], np.random.default_rng(0), {}
    plain, from_numpy = torch.Tensor.numpy, torch.from_numpy

    def numpy(tensor, **how):
        if not isinstance(tensor, FakeTensor):
            return plain(tensor, **how)
        if not tensor.is_floating_point():
            return np.zeros(tensor.shape, np.int64)  # rows of the store, which were never on a GPU
        asked.append("predictions")
        return generator.uniform(0.1, 0.9, tensor.shape).astype(np.float32)

    def losses(values_N):
        asked.append("losses")
        return [0.5] * len(values_N)

    def backward(loss, *_):
        assert loss.device.type == DEVICE
        for weight in made["model"].parameters():
            weight.grad = torch.empty_like(weight)

    monkeypatch.setattr(torch.Tensor, "numpy", numpy)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch, "from_numpy", lambda array: narrow_gpu.from_tensor(from_numpy(array)))
    monkeypatch.setattr(train, "to_host", losses)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", float("inf"))
    monkeypatch.setattr(gpu_cache, "free_bytes", lambda device: 2**40)

    def opened(cell, path):
        made["model"] = moved(open_data(cell, path, "cpu").new_model(), narrow_gpu)
        with narrow_gpu:
            return open_data(cell, path, DEVICE), made["model"]

    yield asked, opened
    gpu_cache.clear()


@pytest.mark.parametrize(
    ("system", "changes"),
    [
        *((system, {}) for system in system_names()),
        ("rjcma", {"precision": "bf16"}),
        ("concat", {"temporal__kind": "bilstm", "temporal__levels": 2, "window": 4, "hop": 2}),
    ],
)
def test_a_whole_cell_stays_there_and_waits_twice_an_epoch(system, changes, store, waits, narrow_gpu, tmp_path):
    """Training, selection and evaluation under stress: losses of an epoch come at once, and its predictions, too."""
    asked, opened = waits
    recipe = tiny_recipe(
        modality_dropout={"audio": 0.5, "visual": 0.3},
        optimizer__clip_norm=1.0,
        stress="default",
        **changes,
    )
    cell = make_cell(system, store=store, recipe=recipe)
    data, model = opened(cell, store.path)
    with narrow_gpu:
        trained = train.train(
            cell, model, data.training.source, partial(validate, data), Silent(), tmp_path / "checkpoint"
        )
        assert asked == ["losses", "predictions"] * trained.progress.epoch
        assert trained.progress.epoch == 2
        assert {tensor.device.type for tensor in trained.best_state.values()} == {DEVICE}
        model.load_state_dict(trained.best_state)
        result, parts = evaluate(data, evaluation_of(cell), model)
    assert np.isfinite(result.predictions.prediction).all()
    assert parts["stress"]


class Wrong(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "waits":
            return x * x.sum().item()
        return x + torch.ones(x.shape[-1], device="cpu")


@pytest.mark.parametrize(("how", "error"), [("waits", DataDependentOutputException), ("here", RuntimeError)])
def test_what_is_wrong_there_fails_here(how, error, gpu):
    with gpu:
        x = torch.empty(2, 4, device=DEVICE)
    with gpu, pytest.raises(error):
        Wrong(how)(x)
