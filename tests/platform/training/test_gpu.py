"""Cells on a real GPU: `pytest -m gpu`. None of this could run where it was written; the first GPU tells the truth.

Two GPUs are needed for the last test alone.
"""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from crossfold.datasets.batches import gpu_cache
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.data_parallel import ProcessGroup

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
DEVICE = "cuda:0"
STILL = {"temporal__dropout": 0.0, "head__dropout": 0.0}
"""Dropout draws other numbers on another device."""
SHARED = STILL | {"loss__scope": "window", "batch": 6}


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    gpu_cache.clear()


def finished(cell, workspace, device=DEVICE, **how):
    outcome = attempt_cell(cell, workspace, device=device, **how)
    assert outcome.status == "done", outcome.failure and outcome.failure.log_tail
    return workspace.read(cell.cell_id)


@pytest.mark.parametrize("system", ["concat", "rjca+dca", "hgrjca", "lstm", "jmt"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_strict_gives_the_same_bytes_also_after_a_fast_cell(new_workspace, tiny_cell, system, precision):
    cell, found = tiny_cell(system, precision=precision, epochs=3), []
    for _ in range(2):
        workspace = new_workspace()
        record = finished(cell, workspace)
        found.append([(record.path / name).read_bytes() for name in sorted(CELL_FILES) if name != "env.json"])
        finished(tiny_cell("ca", determinism="fast"), workspace)
    assert found[0] == found[1]


@pytest.mark.parametrize("system", ["concat", "rjca", "lstm"])
def test_a_gpu_and_a_cpu_agree(new_workspace, tiny_cell, system):
    cell = tiny_cell(system, epochs=2, **STILL)
    there, here = finished(cell, new_workspace()), finished(cell, new_workspace(), "cpu")
    np.testing.assert_allclose(there.curve.train_loss, here.curve.train_loss, rtol=0, atol=2e-3)
    np.testing.assert_allclose(there.predictions.prediction, here.predictions.prediction, rtol=0, atol=1e-2)
    assert there.env["peak_memory"]["kind"] == "device"
    assert 0 < there.env["peak_memory"]["bytes"] < 2**30


def test_bf16_is_near_float32_and_keeps_weights_wide(new_workspace, tiny_cell):
    from safetensors.numpy import load_file

    narrow = finished(tiny_cell("ca", precision="bf16", **STILL), new_workspace())
    wide = finished(tiny_cell("ca", **STILL), new_workspace())
    np.testing.assert_allclose(narrow.curve.train_loss, wide.curve.train_loss, rtol=0, atol=0.05)
    assert narrow.curve.train_loss.tolist() != wide.curve.train_loss.tolist(), "bf16 was not used"
    assert {str(array.dtype) for array in load_file(narrow.path / "best.safetensors").values()} <= {"float32", "int64"}


def test_a_cell_that_was_stopped_resumes_to_the_same_bytes(new_workspace, tiny_cell, monkeypatch):
    """Dropout's generator is the device's; it is in the checkpoint."""
    from crossfold.platform.core.errors import Cancelled
    from crossfold.platform.training import train as training

    class Stop:
        def epoch(self, cell_id, report):
            if report.epoch == 1:
                raise Cancelled

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "CHECKPOINT_PAUSE", 0.0)
    cell = tiny_cell("rjca", epochs=3, temporal__dropout=0.3)
    whole, stopped = new_workspace(), new_workspace()
    finished(cell, whole)
    assert attempt_cell(cell, stopped, reporter=Stop(), device=DEVICE).status == "cancelled"
    finished(cell, stopped)
    for name in ("result.json", "curve.parquet", "best.safetensors"):
        assert (whole.paths.cell(cell.cell_id) / name).read_bytes() == (
            stopped.paths.cell(cell.cell_id) / name
        ).read_bytes()


@pytest.mark.parametrize("system", ["concat", "rjca", "hgrjca", "lstm", "transformer"])
def test_replayed_steps_train_as_plain_ones(new_workspace, tiny_cell, system):
    """With dropout, whose draws a replay continues, and a last batch that is smaller than the others."""
    changes = {"epochs": 4, "batch": 3, "temporal__dropout": 0.3, "determinism": "strict"}
    plain = finished(tiny_cell(system, **changes), new_workspace())
    replayed = finished(tiny_cell(system, cuda_graph=True, **changes), new_workspace())
    np.testing.assert_allclose(replayed.curve.train_loss, plain.curve.train_loss, rtol=0, atol=1e-6)
    np.testing.assert_allclose(replayed.predictions.prediction, plain.predictions.prediction, rtol=0, atol=1e-5)


def test_features_stay_on_the_gpu_and_a_batch_brings_its_indices_only(workspace, tiny_cell):
    cell = tiny_cell("ca")
    data = open_data(cell, workspace.find_store(cell.corpus, cell.store), DEVICE)
    source = data.training.source
    assert {str(tensor.device) for tensor in source.arrays.features.values()} == {DEVICE}
    chosen = np.arange(4)
    source.batch(chosen)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        batch = source.batch(chosen)
        torch.cuda.synchronize()
    copies = [event for event in seen.events() if "HtoD" in event.name]
    assert len(copies) == 1, [event.name for event in seen.events()]
    host = open_data(cell, workspace.find_store(cell.corpus, cell.store), "cpu").training.source.batch(chosen)
    for m, expected in host.x.items():
        torch.testing.assert_close(batch.x[m].cpu(), expected, rtol=0, atol=1e-6)


def test_memory_that_really_runs_out_is_classed_and_given_back(workspace, tiny_cell, monkeypatch):
    """The cell asks for more than the GPU has; the next one runs."""
    opened = open_data

    def greedy(cell, path, device):
        data = opened(cell, path, device)
        torch.empty(2 * torch.cuda.get_device_properties(0).total_memory, dtype=torch.uint8, device=device)
        return data

    monkeypatch.setattr("crossfold.platform.execution.run_cell.open_data", greedy)
    outcome = attempt_cell(tiny_cell("concat"), workspace, device=DEVICE)
    assert outcome.failure.kind == "oom"
    assert torch.cuda.memory_allocated() < 2**24
    monkeypatch.undo()
    finished(tiny_cell("concat"), workspace)


@pytest.mark.slow
def test_two_cells_share_one_gpu(workspace, tiny_cell):
    """The first launch measures; the second begins with what it found, and so with more than one worker a GPU."""
    from crossfold.platform.execution.cost_history import GPU_PEAKS

    first = [tiny_cell("concat", seed=seed) for seed in range(2)]
    summary = run_cells(first, workspace, FleetOptions(use_gpu=True))
    assert (summary.done, summary.failed) == (2, 0)
    assert GPU_PEAKS.read(workspace)
    more = [tiny_cell("concat", seed=seed, epochs=2) for seed in range(2, 6)]
    summary = run_cells(more, workspace, FleetOptions(workers=2 * torch.cuda.device_count(), use_gpu=True))
    assert (summary.done, summary.failed) == (4, 0)
    assert summary.workers == min(2 * torch.cuda.device_count(), len(more))
    assert {workspace.read(cell.cell_id).env["device"][:4] for cell in more} == {"cuda"}


@pytest.mark.parametrize("backend", ["nccl", "gloo", "cpu:gloo,cuda:nccl"])
def test_a_process_group_sums_on_the_gpu(tmp_path, backend):
    """A group of one, so that one GPU is enough: what each backend does with sums, gradients and words."""
    torch.cuda.set_device(0)
    dist.init_process_group(backend, init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        alone = ProcessGroup(0, 1)
        # As if there were two: the calls are made, and a sum over one process is the value itself.
        alone.world = 2
        weight = torch.nn.Parameter(torch.ones(3, device=DEVICE))
        weight.grad = torch.full((3,), 2.0, device=DEVICE)
        alone.sum_gradients([weight], 1)
        assert weight.grad.tolist() == [2.0, 2.0, 2.0]
        assert float(alone.total(torch.tensor(3.0, dtype=torch.float64, device=DEVICE))) == 3.0
        assert alone.broadcast(lambda: {"ccc": 0.5}) == {"ccc": 0.5}
        with pytest.raises(UserError, match="wrong"):
            alone.broadcast(lambda: (_ for _ in ()).throw(UserError("wrong", "fix it")))
    finally:
        dist.destroy_process_group()


def test_a_wide_cell_that_one_gpu_cannot_hold_is_refused(workspace, tiny_cell):
    cell = tiny_cell("concat", devices=torch.cuda.device_count() + 1, **SHARED)
    with pytest.raises(UserError, match="shares each batch over"):
        run_cells([cell], workspace)
    assert not workspace.failures_of()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: nccl refuses two workers on one")
def test_two_gpus_share_a_cell_with_nccl(workspace, tiny_cell):
    cell, alone = tiny_cell("concat", devices=2, **SHARED), tiny_cell("concat", **SHARED)
    summary = run_cells([cell, alone], workspace)
    assert (summary.done, summary.failed) == (2, 0)
    shared, expected = (workspace.read(c.cell_id).curve.train_loss.tolist() for c in (cell, alone))
    assert shared == pytest.approx(expected, abs=1e-3)
