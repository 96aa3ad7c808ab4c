"""Searches in MLflow: trials below their search, stopped ones marked, the winner tagged, and no run made twice."""

import json

import pytest

from crossfold.platform.edge.tracking.search_runs import log_searches
from crossfold.platform.edge.tracking.sync import sync
from crossfold.platform.workspace.workspace import Workspace
from tests.support.searches import write_search


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "space")
    write_search(workspace, "mine-grjca", trials=11)
    return workspace


def runs_of(workspace: Workspace) -> dict[str, object]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.paths.mlflow_uri)
    experiment = client.get_experiment_by_name("mine-grjca")
    found = list(client.search_runs([experiment.experiment_id], max_results=1000))
    runs = {run.data.tags["trial"]: run for run in found}
    assert len(runs) == len(found)
    return runs


def test_trials_lie_below_their_search_with_their_state_and_the_winner_is_tagged(workspace):
    log_searches(workspace, ["mine-grjca"])
    runs = runs_of(workspace)
    search = runs.pop("mine-grjca-1")
    assert len(runs) == 11
    assert search.data.metrics["importance.iterations"] == 0.9 and search.data.tags["trials.pruned"] == "2"
    states = {run.data.tags["state"]: run.info.status for run in runs.values()}
    assert states == {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {search.info.run_id}
    (winner,) = (run for run in runs.values() if run.data.tags["winner"] == "true")
    assert winner.data.metrics["ccc"] == search.data.metrics["best_ccc"]
    assert winner.data.params["iterations"] == "3" and "temperature" in winner.data.params
    assert winner.data.tags["trial"] == f"mine-grjca-1-{search.data.tags['winner_trial']}"


def test_another_winner_takes_the_tag_and_no_run_is_made_twice(workspace):
    log_searches(workspace, ["mine-grjca"])
    before = runs_of(workspace)
    (winner,) = (key for key, run in before.items() if run.data.tags.get("winner") == "true")
    path = workspace.paths.searches / "mine-grjca.json"
    record = json.loads(path.read_text())
    others = [key for key, run in before.items() if run.data.tags.get("state") == "complete" and key != winner]
    chosen = before[others[0]].data.params
    space = {"iterations": int(chosen["iterations"]), "temperature": float(chosen["temperature"])}
    path.write_text(json.dumps({**record, "best_params": space}))
    sync(workspace)
    after = runs_of(workspace)
    assert {key: run.info.run_id for key, run in after.items()} == {key: run.info.run_id for key, run in before.items()}
    assert [key for key, run in after.items() if run.data.tags.get("winner") == "true"] == [others[0]]
    assert after["mine-grjca-1"].data.tags["winner_trial"] == others[0].rpartition("-")[2]


def test_a_store_that_cannot_be_reached_is_a_warning(workspace, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db")
    log_searches(workspace, ["mine-grjca"])
    assert "a search could not be logged" in caplog.text
