import gc
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now, whole_file, write_json
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.edge.cli.tracking import SERVER_SETTINGS, server_command
from crossfold.platform.edge.tracking import writer
from crossfold.platform.edge.tracking.sync import sync
from crossfold.platform.edge.tracking.tracker import MlflowTracker, pending_marker
from crossfold.platform.edge.tracking.writer import RunWriter
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import commit_untrained, make_cell
from tests.support.paths import environment
from tests.support.waiting import wait_for

EPOCHS = 5


def rjca_cell(seed: int, targets=("valence",)) -> Cell:
    params = {"iterations": 3, "gate": {"temperature": 0.1}, "note": "x" * 7000}
    facts = {"corpus": "puppets", "store": "abc", "fold": 1, "recipe": Recipe(name="demo", epochs=EPOCHS)}
    return make_cell("rjca", params=params, targets=targets, seed=seed, **facts)


def ccc_at(epoch: int, seed: int) -> float:
    return math.tanh(epoch / 10) + seed / 100


def report_of(cell: Cell, epoch: int) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        epochs=EPOCHS,
        learning_rate=0.01 / epoch,
        train_loss=1 / epoch,
        ccc={target: ccc_at(epoch, cell.seed) for target in cell.targets},
        best_ccc=ccc_at(epoch, cell.seed),
        seconds=0.1,
    )


def commit(workspace: Workspace, cell: Cell, **env) -> None:
    """What a finished cell leaves, without training."""
    reports = [report_of(cell, epoch) for epoch in range(1, EPOCHS + 1)]
    curve = pd.DataFrame(
        {"epoch": r.epoch - 1, "learning_rate": r.learning_rate, "train_loss": r.train_loss}
        | {f"ccc_{target}": value for target, value in r.ccc.items()}
        for r in reports
    )
    about = {"device": "cpu", "train_seconds": 1.5, "machine": {"host": "node"}, "versions": {"torch": "2.11"}}
    commit_untrained(workspace, cell, curve, frames=10, finished_at=utc_now(), **(about | env))


def run_live(workspace: Workspace, tracker: MlflowTracker, cells: list[Cell], sweep: str = "tiny") -> None:
    """A launch as the fleet would report it."""
    write_json(workspace.paths.sweeps / f"{sweep}.json", {"name": sweep, "cells": [cell.cell_id for cell in cells]})
    tracker.launch(sweep, cells)
    for cell in cells:
        tracker.started(cell, 1)
        for epoch in range(1, EPOCHS + 1):
            tracker.epoch(cell, report_of(cell, epoch))
        commit(workspace, cell)
        tracker.finished(cell)
    tracker.close()


def test_two_sweeps_of_one_launch_make_the_database_once(workspace, monkeypatch):
    """Each has a tracker that opens the store: a second database would replace the first, with what is in it."""
    (workspace.root / "mlflow.db").unlink()
    made = []

    def counted(path):
        made.append(path)
        return whole_file(path)

    monkeypatch.setattr(writer, "whole_file", counted)
    trackers = {name: MlflowTracker(workspace, flush_seconds=0.05) for name in ("first", "second")}
    for seed, (name, tracker) in enumerate(trackers.items()):
        tracker.launch(name, [rjca_cell(seed)])
    for tracker in trackers.values():
        tracker.close()
    assert len(made) == 1
    assert [tracker.troubles for tracker in trackers.values()] == [0, 0]
    opened = RunWriter(workspace)
    opened.prepare()
    assert set(opened.pages(5)) == {"first", "second"}


