"""A cell on a worker group of its own: run for real by Ray, and its messages without Ray."""

import json
import threading
from dataclasses import asdict

import pytest

from crossfold.platform.core.errors import Cancelled, UserError
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass
from crossfold.platform.edge.fleet.cluster import count_slots
from crossfold.platform.edge.fleet.multi_device import EpochFile, MultiDeviceRunner, _relay, share_of
from crossfold.platform.edge.fleet.ray_connection import RAY_SETTINGS
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.run_order import Forecast

EXACT = {"loss__scope": "window", "temporal__dropout": 0.0, "head__dropout": 0.0, "batch": 6}


BURSTING = """
import os
from dataclasses import replace
from pathlib import Path

import torch
from crossfold.fusion_models.baselines import CONCAT
from crossfold.fusion_models.catalogue import register


class Bursting(torch.nn.Module):
    def __init__(self, name, inner):
        super().__init__()
        self.name, self.inner, self.width = name, inner, inner.width

    def forward(self, trajectory, notes=None):
        # Workers of a fleet are one group for Ray Train too, so the group does not tell who shares a cell.
        last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
        once = Path(os.environ["BURST"]) / self.name
        if self.training and (last or self.name == "bursting_alone") and not once.exists():
            once.touch()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")
        return self.inner(trajectory, notes)


for name in ("bursting_alone", "bursting_shared"):
    register(replace(CONCAT, name=name, readout=lambda *how, name=name: Bursting(name, CONCAT.readout(*how))))
"""
"""Systems that run out of memory once, the second one in the last worker of its group, as if on a GPU."""


