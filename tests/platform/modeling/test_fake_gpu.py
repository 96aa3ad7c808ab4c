"""Every system on a GPU that is not there: tensors without content, whose device PyTorch follows all the same.

A tensor that is made on the CPU, a wait for the device (`.item()`, a branch on a value) and a shape that does not fit
fail here. What only a driver can show, as gradients and the numbers of bfloat16, is in `test_gpu.py`.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from crossfold.datasets.batches.source import Batch
from crossfold.fusion_models.catalogue import system_names
from crossfold.platform.modeling.emotion_model import build_model, modalities_of
from crossfold.platform.training.losses import loss_of
from crossfold.sweeps.recipe_files import load_recipe
from tests.support.factories import make_cell, tiny_recipe

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