def logged_cells(workspace: Workspace, uri: str = "") -> dict[str, dict]:
    """All that MLflow holds of each cell, without ids and times."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri or workspace.paths.mlflow_uri)
    experiments = {e.experiment_id: e.name for e in client.search_experiments()}
    runs = client.search_runs(list(experiments), max_results=1000)
    names = {run.info.run_id: run.data.tags.get("sweep") for run in runs}
    found: dict[str, dict] = {}
    for run in runs:
        cell_id = run.data.tags.get("cell_id")
        if cell_id is None:
            continue
        assert cell_id not in found, f"two runs of cell {cell_id}"
        tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")}
        found[cell_id] = {
            "experiment": experiments[run.info.experiment_id],
            "status": run.info.status,
            "name": run.info.run_name,
            "parent": names[run.data.tags["mlflow.parentRunId"]],
            "tags": tags,
            "params": run.data.params,
            "datasets": [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs],
            "metrics": run.data.metrics,
            "history": {
                key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
            "artifacts": sorted(f.path for f in client.list_artifacts(run.info.run_id)),
        }
    return found


@pytest.fixture(scope="module")
def migrated(tmp_path_factory) -> Path:
    """A fresh database: migrating one costs seconds, copying it nothing."""
    workspace = Workspace(tmp_path_factory.mktemp("migrated"))
    RunWriter(workspace).prepare()
    return workspace.root / "mlflow.db"


@pytest.fixture
def workspace(tmp_path, migrated, monkeypatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "space")
    workspace.root.mkdir()
    (workspace.root / "mlflow.db").write_bytes(migrated.read_bytes())
    return workspace


def test_a_launch_is_logged_completely(workspace):
    cell = rjca_cell(3, ("valence", "arousal"))
    tracker = MlflowTracker(workspace)
    run_live(workspace, tracker, [cell])
    logged = logged_cells(workspace)[cell.cell_id]
    assert tracker.troubles == 0
    assert (logged["experiment"], logged["status"], logged["name"], logged["parent"]) == (
        "tiny", "FINISHED", cell.label, "tiny",
    )  # fmt: skip
    for axis, value in {"system": "rjca", "corpus": "puppets", "store": "abc", "fold": "1", "seed": "3"}.items():
        assert logged["tags"][axis] == value
    assert logged["tags"]["target"] == "valence+arousal"
    assert logged["params"]["iterations"] == "3"
    # What the chart of parallel coordinates takes.
    axes = {"system": "rjca", "corpus": "puppets", "fold": "1", "target": "valence+arousal", "seed": "3"}
    assert axes.items() <= logged["params"].items()
    assert logged["params"]["gate.temperature"] == "0.1"
    assert logged["datasets"] == [("puppets", "abc")]
    assert logged["params"]["recipe.optimizer.lr"] == "0.001"
    assert len(logged["params"]["note"]) == 6000
    assert logged["metrics"]["ccc_valence"] == 0.5
    assert logged["metrics"]["ccc_video_mean_arousal"] == 0.4
    assert logged["history"]["selection_ccc_arousal"] == [(e, ccc_at(e, 3)) for e in range(1, EPOCHS + 1)]
    assert set(logged["artifacts"]) == {
        "best.safetensors", "cell.json", "curve.parquet", "env.json", "predictions.npz", "result.json",
    }  # fmt: skip


def test_a_run_takes_the_time_of_its_cell_also_when_it_is_written_after_its_end(workspace):
    """A cell that is shorter than a flush has its run made when it has ended."""
    from mlflow import MlflowClient

    cells = [rjca_cell(seed) for seed in range(2)]
    run_live(workspace, MlflowTracker(workspace, flush_seconds=60), cells)
    uri = workspace.paths.mlflow_uri
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
    assert [run.info.end_time - run.info.start_time for run in runs] == [1500, 1500]


def test_an_experiment_is_of_training_says_what_it_holds_and_has_its_address_printed(workspace):
    """Also one that an earlier version made."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.paths.mlflow_uri)
    client.create_experiment("old", workspace.paths.mlflow_artifacts.as_uri())
    for seed, sweep in enumerate(("new", "old")):
        run_live(workspace, MlflowTracker(workspace), [rjca_cell(seed)], sweep)
        tags = client.get_experiment_by_name(sweep).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"
        assert "crossfold report" in tags["mlflow.note.content"]
    writer = RunWriter(workspace)
    writer.prepare()
    pages = writer.pages(5)
    assert pages.keys() == {"new", "old"}
    old = client.get_experiment_by_name("old").experiment_id
    view = "workflowType=machine_learning&viewStateShareKey=crossfold"
    assert pages["old"] == f"/#/experiments/{old}/runs?{view}"


