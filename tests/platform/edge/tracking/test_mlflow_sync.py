"""A tracking store that `sync` rebuilds, against the one that was written live, run by run."""

import hashlib
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.edge.tracking.records import metric_name
from crossfold.platform.edge.tracking.sync import sync
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.edge.tracking.writer import RunWriter
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.launches import (
    Launch,
    LaunchIndex,
    Unfinished,
    launches,
    save_unfinished,
    unfinished_cells,
)
from crossfold.platform.workspace.repair import remove_leftovers
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import prepare_cells
from crossfold.sweeps.sweep_files import Sweep
from tests.platform.edge.tracking.test_mlflow_tracker import commit, report_of, rjca_cell, wait_for
from tests.support.factories import make_cell, unpack_old_workspace


@pytest.fixture(scope="module")
def migrated(tmp_path_factory) -> bytes:
    """A fresh database: migrating one costs seconds, copying it nothing."""
    workspace = Workspace(tmp_path_factory.mktemp("migrated"))
    RunWriter(workspace).prepare()
    return (workspace.root / "mlflow.db").read_bytes()


@pytest.fixture
def workspace(tmp_path, migrated, monkeypatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    space = Workspace(tmp_path / "space")
    space.root.mkdir()
    (space.root / "mlflow.db").write_bytes(migrated)
    return space


@pytest.fixture
def rebuilt(workspace, migrated) -> str:
    """Another, empty database for the same workspace."""
    path = workspace.root.parent / "rebuilt.db"
    path.write_bytes(migrated)
    return f"sqlite:///{path}"


def everything(uri: str) -> dict[str, dict]:
    """All that a store holds, by cell or launch, but for ids of runs, times of metrics, and readings of the machine."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = {e.experiment_id: e.name for e in client.search_experiments()}
    runs = list(client.search_runs(list(experiments), max_results=1000))
    names = {run.info.run_id: run.data.tags.get("launch") for run in runs}
    logged: dict[str, dict] = {}
    for run in runs:
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"}
        key = tags.get("cell_id") or tags["launch"]
        assert key not in logged, f"two runs of {key}"
        metrics = {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")}
        logged[key] = {
            "experiment": experiments[run.info.experiment_id],
            "parent": names.get(run.data.tags.get("mlflow.parentRunId", ""), "none"),
            "name": run.info.run_name,
            "status": run.info.status,
            # Only MLflow knows when a killed one ended, and when a cell began.
            "ended": None if run.info.status == "KILLED" else run.info.end_time,
            "began": run.info.start_time if tags["kind"] == "launch" else None,
            "tags": tags,
            "params": run.data.params,
            "metrics": metrics,
            "history": {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in metrics
            },
            "artifacts": artifacts(Path(unquote(urlparse(run.info.artifact_uri).path))),
        }
    return logged


def artifacts(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Driver:
    """A launch as the fleet reports it; `stop` is its orderly end, without it the driver was killed."""

    def __init__(self, workspace, sweep, cells, known=()) -> None:
        known_before = [cell.cell_id for cell in known]
        write_json(
            workspace.paths.sweeps / f"{sweep}.json",
            {"name": sweep, "cells": [c.cell_id for c in cells] + known_before},
        )
        self.workspace, self.tracker = workspace, MlflowTracker(workspace, flush_seconds=0.02)
        self.flushed, flush = 0, self.tracker._flush

        def counted(**how) -> None:
            flush(**how)
            self.flushed += 1

        self.tracker._flush = counted
        self.tracker.launch(sweep, cells)
        self.tracker.catch_up(known)

    def run(self, cell, epochs, *, attempt=1, first=1) -> None:
        self.tracker.started(cell, attempt)
        for epoch in range(first, epochs + 1):
            self.tracker.epoch(cell, report_of(cell, epoch))
        self.flush()

    def finish(self, cell) -> None:
        commit(self.workspace, cell)
        self.tracker.finished(cell)
        self.flush()

    def fail(self, cell, kind, attempt, message) -> None:
        failure = Failure(cell.cell_id, cell.label, kind, attempt, message, "its log", utc_now())
        self.workspace.record_failure(failure)
        self.tracker.failed(cell, failure)
        self.flush()

    def flush(self) -> None:
        """Waits until all lies in MLflow, so that a kill now loses nothing."""
        before = self.flushed
        # One may be under way that began before.
        wait_for(lambda: self.tracker._opened and self.flushed >= before + 2, 60)

    def stop(self) -> None:
        self.tracker.close()
        assert self.tracker.troubles == 0


def test_a_rebuilt_store_equals_the_live_one_run_by_run(workspace, rebuilt):
    done, late, wild, stopped, orphan, shared, poisoned = (rjca_cell(seed) for seed in range(7))
    first = Driver(workspace, "night", [done, late, wild, stopped])
    first.run(done, 5)
    first.finish(done)
    first.run(late, 2)
    first.fail(late, FailureClass.OOM, 1, "too large")
    first.run(late, 5, attempt=2, first=2)
    first.finish(late)
    first.run(wild, 3)
    first.fail(wild, FailureClass.DIVERGED, 1, "the loss is not finite")
    first.run(stopped, 2)
    first.stop()

    killed = Driver(workspace, "night", [stopped, orphan, poisoned])
    killed.run(stopped, 3, first=3)
    killed.run(orphan, 4)
    commit(workspace, orphan)
    killed.run(poisoned, 1)
    killed.fail(poisoned, FailureClass.INFRA, 1, "worker 0 died")
    killed.run(poisoned, 2, attempt=2, first=2)

    last = Driver(workspace, "morning", [shared, poisoned], known=[orphan])
    last.run(shared, 5)
    last.finish(shared)
    last.run(poisoned, 3, first=3)
    for attempt in (1, 2, 3):
        last.fail(poisoned, FailureClass.INFRA, attempt, f"worker 1 died, attempt {attempt}")
    last.stop()

    again = Driver(workspace, "night", [])
    again.stop()

    live = everything(workspace.paths.mlflow_uri)
    assert len(live) == 7 + 4
    launched = {
        logged["tags"]["launch"]: logged["name"] for logged in live.values() if logged["tags"]["kind"] == "launch"
    }
    assert [live[cell.cell_id]["status"] for cell in (done, late, wild, stopped, orphan, shared, poisoned)] == [
        "FINISHED", "FINISHED", "FAILED", "KILLED", "FINISHED", "FINISHED", "FAILED",
    ]  # fmt: skip
    assert launched[live[orphan.cell_id]["parent"]].startswith("night "), "the killed launch computed it"
    assert "failure" not in live[late.cell_id]["tags"], "it is finished"
    assert live[late.cell_id]["tags"]["failed_tries"] == "1"
    assert live[poisoned.cell_id]["tags"]["failure_message"] == "worker 1 died, attempt 3"

    summary = sync(workspace, rebuilt)
    assert (summary.cells, summary.unfinished, summary.created, summary.completed) == (4, 3, 7, 0)
    again = everything(rebuilt)
    assert again.keys() == live.keys()
    for key, logged in live.items():
        assert again[key] == logged, key
    for uri in (rebuilt, workspace.paths.mlflow_uri):
        assert (sync(workspace, uri).created, sync(workspace, uri).completed) == (0, 0)
        assert everything(uri) == live


def test_a_cell_that_was_computed_once_more_has_the_times_of_its_last_result(workspace, rebuilt):
    cell = rjca_cell(0)
    first = Driver(workspace, "night", [cell])
    first.finish(cell)
    first.stop()
    shutil.rmtree(workspace.paths.cell(cell.cell_id))
    again = Driver(workspace, "rerun", [cell])
    again.run(cell, 5)
    commit(workspace, cell, train_seconds=99.0, attempt=2)
    again.tracker.finished(cell)
    again.stop()
    sync(workspace, rebuilt)
    live, new = (everything(uri)[cell.cell_id] for uri in (workspace.paths.mlflow_uri, rebuilt))
    # MLflow keeps the value of the first result too; a rebuilt run has only the last one.
    assert [live.pop("history")["train_seconds"], new.pop("history")["train_seconds"]] == [
        [(0, 1.5), (0, 99.0)], [(0, 99.0)],
    ]  # fmt: skip
    assert live == new
    assert (live["metrics"]["train_seconds"], live["tags"]["attempt"], live["experiment"]) == (99.0, "2", "night")


def test_a_moved_workspace_of_an_earlier_version_keeps_its_runs_and_is_rebuilt_as_it_was(tmp_path, rebuilt):
    """What commit ed74c6d logged live is what `sync` writes today."""
    workspace = Workspace(unpack_old_workspace(tmp_path))
    assert str(sync(workspace)).endswith("8 present, 0 completed, 0 created")
    old = everything(workspace.paths.mlflow_uri)
    assert len(old) == 8 + 3
    assert str(sync(workspace, rebuilt)).endswith("0 present, 0 completed, 8 created")
    new = everything(rebuilt)
    for key, logged in old.items():
        assert ("model/MLmodel" in logged["artifacts"]) == (
            logged["status"] == "FINISHED" and logged["parent"] != "none"
        )
        for each in (logged, new[key]):
            # Of a model the weights stay; what describes it has its own time and says more in later versions.
            each["artifacts"] = {
                name: digest
                for name, digest in each["artifacts"].items()
                if not name.startswith("model/") or name.endswith("best.safetensors")
            }
            del each["tags"]["workspace"]
        # A run that is made now says more.
        for kind in ("params", "tags"):
            new[key][kind] = {name: value for name, value in new[key][kind].items() if name in logged[kind]}
        assert new[key] == logged, key


def test_a_driver_that_was_killed_before_it_listed_a_run_leaves_no_second_one(workspace):
    cells = [rjca_cell(seed) for seed in range(2)]
    first = Driver(workspace, "night", cells)
    for cell in cells:
        first.run(cell, 2)
    lines = (workspace.root / "mlflow-runs.jsonl").read_text().strip().splitlines()
    (workspace.root / "mlflow-runs.jsonl").write_text(lines[0])
    # Another sweep has the same cells, so that the experiment does not identify them either.
    again = Driver(workspace, "morning", cells)
    for cell in cells:
        again.run(cell, 5)
        again.finish(cell)
    again.stop()
    live = everything(workspace.paths.mlflow_uri)
    for cell in cells:
        assert live[cell.cell_id]["experiment"] == "night"
        assert [step for step, _ in live[cell.cell_id]["history"]["train_loss"]] == [1, 2, 3, 4, 5]


def test_failed_cells_that_only_the_failure_log_knows_are_found_in_their_sweeps(new_workspace, rebuilt, monkeypatch):
    """As in a workspace of an earlier version, or a merged one."""
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps

    space = new_workspace()
    sweep = Sweep.parse(
        {
            "name": "wild", "corpus": "synthetic", "recipe": "demo", "systems": ["concat"], "targets": ["valence"],
            "folds": [0], "seeds": [0],
            "set": {"epochs": 1, "window": 20, "hop": 20, "stress": "none", "optimizer.lr": 1e30},
        },
        "wild",
    )  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", rebuilt)
    assert run_sweeps([prepare_cells(sweep, space)], space, FleetOptions(workers=0)).failed == 1
    (live,) = [logged for logged in everything(rebuilt).values() if logged["tags"]["kind"] == "cell"]
    assert (live["status"], live["tags"]["failure"]) == ("FAILED", "diverged")

    for folder in ("unfinished", "launches"):
        shutil.rmtree(space.root / folder)
    (space.root / "mlflow-runs.jsonl").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert (
        str(sync(space)) == "0 finished cells and 1 that failed or were interrupted: 0 present, 0 completed, 1 created"
    )
    (again,) = [logged for logged in everything(space.paths.mlflow_uri).values() if logged["tags"]["kind"] == "cell"]
    for differs in ("parent", "history", "metrics"):
        live.pop(differs), again.pop(differs)
    assert again == live
    assert sync(space).created == 0


def test_what_happened_belongs_to_the_last_launch_before_it():
    early, late = (Launch("s", 1, ("a",), at=f"2026-01-0{day}T00:00:00+00:00") for day in (1, 3))
    other = Launch("s", 1, ("b",), at="2026-01-02T00:00:00+00:00")
    book = LaunchIndex([early, other, late])
    assert book.of("a", "2026-01-02T12:00:00+00:00") is early
    assert book.of("a", "2026-01-03T00:00:00+00:00") is late
    assert book.of("a", "2025-12-31T00:00:00+00:00") is early, "by the clock of another machine"
    assert book.of("c", "2026-01-03T00:00:00+00:00") is None


def test_notes_of_unfinished_cells_keep_any_number_and_go_when_the_cell_is_finished(workspace):
    cells = [rjca_cell(seed) for seed in range(3)]
    for cell in cells:
        save_unfinished(workspace, Unfinished(cell, "night", "x", {1: {"train_loss": float("inf")}, 2: {"a": 0.1}}))
    commit(workspace, cells[0])
    (workspace.root / "unfinished" / f"{cells[1].cell_id}.json").write_text('{"cell": {"sys')
    (left,) = unfinished_cells(workspace)
    assert left == Unfinished(cells[2], "night", "x", {1: {"train_loss": float("inf")}, 2: {"a": 0.1}})
    remove_leftovers(workspace)
    assert {path.stem for path in (workspace.root / "unfinished").iterdir()} == {c.cell_id for c in cells[1:]}


def test_half_a_launch_is_passed_over(workspace):
    (workspace.root / "launches").mkdir()
    (workspace.root / "launches" / "a.json").write_text('{"sweep": "x"}')
    (workspace.root / "launches" / "b.json").write_text('{"sweep')
    assert launches(workspace) == []


HOSTILE = ("pain [0-10]", "pain (0-10)", "दर्द", "a//b", "../x", "=cmd()", "100 % sure?", "🙂", "x" * 150)


def test_targets_of_any_name_are_logged_and_the_true_names_kept(workspace, rebuilt):
    cell = make_cell("concat", targets=HOSTILE)
    driver = Driver(workspace, "names", [cell])
    driver.run(cell, 2)
    driver.finish(cell)
    driver.stop()
    assert driver.tracker.troubles == 0
    sync(workspace, rebuilt)
    assert everything(rebuilt) == everything(workspace.paths.mlflow_uri)
    logged = everything(rebuilt)[cell.cell_id]
    true = {tag.removeprefix("metric."): name for tag, name in logged["tags"].items() if tag.startswith("metric.")}
    found = {true.get(name, name) for name in logged["metrics"] if name.startswith("ccc_")}
    assert found >= {f"ccc_{target}" for target in HOSTILE}


@pytest.mark.parametrize("name", ["ccc_valence", "ccc_Müdigkeit", "ccc_боль", "selection_ccc_a-b.c", "train_loss"])
def test_names_that_mlflow_takes_stay(name):
    assert metric_name(name) == name


@pytest.mark.parametrize("name", ["lab%201", "lab?1", "lab#1", "a b+c"])
def test_a_workspace_of_any_path_has_its_database_inside(tmp_path, name):
    other = tmp_path / "lab 1"
    other.mkdir()
    workspace = Workspace(tmp_path / name)
    cell = make_cell("concat", targets=("valence",))
    driver = Driver(workspace, "s", [cell])
    driver.run(cell, 1)
    driver.finish(cell)
    driver.stop()
    assert driver.tracker.troubles == 0
    assert workspace.paths.mlflow.is_file()
    assert {path.name for path in tmp_path.iterdir()} == {name, "lab 1"}
    assert not list(other.iterdir())
    assert list(workspace.paths.mlflow_artifacts.rglob("result.json"))


def test_an_experiment_that_was_deleted_in_mlflow_is_restored(workspace):
    cell, later = (make_cell("concat", targets=("valence",), seed=seed) for seed in (0, 1))
    first = Driver(workspace, "s", [cell])
    first.run(cell, 1)
    first.finish(cell)
    first.stop()
    before = everything(workspace.paths.mlflow_uri)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.paths.mlflow_uri)
    client.delete_experiment(client.get_experiment_by_name("s").experiment_id)
    sync(workspace)
    assert everything(workspace.paths.mlflow_uri) == before
    client.delete_experiment(client.get_experiment_by_name("s").experiment_id)
    second = Driver(workspace, "s", [later])
    second.run(later, 1)
    second.finish(later)
    second.stop()
    assert second.tracker.troubles == 0
    assert everything(workspace.paths.mlflow_uri).keys() > {*before, later.cell_id}
