"""Searches: the objective, the study over restarts, and a whole search on real Ray workers, killed on the way."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.launch.preflight import check_search
from crossfold.platform.edge.search.objective import Scoreboard, TrialFailed
from crossfold.platform.edge.search.result import save_result
from crossfold.platform.edge.search.run_search import run_search
from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.search.tune_search import trials_at_once
from crossfold.platform.scheduling import stop_signals
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.sweep_files import Search
from crossfold.sweeps.trials import check_space, trial_cells
from tests.support.trials import JUDGED, RecordingTracker


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def make_search(**changes) -> Search:
    return Search.parse(
        {
            "name": "s",
            "corpus": "none",
            "recipe": "demo",
            "set": {"epochs": 6},
            "system": "rjca+dca",
            "inner_folds": 2,
            "seeds": [0],
            "trials": 5,
            "sampler_seed": 7,
            "space": {
                "iterations": {"int": [1, 4]},
                "temperature": {"log": [0.03, 3.0]},
                "recipe.optimizer.lr": {"linear": [0.001, 0.01]},
                "recipe.loss.scope": {"choice": ["window", "batch"]},
            },
        }
        | changes,
        "test",
    )


def open_study(search: Search, store: FeatureStore, workspace: Workspace) -> Study:
    return Study(search, functools.partial(trial_cells, search, store), workspace)


def play(study: Study, values: list[float | None], state: str = "COMPLETE") -> list[dict]:
    """Asks and tells as Tune would; None leaves a trial running, as a killed driver does."""
    import optuna

    loaded = optuna.load_study(study_name=study.name, storage=study.storage, sampler=study.sampler)
    asked = []
    for value in values:
        trial = loaded.ask()
        study.suggest(trial)
        asked.append(dict(trial.params))
        if value is not None:
            trial.report(value, 3)
            loaded.tell(trial, value if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])
    return asked


def state(epoch: int, best: float, name: str = "running") -> dict:
    return {"state": name, "epoch": epoch, "best_by_epoch": {epoch: best} if epoch else {}, "message": "because"}


def test_the_objective_waits_for_the_slowest_cell():
    board = Scoreboard(["a", "b"])
    board.see({"a": state(1, 0.2), "b": state(0, float("nan"))})
    assert board.epoch == 0
    board.see({"a": state(3, 0.4), "b": state(1, 0.1)})
    assert (board.epoch, board.value(1)) == (1, pytest.approx(0.15))
    board.see({"b": state(3, 0.3)})
    # Epoch 2 was not reported; what was best before it counts.
    assert [board.value(epoch) for epoch in (1, 2, 3)] == pytest.approx([0.15, 0.15, 0.35])


def test_a_cell_that_stopped_early_counts_with_what_it_kept():
    board = Scoreboard(["a", "b"])
    curve = pd.DataFrame({"epoch": [0, 1, 2], "ccc_valence": [0.1, 0.5, 0.3], "ccc_arousal": [0.1, 0.3, 0.9]})
    board.finish(SimpleNamespace(cell_id="a", curve=curve))
    assert board.waiting() == ["b"]
    board.see({"b": state(5, 0.2)})
    assert board.epoch == 5
    assert board.value(5) == pytest.approx((0.6 + 0.2) / 2)


@pytest.mark.parametrize("name", ["failed", "cancelled"])
def test_a_mean_over_fewer_cells_is_no_value(name):
    board = Scoreboard(["a", "b"])
    with pytest.raises(TrialFailed, match="because"):
        board.see({"a": state(3, 0.4), "b": state(1, 0.9, name)})


@pytest.mark.parametrize(("workers", "cells", "trials"), [(2, 4, 2), (8, 4, 3), (1, 12, 2), (16, 2, 12), (999, 1, 32)])
def test_enough_trials_at_once_to_keep_all_workers_busy(workers, cells, trials):
    assert trials_at_once(workers, cells) == trials
    assert trials == 32 or trials * cells >= 1.5 * workers


def test_drawn_values_stay_in_the_space_and_every_cell_is_inner(store, workspace):
    search = make_search()
    check_space(search, store)
    study = open_study(search, store, workspace)
    for params in play(study, [0.1] * 8):
        assert params["iterations"] in (1, 2, 3, 4)
        assert 0.03 <= params["temperature"] <= 3.0
        assert 0.001 <= params["recipe.optimizer.lr"] <= 0.01
        assert params["recipe.loss.scope"] in ("window", "batch")
        assert all(cell.inner is not None for cell in trial_cells(search, store, params))
    assert len(set(study.cells)) == len(study.cells) == 8 * 4


def test_a_cell_of_the_reported_split_is_refused(store, workspace):
    search = make_search()
    reported = [cell.model_copy(update={"inner": None}) for cell in trial_cells(search, store, {"iterations": 1})]
    study = Study(search, lambda chosen: reported, workspace)
    with pytest.raises(AssertionError, match="reported split"):
        play(study, [0.1])


def test_only_a_trial_that_ran_to_its_end_is_best(store, workspace):
    study = open_study(make_search(), store, workspace)
    asked = play(study, [0.3, 0.5, 0.4])
    play(study, [0.9], "PRUNED")
    play(study, [0.8], "FAIL")
    assert study.best == (asked[1], 0.5)
    assert study.judged == 4
    table = study.table()
    assert list(table["state"]) == ["complete", "complete", "complete", "pruned", "failed"]
    assert table["value"][3] == 0.9


def test_the_sampler_is_seeded_and_a_topped_up_study_does_not_repeat_itself(store, workspace, tmp_path):
    first = play(open_study(make_search(), store, workspace), [0.1, 0.2, 0.3])
    assert play(open_study(make_search(), store, Workspace(tmp_path / "other")), [0.1, 0.2, 0.3]) == first
    again = open_study(make_search(), store, workspace)
    assert again.judged == 3
    assert not [params for params in play(again, [0.1, 0.2, 0.3]) if params in first]


def test_trials_of_a_dead_driver_are_failed_and_run_again_first(store, workspace):
    first = play(open_study(make_search(), store, workspace), [0.1, None, None])
    again = open_study(make_search(), store, workspace)
    assert again.judged == 1
    assert play(again, [0.2, 0.3]) == first[1:]
    assert list(open_study(make_search(), store, workspace).table()["state"]) == [
        "complete", "failed", "failed", "complete", "complete",
    ]  # fmt: skip


def test_a_study_belongs_to_a_space_and_a_recipe(store, workspace):
    name = open_study(make_search(), store, workspace).name
    assert open_study(make_search(trials=50, sampler_seed=1), store, workspace).name == name
    assert open_study(make_search(set={"epochs": 7}), store, workspace).name != name
    assert open_study(make_search(space={"iterations": {"int": [1, 4]}}), store, workspace).name != name


def test_a_trial_process_needs_no_torch():
    code = (
        "import sys, ray.tune, crossfold.platform.edge.search.tune_trial;"
        "assert not {'torch', 'mlflow', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def own_cluster(importable, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


DRIVER = """
import sys
from pathlib import Path
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.edge.search.run_search import run_search
from crossfold.platform.workspace.workspace import Workspace
from crossfold.platform.scheduling.fleet_options import FleetOptions
from tests.support.trials import RecordingTracker
from crossfold.sweeps.sweep_files import Search
from tests.support.trials import JUDGED
import json