def test_a_cell_looked_at_in_another_way_keeps_its_run(workspace):
    """The stress suite is no part of a cell, and MLflow lets no parameter change."""
    cell = rjca_cell(0)
    again = cell.model_copy(update={"recipe": Recipe.parse({"epochs": EPOCHS, "stress": "none"}, "a test")})
    assert again.cell_id == cell.cell_id
    assert again.recipe.stress != cell.recipe.stress
    for asked in (cell, again):
        tracker = MlflowTracker(workspace)
        tracker.launch("tiny", [asked])
        tracker.started(asked, 1)
        tracker.epoch(asked, report_of(asked, 1))
        tracker.close()
        assert tracker.troubles == 0
    assert "recipe.stress" not in logged_cells(workspace)[cell.cell_id]["params"]


def test_sync_writes_what_live_logging_wrote(workspace, migrated, tmp_path):
    cells = [rjca_cell(seed) for seed in range(3)]
    run_live(workspace, MlflowTracker(workspace), cells)
    summary = sync(workspace)
    assert (summary.cells, summary.created, summary.completed) == (3, 0, 0)
    # MLflow keeps a database open for the life of the process, so the rebuilt one has another name.
    elsewhere = tmp_path / "rebuilt.db"
    elsewhere.write_bytes(migrated.read_bytes())
    rebuilt = sync(workspace, f"sqlite:///{elsewhere}")
    assert (rebuilt.created, rebuilt.completed) == (3, 0)
    assert logged_cells(workspace, f"sqlite:///{elsewhere}") == logged_cells(workspace)
    assert sync(workspace, f"sqlite:///{elsewhere}").created == 0


def test_a_lost_file_of_run_ids_makes_no_second_run(workspace):
    cells = [rjca_cell(seed) for seed in range(2)]
    run_live(workspace, MlflowTracker(workspace), cells[:1])
    before = logged_cells(workspace)
    (workspace.root / "mlflow-runs.jsonl").unlink()
    run_live(workspace, MlflowTracker(workspace), cells)
    after = logged_cells(workspace)
    assert set(after) == {cell.cell_id for cell in cells}
    assert after[cells[0].cell_id] == before[cells[0].cell_id]


def test_half_a_line_in_the_file_of_run_ids_is_passed_over(workspace):
    cell = rjca_cell(0)
    run_live(workspace, MlflowTracker(workspace), [cell])
    with (workspace.root / "mlflow-runs.jsonl").open("a") as file:
        file.write('\n{"cell": "12')
    run_live(workspace, MlflowTracker(workspace), [cell, rjca_cell(1)])
    assert len(logged_cells(workspace)) == 2


def test_a_failed_attempt_and_a_second_one_share_a_run(workspace):
    cell = rjca_cell(0)
    tracker = MlflowTracker(workspace, flush_seconds=0.05)
    tracker.launch("tiny", [cell])
    tracker.started(cell, 1)
    tracker.epoch(cell, report_of(cell, 1))
    tracker.failed(cell, Failure(cell.cell_id, cell.label, FailureClass.OOM, 1, "too large", "", utc_now()))
    wait_for(lambda: logged_cells(workspace).get(cell.cell_id, {}).get("status") == "FAILED")
    assert logged_cells(workspace)[cell.cell_id]["tags"]["failure"] == "oom"
    tracker.started(cell, 2)
    for epoch in range(1, EPOCHS + 1):
        tracker.epoch(cell, report_of(cell, epoch))
    commit(workspace, cell)
    tracker.finished(cell)
    tracker.close()
    logged = logged_cells(workspace)[cell.cell_id]
    assert logged["status"] == "FINISHED"
    assert [step for step, _ in logged["history"]["train_loss"]] == [1, 2, 3, 4, 5]


def test_a_cell_that_did_not_end_is_killed_not_running(workspace):
    cell = rjca_cell(0)
    tracker = MlflowTracker(workspace)
    tracker.launch("tiny", [cell])
    tracker.started(cell, 1)
    tracker.close()
    assert logged_cells(workspace)[cell.cell_id]["status"] == "KILLED"


KILLED = """
import sys, time
from tests.platform.edge.tracking.test_mlflow_tracker import *
workspace = Workspace(Path(sys.argv[1]))
cells = [rjca_cell(0), rjca_cell(1)]
tracker = MlflowTracker(workspace, flush_seconds=0.1)
tracker.launch("tiny", cells)
for cell in cells:
    tracker.started(cell, 1)
    for epoch in (1, 2, 3):
        tracker.epoch(cell, report_of(cell, epoch))
wait_for(lambda: [len(run["history"].get("train_loss", ())) for run in logged_cells(workspace).values()] == [3, 3])
commit(workspace, cells[0])
(workspace.root / "ready").touch()
time.sleep(60)
"""


