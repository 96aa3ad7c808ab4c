"""A cell on a worker group of its own: run for real by Ray, and its messages without Ray."""

import json
import threading

import pytest

from crossfold.platform.contracts import EpochReport
from crossfold.platform.edge.ray_fleet import run_cells
from crossfold.platform.edge.wide_cell import EpochFile, WideTrial, _relay
from crossfold.platform.errors import Cancelled
from crossfold.platform.trial import attempt_cell

EXACT = {"loss__scope": "window", "temporal__dropout": 0.0, "head__dropout": 0.0, "batch": 6}


@pytest.mark.slow
def test_two_ray_workers_share_a_cell(workspace, tiny_cell):
    cell = tiny_cell("concat", devices=2, **EXACT)
    summary = run_cells([cell], workspace, workers=2)
    assert (summary.done, summary.failed) == (1, 0)
    shared = workspace.read(cell.cell_id)
    assert list((workspace.root / "fleet").iterdir()) == []
    alone = tiny_cell("concat", **EXACT)
    assert attempt_cell(alone, workspace).status == "done"
    expected = workspace.read(alone.cell_id).curve.train_loss.tolist()
    assert shared.curve.train_loss.tolist() == pytest.approx(expected, abs=1e-4)


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
    wanted = _relay(worker, tmp_path, tiny_cell("concat"), reporter)
    assert wanted == (stop is None)
    assert reporter.heard == ended
    assert len(ended) == ran if ran else len(ended) >= stop


def test_a_group_that_is_lost_is_a_failure_of_the_machines(workspace, tiny_cell, monkeypatch):
    class Broken:
        def fit(self):
            raise RuntimeError("worker 1 died\nmore")

    trial = WideTrial()
    monkeypatch.setattr(trial, "_start_ray", lambda devices, opened: None)
    monkeypatch.setattr(trial, "_trainer", lambda *arguments: Broken())
    cell = tiny_cell("concat", devices=2, **EXACT)
    outcome = trial(cell, workspace, reporter=Keep(), attempt=2)
    assert (outcome.status, outcome.failure.kind, outcome.failure.attempt) == ("failed", "infra", 2)
    assert outcome.failure.message == "the 2 workers of the cell were lost: worker 1 died"
    assert workspace.failures_of(cell.cell_id) == [outcome.failure]


@pytest.mark.parametrize(("status", "asked"), [("done", False), ("cancelled", True)])
def test_what_the_first_worker_said_is_the_outcome(workspace, tiny_cell, monkeypatch, status, asked):
    cell = tiny_cell("concat", devices=2, **EXACT)
    folder = workspace.root / "fleet" / f"wide-{cell.cell_id}"

    class Group:
        def fit(self):
            EpochFile(folder).epoch("id", report_of(1)) if not asked else None
            if asked:
                (folder / "epochs.jsonl").write_text(report_of(1).model_dump_json() + "\n")
            (folder / "outcome.json").write_text(json.dumps({"status": status, "seconds": 1.0, "failure": None}))

    trial = WideTrial()
    monkeypatch.setattr(trial, "_start_ray", lambda devices, opened: None)
    monkeypatch.setattr(trial, "_trainer", lambda *arguments: Group())
    if asked:
        with pytest.raises(Cancelled):
            trial(cell, workspace, reporter=Keep(stop=1))
    else:
        assert trial(cell, workspace, reporter=Keep()).status == "done"
    assert not folder.exists()
