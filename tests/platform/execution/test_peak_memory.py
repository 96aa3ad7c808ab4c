"""The peak of one cell, in a process that ran others before: by the kernel, by looking, and of a GPU that is faked."""

import json

import numpy as np
import pytest
import torch

from crossfold.platform.execution import peak_memory as peaks
from crossfold.platform.execution.cost_history import PEAKS, cost_key, format_peaks, save_peaks
from crossfold.platform.execution.peak_memory import peak_memory, release_cached_memory
from crossfold.platform.execution.run_cell import attempt_cell

MIB = 2**20


def touch(size):
    return np.ones(size, np.uint8)


@pytest.mark.parametrize("kernel", [True, False])
def test_a_peak_is_that_of_the_block_and_not_of_what_was_before(monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr(peaks, "_reset_high_water", lambda: False)
        monkeypatch.setattr(peaks, "SAMPLE_SECONDS", 0.002)
    elif not peaks._reset_high_water():
        pytest.skip("no /proc/self/clear_refs here")
    before = touch(300 * MIB)
    kept = touch(50 * MIB)
    del before
    for _ in range(2):
        with peak_memory("cpu") as measured:
            large = touch(100 * MIB)
            if not kernel:
                # Long enough to be seen by whoever only looks.
                large = touch(100 * MIB) + large
            del large
            found = measured()
        assert found["kind"] == "process"
        low, high = (95, 130) if kernel else (95, 330)
        assert low * MIB < found["bytes"] < high * MIB
    assert kept.nbytes == 50 * MIB


def test_pages_of_a_mapped_file_do_not_count(tmp_path):
    if not peaks._reset_high_water():
        pytest.skip("no /proc/self/clear_refs here")
    path = tmp_path / "features.npy"
    np.save(path, np.ones(100 * MIB // 8))
    with peak_memory("cpu") as measured:
        mapped = np.load(path, mmap_mode="r")
        assert float(mapped.sum()) == 100 * MIB // 8
        found = measured()
    assert found["bytes"] < 20 * MIB


def test_of_a_gpu_torch_counts_anew_for_each_cell(monkeypatch):
    said = []
    for name in ("init", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *device, name=name: said.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    with peak_memory("cuda:1") as measured:
        assert said == ["init", "empty_cache", "reset_peak_memory_stats"]
        assert measured() == {"bytes": 3 * 2**30, "kind": "device"}


def test_a_cell_says_what_it_needed_and_the_next_launch_knows(workspace, tiny_cell):
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    found = [workspace.read(cell.cell_id).env["peak_memory"] for cell in cells]
    assert all(set(peak) == {"bytes", "kind"} for peak in found)
    assert all(peak["kind"] == "process" and 0 <= peak["bytes"] < 2**30 for peak in found)
    assert "peak_memory" not in (workspace.paths.cell(cells[0].cell_id) / "result.json").read_text()
    save_peaks(workspace, [*cells, tiny_cell("ca")])
    assert PEAKS.read(workspace) == {cost_key(cells[0]): {"process": max(peak["bytes"] for peak in found)}}

    path = workspace.paths.cell(cells[1].cell_id) / "env.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peak_memory": {"bytes": 5, "kind": "device"}}))
    save_peaks(workspace, cells)
    assert PEAKS.read(workspace)[cost_key(cells[0])]["device"] == 5
    (workspace.root / "memory.json").write_text("{")
    assert PEAKS.read(workspace) == {}


def test_peaks_are_formatted_for_a_plan():
    assert format_peaks({}) == "not measured"
    assert format_peaks({"process": 100 * MIB, "device": 1536 * MIB}) == "1.5 GiB GPU, 100 MiB process"


def test_a_cell_that_ran_out_of_memory_leaves_none_behind(workspace, tiny_cell, monkeypatch):
    """What it held is let go before the worker says that it failed: others on that GPU wait for it."""
    import weakref

    held, alive = [], []

    def bursts(cell, path, device):
        tensor = torch.ones(3)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("crossfold.platform.execution.run_cell.open_data", bursts)
    monkeypatch.setattr(
        "crossfold.platform.execution.run_cell.release_cached_memory",
        lambda device, *, features: alive.append((held[0]() is not None, features)),
    )
    outcome = attempt_cell(tiny_cell("concat"), workspace)
    assert outcome.failure.kind == "oom"
    assert alive == [(False, True)]
    release_cached_memory("cpu")


def test_an_error_of_the_device_is_none_of_the_cell(workspace, tiny_cell, monkeypatch):
    def lost(cell, path, device):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("crossfold.platform.execution.run_cell.open_data", lost)
    assert attempt_cell(tiny_cell("concat"), workspace).failure.kind == "infra"


def test_what_cannot_be_strict_says_what_to_do(workspace, tiny_cell, monkeypatch):
    def refuses(cell, path, device):
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set"
        )

    monkeypatch.setattr("crossfold.platform.execution.run_cell.open_data", refuses)
    failure = attempt_cell(tiny_cell("concat"), workspace).failure
    assert (failure.kind, "--set determinism=fast" in failure.message) == ("code", True)
