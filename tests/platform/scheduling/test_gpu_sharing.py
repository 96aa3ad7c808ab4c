"""How many workers share a GPU: the arithmetic, what events do to it, and Ray with GPUs that are only numbers."""

import os
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass
from crossfold.platform.execution.cost_history import GPU_PEAKS
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.gpu_sharing import (
    CONTEXT_BYTES,
    MOST,
    Sharing,
    fraction_of,
    smallest_excess,
    workers_per_gpu,
)
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY

GIB = 2**30


@given(k=st.integers(1, 64))
def test_so_many_fit_and_not_one_more(k):
    fraction = fraction_of(k)
    assert round(fraction * 10_000) == pytest.approx(fraction * 10_000), "Ray counts in ten-thousandths"
    # Ray counts in whole grains, its elastic workers by dividing floats.
    assert k * round(fraction * 10_000) <= 10_000 < (k + 1) * round(fraction * 10_000)
    assert 1.0 // fraction == k


@given(
    total=st.integers(1, 200 * GIB),
    peaks=st.lists(st.integers(0, 100 * GIB), max_size=6),
    headroom=st.floats(0, 0.9),
    most=st.integers(1, 16),
)
def test_the_hungriest_variant_fits_k_times_and_k_is_the_largest(total, peaks, headroom, most):
    k = workers_per_gpu(total, peaks, headroom=headroom, most=most)
    need = max(peaks, default=0) + CONTEXT_BYTES
    usable = total * (1 - headroom)
    assert 1 <= k <= most
    assert k == 1 or k * need <= usable
    assert k == most or not any(peaks) or (k + 1) * need > usable * (1 - 1e-9)


@given(total=st.integers(2 * GIB, 200 * GIB), k=st.integers(2, 16))
def test_a_peak_of_which_k_did_not_fit_makes_one_less(total, k):
    peak = smallest_excess(total, k)
    assert peak <= 0 or workers_per_gpu(total, [peak], most=16) == k - 1
    assert smallest_excess(total, 1) == smallest_excess(0, k) == 0


def test_without_a_measurement_a_worker_has_its_gpu_alone():
    assert workers_per_gpu(80 * GIB, ()) == workers_per_gpu(80 * GIB, [0]) == workers_per_gpu(0, [GIB]) == 1
    assert workers_per_gpu(80 * GIB, [1]) == MOST
    assert workers_per_gpu(10 * GIB, [9 * GIB]) == 1


def report(peak: int) -> EpochReport:
    return EpochReport(
        epoch=1, epochs=2, learning_rate=0.1, train_loss=0.5, ccc={}, best_ccc=0.0, seconds=1.0, gpu_bytes=peak
    )


def oom(cell) -> Failure:
    return Failure(cell.cell_id, cell.label, FailureClass.OOM, 1, "CUDA out of memory", "", "2026")


def test_the_share_follows_what_cells_need_and_is_remembered(workspace, tiny_cell):
    small, large = tiny_cell("concat"), tiny_cell("jca")
    sharing = Sharing(24 * GIB, workspace)
    sharing.expect([small, large])
    assert sharing.k == 1
    assert not sharing.observe([Event("epoch", small.cell_id, 1, report=report(GIB))]), "jca is not measured yet"
    assert sharing.observe([Event("epoch", large.cell_id, 1, report=report(4 * GIB))])
    assert sharing.k == workers_per_gpu(24 * GIB, [GIB, 4 * GIB])
    assert sharing.k == 4
    assert not sharing.observe([Event("epoch", large.cell_id, 1, report=report(2 * GIB))]), "the peak is what counts"
    sharing.save()
    assert sorted(GPU_PEAKS.read(workspace).values()) == [GIB, 4 * GIB]

    first = Sharing(24 * GIB, workspace)
    first.expect([large])
    assert first.observe(()), "without any event: the group of the next launch begins so"

    again = Sharing(24 * GIB, workspace)
    again.expect([small, large.model_copy(update={"seed": 5})])
    assert again.observe([])
    assert again.k == 4, "measured by an earlier launch"


def test_running_out_of_memory_lowers_k_once_for_cells_that_ran_together(workspace, tiny_cell):
    cells = [tiny_cell("concat", seed=seed) for seed in range(3)]
    sharing = Sharing(10 * GIB, workspace)
    sharing.expect(cells)
    sharing.observe([Event("epoch", cells[0].cell_id, 1, report=report(GIB))])
    before = sharing.k
    assert before == 5
    sharing.observe([Event("started", cell.cell_id, 1) for cell in cells])
    failing = [Event("requeued", cell.cell_id, 1, failure=oom(cell)) for cell in cells[:2]]
    assert sharing.observe(failing[:1])
    assert sharing.k == before - 1
    assert not sharing.observe(failing[1:]), "it began under the old share"
    sharing.save()
    next_launch = Sharing(10 * GIB, workspace)
    next_launch.expect(cells)
    next_launch.observe(())
    assert next_launch.k == before - 1, "what did not fit is not tried again by the next launch"
    infra = replace(oom(cells[2]), kind=FailureClass.INFRA)
    assert not sharing.observe([Event("requeued", cells[2].cell_id, 1, failure=infra)])
    for _ in range(10):
        sharing.observe(
            [Event("started", cells[0].cell_id, 1), Event("requeued", cells[0].cell_id, failure=oom(cells[0]))]
        )
    assert sharing.k == 1


@pytest.mark.benchmark
def test_cells_share_two_gpus_as_ray_counts_them_until_they_run_out_of_memory(workspace, importable):
    """GPUs that Ray only counts. Cells said to need 3 GiB fit twice into 10 GiB, but one then runs out of memory."""
    import ray

    from crossfold.platform.edge.fleet.ray_connection import RAY_SETTINGS
    from crossfold.platform.edge.fleet.ray_fleet import Fleet

    cells = [fake_cell(0, epochs=30, seconds=0.1, gib=3, trouble="needs a GPU alone")]
    cells += [fake_cell(seed, epochs=30, seconds=0.1, gib=3) for seed in range(1, 6)]
    os.environ.update(RAY_SETTINGS)
    ray.init(
        address="local",
        num_cpus=5,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        namespace="t",
    )
    shares, ended, failures = [], Counter(), []
    try:
        fleet = Fleet(
            workspace,
            FleetOptions(workers=4, use_gpu=True, gpu_bytes=10 * GIB, device="cpu", runner=SLEEPY),
        )
        with fleet:
            fleet.submit(cells)
            while sum(ended[kind] for kind in ("finished", "failed")) < len(cells):
                for event in fleet.drain():
                    ended[event.kind] += 1
                    if event.failure is not None:
                        failures.append(event.failure)
                now = (fleet._sharing.k, fleet.workers)
                shares += [now] if now not in shares[-1:] else []
                time.sleep(0.1)
    finally:
        ray.shutdown()
    assert shares == [(1, 2), (2, 4), (1, 2)], "alone until measured, then two a GPU, then alone again"
    assert ended["finished"] == len(cells)
    assert {failure.kind for failure in failures} == {FailureClass.OOM}
    assert len(list(workspace.paths.cells.iterdir())) == len(cells)
    assert GPU_PEAKS.read(workspace)