@pytest.mark.benchmark
def test_narrow_and_wide_cells_take_turns_on_the_gpus(workspace, tiny_cell, tmp_path, monkeypatch):
    """Two GPUs, as Ray counts them, and cells that need one and cells that need both; each runs out of memory once.

    The fleet holds every GPU as long as it lives, so a group beside it would wait for ever.
    """
    import ray

    monkeypatch.setenv("BURST", str(tmp_path))
    for name, value in RAY_SETTINGS.items():
        monkeypatch.setenv(name, value)
    plugin = tmp_path / "bursting.py"
    plugin.write_text(BURSTING)
    alone = tiny_cell("concat", **EXACT)
    narrow = [alone.model_copy(update={"system": "bursting_alone"}), alone]
    wide = tiny_cell("concat", devices=2, **EXACT).model_copy(update={"system": "bursting_shared"})
    ray.init(
        address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    try:
        summary = run_cells([wide, *narrow], workspace, FleetOptions(plugins=[plugin], device="cpu"))
        with pytest.raises(UserError, match=r"shares each batch over 3 devices .* 2 fit into a cluster with 2 GPUs"):
            run_cells([tiny_cell("ca"), tiny_cell("concat", devices=3, **EXACT)], workspace)
    finally:
        ray.shutdown()
    assert (summary.done, summary.failed) == (3, 0)
    assert workspace.finished() == {cell.cell_id for cell in (wide, *narrow)}, "and nothing of what cannot fit began"
    for cell in (narrow[0], wide):
        (failure,) = workspace.failures_of(cell.cell_id)
        assert (failure.kind, failure.attempt) == ("oom", 1), failure
        assert workspace.read(cell.cell_id).env["attempt"] == 2
    assert list((workspace.root / "fleet").iterdir()) == []


@pytest.mark.parametrize(
    ("nodes", "threads", "fitting"),
    [
        ([{"CPU": 4.0, "GPU": 2.0}], 1, 2),
        ([{"CPU": 4.0, "GPU": 2.0}], 4, 1),
        ([{"CPU": 1.0, "GPU": 8.0}, {"CPU": 64.0}], 1, 1),
        ([{"CPU": 8.0, "GPU": 1.0}] * 3, 2, 3),
        ([{"CPU": 8.0}], 1, 0),
    ],
)
def test_a_worker_is_whole_on_one_node(nodes, threads, fitting):
    assert count_slots(nodes, share_of(threads, use_gpu=True)) == fitting


def test_wide_cells_go_first_only_where_their_sweep_does(tiny_cell):
    wide, narrow = tiny_cell("concat", devices=2, **EXACT), tiny_cell("concat")
    assert Forecast().before([narrow], [wide])
    assert not Forecast(priority={wide.cell_id: 0, narrow.cell_id: 1}).before([narrow], [wide])


def report_of(epoch):
    return EpochReport(
        epoch=epoch, epochs=9, learning_rate=0.1, train_loss=1.0, ccc={"valence": 0.1}, best_ccc=0.1, seconds=0.1
    )


class Keep:
    def __init__(self, stop=None):
        self.heard, self.stop = [], stop

    def epoch(self, cell_id, report):
        self.heard.append(report.epoch)
        if report.epoch == self.stop:
            raise Cancelled


@pytest.mark.parametrize(("stop", "ran"), [(None, 4), (2, None)])
def test_epochs_travel_out_and_a_stop_travels_in(tmp_path, tiny_cell, stop, ran):
    """The worker hears of the stop at the end of some later epoch, and every epoch it ended is passed on."""
    file, ended = EpochFile(tmp_path), []

    def work():
        for epoch in range(1, 5 if stop is None else 10_000):
            try:
                file.epoch("id", report_of(epoch))
            except Cancelled:
                break
            finally:
                ended.append(epoch)

    worker, reporter = threading.Thread(target=work), Keep(stop)
    worker.start()
    stopped = _relay(worker, tmp_path, tiny_cell("concat"), reporter)
    assert stopped == (stop is not None)
    assert reporter.heard == ended
    assert len(ended) == ran if ran else len(ended) >= stop


def test_a_group_that_is_lost_is_a_failure_of_the_machines(workspace, tiny_cell, monkeypatch):
    class Broken:
        def fit(self):
            raise RuntimeError("worker 1 died\nmore")

    runner = MultiDeviceRunner(FleetOptions())
    monkeypatch.setattr(runner, "_trainer", lambda *arguments: Broken())
    cell = tiny_cell("concat", devices=2, **EXACT)
    outcome = runner(cell, workspace, reporter=Keep(), attempt=2)
    assert (outcome.status, outcome.failure.kind, outcome.failure.attempt) == ("failed", "infra", 2)
    assert outcome.failure.message == "the 2 workers of the cell were lost: worker 1 died"
    assert workspace.failures_of(cell.cell_id) == [outcome.failure]


def test_what_stopped_another_worker_is_the_reason(workspace, tiny_cell, monkeypatch):
    """The first one, killed with its group, had no words."""
    cell = tiny_cell("concat", devices=2, **EXACT)
    told = Failure(cell.cell_id, cell.label, FailureClass.OOM, 1, "CUDA out of memory", "tail", "2026")

    class Group:
        def fit(self):
            said = {"status": "failed", "seconds": 1.0, "failure": asdict(told)}
            (workspace.root / "fleet" / f"multi-{cell.cell_id}" / "rank-1.json").write_text(json.dumps(said))
            raise RuntimeError("the group ended")

    runner = MultiDeviceRunner(FleetOptions())
    monkeypatch.setattr(runner, "_trainer", lambda *arguments: Group())
    assert runner(cell, workspace, reporter=Keep()).failure == told
    assert workspace.failures_of(cell.cell_id) == [told]


@pytest.mark.parametrize(("status", "asked"), [("done", False), ("cancelled", True)])
def test_what_the_first_worker_said_is_the_outcome(workspace, tiny_cell, monkeypatch, status, asked):
    cell = tiny_cell("concat", devices=2, **EXACT)
    folder = workspace.root / "fleet" / f"multi-{cell.cell_id}"

    class Group:
        def fit(self):
            EpochFile(folder).epoch("id", report_of(1)) if not asked else None
            if asked:
                (folder / "epochs.jsonl").write_text(report_of(1).model_dump_json() + "\n")
            (folder / "rank-0.json").write_text(json.dumps({"status": status, "seconds": 1.0, "failure": None}))

    runner = MultiDeviceRunner(FleetOptions())
    monkeypatch.setattr(runner, "_trainer", lambda *arguments: Group())
    if asked:
        with pytest.raises(Cancelled):
            runner(cell, workspace, reporter=Keep(stop=1))
    else:
        assert runner(cell, workspace, reporter=Keep()).status == "done"
    assert not folder.exists()