def test_killed_driver_resumes_into_the_same_runs(workspace):
    child = subprocess.Popen([sys.executable, "-c", KILLED, workspace.root], env=environment())
    wait_for((workspace.root / "ready").exists, 120)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished, left = rjca_cell(0), rjca_cell(1)
    assert {logged["status"] for logged in logged_cells(workspace).values()} == {"RUNNING"}
    run_live(workspace, MlflowTracker(workspace), [left])
    logged = logged_cells(workspace)
    assert set(logged) == {finished.cell_id, left.cell_id}
    for cell in (finished, left):
        assert logged[cell.cell_id]["status"] == "FINISHED"
        assert [step for step, _ in logged[cell.cell_id]["history"]["selection_ccc_valence"]] == [1, 2, 3, 4, 5]
        assert len(logged[cell.cell_id]["history"]["ccc_valence"]) == 1
    assert not running(workspace)


def running(workspace: Workspace) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.paths.mlflow_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, "attributes.status = 'RUNNING'"))


def test_a_server_that_is_gone_stops_nothing(workspace, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cells = [rjca_cell(seed) for seed in range(30)]
    tracker = MlflowTracker(workspace, "http://127.0.0.1:9", flush_seconds=0.05)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="crossfold"):
        run_live(workspace, tracker, cells)
    assert time.monotonic() - began < 10
    assert tracker.troubles > 0
    assert len([record for record in caplog.records if record.name.startswith("crossfold")]) == 1
    assert sync(workspace).created == len(cells)


@pytest.fixture
def server(workspace):
    """Starts and stops real MLflow servers of this workspace on one port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    running_ones: list[subprocess.Popen] = []

    def start() -> str:
        artifacts = ["--artifacts-destination", str(workspace.root / "served")]
        running_ones.append(
            subprocess.Popen(
                [*server_command(workspace, port), *artifacts],
                env=os.environ | SERVER_SETTINGS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        wait_for(lambda: _answers(f"{uri}/health"), 60)
        return uri

    def stop() -> None:
        while running_ones:
            process = running_ones.pop()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    yield start, stop
    stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_misses_nothing(workspace, server, monkeypatch, capfd):
    """What it missed lies in the workspace, and `sync` brings it what an undisturbed launch would have written."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    start, stop = server
    uri = start()
    cells = [rjca_cell(seed) for seed in range(4)]
    write_json(workspace.paths.sweeps / "tiny.json", {"name": "tiny", "cells": [cell.cell_id for cell in cells]})
    tracker = MlflowTracker(workspace, uri, flush_seconds=0.05)
    tracker.launch("tiny", cells)
    for place, cell in enumerate(cells):
        tracker.started(cell, 1)
        for epoch in range(1, EPOCHS + 1):
            if (place, epoch) == (1, 3):
                wait_for(lambda: cells[1].cell_id in logged_cells(workspace, uri))
                stop()
            tracker.epoch(cell, report_of(cell, epoch))
        commit(workspace, cell)
        tracker.finished(cell)
        if place == 0:
            wait_for(lambda: logged_cells(workspace, uri).get(cells[0].cell_id, {}).get("status") == "FINISHED")
    tracker.close()
    assert tracker.troubles > 0
    start()
    summary = sync(workspace, uri)
    assert (summary.cells, summary.created, summary.completed) == (4, 2, 1)
    assert sync(workspace, uri).completed == 0
    logged = logged_cells(workspace, uri)
    assert set(logged) == {cell.cell_id for cell in cells}
    undisturbed = logged[cells[0].cell_id]
    for cell in cells:
        assert logged[cell.cell_id]["status"] == "FINISHED"
        assert logged[cell.cell_id]["artifacts"] == undisturbed["artifacts"] != []
        assert logged[cell.cell_id]["history"].keys() == undisturbed["history"].keys()
        assert [step for step, _ in logged[cell.cell_id]["history"]["train_loss"]] == list(range(1, EPOCHS + 1))
    # Standard output belongs to lines of progress, or to JSON.
    assert capfd.readouterr().out == ""