search, store, workspace = Search.parse(json.loads(sys.argv[1]), "argv"), FeatureStore(Path(sys.argv[2])), sys.argv[3]
result = run_search(
    search, store, Workspace(Path(workspace)), FleetOptions(workers=2, runner=JUDGED),
    tracker=RecordingTracker(), show=lambda line: print(line, flush=True),
)
print(json.dumps([result.best_params, result.best_value]), flush=True)
"""


def start_driver(search: Search, store: FeatureStore, workspace: Workspace, **env) -> subprocess.Popen:
    arguments = [search.model_dump_json(), str(store.path), str(workspace.root)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
    )


@pytest.mark.slow
def test_a_search_that_is_killed_is_topped_up(store, workspace, own_cluster):
    search = make_search(trials=6)
    driver = start_driver(search, store, workspace)
    for line in driver.stdout:
        if "trial 2/6" in line:
            break
    else:
        raise AssertionError("the driver ended before its second trial did")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {path.name for path in workspace.paths.cells.iterdir()}
    time.sleep(2)  # the cluster of a killed driver is gone 0.7 s later
    out, _ = start_driver(search, store, workspace, CROSSFOLD_TEST_FAIL="4").communicate(timeout=240)
    best_params, best_value = json.loads(out.splitlines()[-1])
    assert best_params["iterations"] == 3 or best_value < 6 / 20
    assert best_value == pytest.approx(6 / 20 - abs(best_params["iterations"] - 3) / 10)

    kept = json.loads((workspace.root / "searches" / "s.json").read_text())
    table = pd.read_parquet(workspace.root / "searches" / "s.parquet")
    assert kept["best_params"] == best_params
    # Two were judged before the kill; the rest ran now, one more for each that failed.
    assert kept["trials"]["complete"] + kept["trials"]["pruned"] + (table["iterations"] == 4).sum() >= 6
    assert not table[(table["state"] != "failed") & (table["number"] > 3)]["iterations"].eq(4).any()
    ran = Counter((workspace.root / "ran.log").read_text().split())
    assert all(ran[cell_id] == 1 for cell_id in before)
    assert {cell.name for cell in workspace.paths.cells.iterdir()} <= set(kept["cells"])

    finished = start_driver(search, store, workspace, CROSSFOLD_TEST_FAIL="4")
    finished.communicate(timeout=240)
    assert finished.returncode == 0


def test_a_search_of_which_every_trial_fails_says_so(store, workspace):
    search = make_search(trials=2)
    study = open_study(search, store, workspace)
    play(study, [0.1, 0.2], "FAIL")
    with pytest.raises(UserError, match="none of 2 trials"):
        save_result(study, search.limits, store, workspace)
    assert not (workspace.root / "searches").exists()


@pytest.mark.slow
def test_a_search_whose_time_is_up_keeps_its_verdicts(store, workspace, own_cluster, monkeypatch):
    said: list[str] = []

    def clock() -> float:
        # The time is up when the first trial has ended, however long the cluster took to start.
        return time.monotonic() + 1000 * bool(said)

    monkeypatch.setattr(stop_signals, "time", SimpleNamespace(monotonic=clock))
    options = FleetOptions(workers=1, runner=JUDGED, stop_after=500)
    found = run_search(make_search(trials=6), store, workspace, options, tracker=RecordingTracker(), show=said.append)
    assert found is None
    assert re.fullmatch(r"the time is up after [1-5] of 6 trials; the same command continues", said[-1])
    assert not (workspace.root / "searches").exists()
    # The same call goes on as after a kill: what had no verdict is repeated first.
    again = open_study(make_search(trials=6), store, workspace)
    judged = again.judged
    assert f"after {judged} of 6" in said[-1]
    assert not list(workspace.paths.failures.glob("*"))


def test_a_search_over_cells_of_several_devices_is_refused_before_work(store, workspace):
    space = {"iterations": {"int": [1, 4]}}
    with pytest.raises(UserError, match=r"devices 2, and the cells of a search have one device each"):
        check_search(make_search(set={"devices": 2, "loss.scope": "window"}, space=space), store, workspace)


@pytest.mark.slow
def test_a_strict_search_has_the_same_trials_whatever_the_number_of_workers(store, workspace, own_cluster, tmp_path):
    search = make_search(trials=4, strict=True, sampler="random")
    tables = []
    for workers, place in ((1, workspace), (2, Workspace(tmp_path / "other"))):
        place.root.mkdir(parents=True, exist_ok=True)
        options = FleetOptions(workers=workers, runner=JUDGED)
        found = run_search(search, store, place, options, tracker=RecordingTracker())
        tables.append(found.trials.drop(columns="seconds"))
    pd.testing.assert_frame_equal(*tables)
    assert set(tables[0]["state"]) <= {"complete", "pruned"} and len(tables[0]) == 4