def test_the_machine_is_watched_while_a_launch_runs(workspace, monkeypatch):
    from mlflow import MlflowClient

    from crossfold.platform.edge.tracking import writer as mlflow_writer

    monkeypatch.setattr(mlflow_writer, "WATCH_SECONDS", 0.05)
    cell = rjca_cell(0)
    tracker = MlflowTracker(workspace, flush_seconds=0.05)
    tracker.launch("tiny", [cell])
    wait_for(lambda: tracker._opened)
    client = MlflowClient(tracking_uri=workspace.paths.mlflow_uri)
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "tiny"]
    (parent,) = [run.info.run_id for run in client.search_runs([experiment], "tags.kind = 'launch'")]
    wait_for(lambda: "system/cpu_utilization_percentage" in client.get_run(parent).data.metrics, 20)
    tracker.close()
    assert client.get_run(parent).info.status == "FINISHED"
    assert client.get_run(parent).data.metrics["system/system_memory_usage_megabytes"] > 0


def test_an_outage_of_mlflow_fills_no_memory_with_epochs(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cells = [rjca_cell(seed) for seed in range(10)]
    tracker = MlflowTracker(workspace, "http://127.0.0.1:9")
    tracker.launch("tiny", cells)
    for cell in cells:
        for epoch in range(1, EPOCHS + 1):
            tracker.epoch(cell, report_of(cell, epoch))
    for cell in cells[:9]:
        tracker.finished(cell)
    tracker._flush()
    assert [len(live.note.epochs) for live in tracker._cells.values()] == [0] * 9 + [EPOCHS]
    tracker.close()


def test_cells_that_have_ended_leave_nothing_of_mlflow_in_memory(workspace):
    """MLflow's client keeps what it opens for the files of a run; a search has thousands of cells."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    def kept() -> int:
        gc.collect()
        return sum(isinstance(each, ArtifactRepository) for each in gc.get_objects())

    before, tracker = kept(), MlflowTracker(workspace)
    run_live(workspace, tracker, [rjca_cell(seed) for seed in range(3)])
    assert tracker.troubles == 0 and kept() == before
    assert "result.json" in logged_cells(workspace)[rjca_cell(0).cell_id]["artifacts"]


def test_what_an_earlier_version_left_pending_is_still_pending(workspace):
    old = workspace.root / "status" / "a_sweep.untold"
    old.parent.mkdir()
    old.touch()
    assert pending_marker(workspace, "a sweep").is_file()
    assert pending_marker(workspace, "a sweep").is_file()
    assert not old.exists()
    assert not pending_marker(workspace, "other").exists()


def test_trouble_with_one_cell_leaves_the_others_alone(workspace):
    good, bad = rjca_cell(0), rjca_cell(1)
    tracker = MlflowTracker(workspace)
    tracker.launch("tiny", [good, bad])
    tracker.finished(bad)
    commit(workspace, good)
    tracker.finished(good)
    tracker.close()
    assert tracker.troubles > 0
    assert logged_cells(workspace)[good.cell_id]["status"] == "FINISHED"


def test_the_local_database_survives_two_readers(workspace):
    import sqlite3

    RunWriter(workspace).prepare()
    with sqlite3.connect(workspace.root / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_local_server_has_few_processes_and_the_database_of_the_workspace(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    command = server_command(workspace, 5055)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert command[command.index("--backend-store-uri") + 1] == workspace.paths.mlflow_uri
    assert command[command.index("--workers") + 1] == "1"


def test_a_launch_does_not_wait_until_mlflow_is_open(workspace, monkeypatch):
    """Importing MLflow and making its database take seconds, in which the workers can start."""
    opened, entered = threading.Event(), threading.Event()
    prepare = RunWriter.prepare

    def slow(self):
        entered.set()
        assert opened.wait(60)
        prepare(self)

    monkeypatch.setattr(RunWriter, "prepare", slow)
    tracker = MlflowTracker(workspace, flush_seconds=0.05)
    tracker.launch("sweep", ())
    assert entered.wait(60), "it is being opened, and the launch goes on"
    opened.set()
    tracker.close()
    assert tracker.troubles == 0
    assert not pending_marker(workspace, "sweep").exists(), "MLflow has everything"
