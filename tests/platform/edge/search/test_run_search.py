"""Searches: the objective, the study over restarts, and a whole search on real Ray workers, killed on the way."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.core.outcome import Silent
from crossfold.platform.edge.launch.preflight import check_search
from crossfold.platform.edge.search import tune_search
from crossfold.platform.edge.search.fleet_access import KeptFleet, queue_of
from crossfold.platform.edge.search.objective import Scoreboard, TrialFailed, follow
from crossfold.platform.edge.search.result import save_result
from crossfold.platform.edge.search.run_search import run_search
from crossfold.platform.edge.search.study import Study
from crossfold.platform.edge.search.tune_search import trials_at_once
from crossfold.platform.scheduling import stop_signals
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.worker import QueueLost
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.sweep_files import Budget, Search
from crossfold.sweeps.trials import check_space, trial_cells
from tests.support.chaos import PROCESSES, processes_named
from tests.support.trials import JUDGED, RecordingTracker, judged


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


def test_a_trial_that_stopped_early_has_the_epochs_of_its_cells(store, workspace):
    """Ray numbers reports, and the end of a trial is one more."""
    from crossfold.platform.edge.search.optuna_searcher import StudySearcher

    study, said = open_study(make_search(), store, workspace), []
    searcher = StudySearcher(study, Budget(trials=5), threading.Event(), lambda *ended: said.append(ended))
    searcher.suggest("a")
    results = [(1, 0.1, False), (2, 0.2, False), (2, 0.2, True)]
    for number, (epoch, ccc, finished) in enumerate(results, start=1):
        result = {"epoch": epoch, "ccc": ccc, "finished": finished, "cell_epochs": 4, "training_iteration": number}
        searcher.on_trial_result("a", result)
    searcher.on_trial_complete("a", result)
    (row,) = study.table().to_dict("records")
    assert (row["state"], row["value"], row["epochs"]) == ("complete", 0.2, 2)
    assert said == [("complete", 0.2)]


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
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.scheduling.fleet_options import FleetOptions
from tests.support.trials import RecordingTracker
from crossfold.sweeps.sweep_files import Budget, Search
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
def test_a_search_whose_worker_queue_and_driver_are_killed_loses_and_repeats_nothing(store, workspace, own_cluster):
    search, due = make_search(trials=8), {"trial 1/8": "worker", "trial 3/8": "queue", "trial 5/8": "driver"}
    driver, settled = start_driver(search, store, workspace), []
    for line in driver.stdout:
        if kind := due.pop(" ".join(line.split()[:2]), None):
            finished = workspace.finished()
            settled.append({cell_id: attempts(workspace)[cell_id] for cell_id in finished})
            # Looked up before the kill: nothing is below a driver that has died.
            below = [psutil.Process(each) for each in processes_named(PROCESSES["worker"], {driver.pid})]
            victims = [driver.pid] if kind == "driver" else processes_named(PROCESSES[kind], {driver.pid})
            os.kill(victims[0], signal.SIGKILL)
    assert not due, "each of the three was killed"
    assert driver.wait() == -signal.SIGKILL
    assert psutil.wait_procs(below, timeout=120)[1] == [], "workers leave when their driver has died"

    again = start_driver(search, store, workspace)
    out, _ = again.communicate(timeout=240)
    assert again.returncode == 0
    best_params, best_value = json.loads(out.splitlines()[-1])
    assert best_value == pytest.approx(6 / 20 - abs(best_params["iterations"] - 3) / 10)
    kept = json.loads((workspace.root / "searches" / "s.json").read_text())
    table = pd.read_parquet(workspace.root / "searches" / "s.parquet")
    assert kept["best_params"] == best_params
    assert kept["trials"]["complete"] + kept["trials"]["pruned"] == 8
    # Those that were open when the driver died were repeated; the worker and the queue cost no trial.
    assert kept["trials"]["failed"] <= 2
    judged = table[table["state"] != "failed"][list(search.space)].to_dict("records")
    assert all(params in judged for params in table[table["state"] == "failed"][list(search.space)].to_dict("records"))
    for finished in settled:
        assert {cell_id: attempts(workspace)[cell_id] for cell_id in finished} == finished
    assert not workspace.finished() - set(kept["cells"])

    finished = start_driver(search, store, workspace)
    finished.communicate(timeout=240)
    assert finished.returncode == 0


def attempts(workspace: Workspace) -> Counter:
    """How often each cell was begun."""
    return Counter((workspace.root / "ran.log").read_text().split())


def test_cells_that_a_new_queue_does_not_know_are_submitted_again(store, workspace):
    """A queue that was killed starts again empty, perhaps before the driver heard of the cells of a new trial."""
    cells = trial_cells(make_search(), store, {"iterations": 3})
    texts, submitted = [cell.model_dump_json() for cell in cells], []
    workspace.root.mkdir()

    class Restarted(CellQueue):
        def submit(self, cells_json, epoch_seconds=None):
            submitted.append(len(cells_json))
            if len(submitted) > 1:
                super().submit(cells_json, epoch_seconds)
                for cell in cells[: len(cells_json)]:
                    judged(cell, workspace, reporter=Silent())

    (*_, last) = follow(texts, Restarted(), workspace, poll_seconds=0)
    assert submitted == [len(cells)] * 2
    assert last.finished and last.ccc == pytest.approx(6 / 20)


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
def test_schedulers_on_ray_strict_searches_and_an_abandoned_queue(store, workspace, own_cluster, tmp_path, monkeypatch):
    """One fleet for all: each scheduler of Ray stops weak trials, and a strict search is the one without Ray."""
    monkeypatch.setenv("CROSSFOLD_TEST_EPOCH_SECONDS", "0.01")
    settings = {"sampler": "random", "targets": ["valence"], "set": {"epochs": 4}}
    options = FleetOptions(workers=2, runner=JUDGED)
    with KeptFleet(workspace, options) as kept:
        # Ray's Hyperband draws the bracket of a trial from NumPy's own generator.
        np.random.seed(0)
        for scheduler in ("median", "hyperband"):
            search = make_search(name=scheduler, scheduler=scheduler, trials=12, **settings)
            table = run_search(search, store, workspace, options, tracker=RecordingTracker(), kept=kept).trials
            assert list(table["state"]).count("pruned") >= 1 and set(table["state"]) == {"complete", "pruned"}
            stopped = table[table["state"] == "pruned"]
            assert (stopped["epochs"] == 3).all() and (stopped["iterations"] != 3).all()
            assert (table[table["state"] == "complete"]["epochs"] == 4).all()
        # A long search is several runs of Tune, over which what a pruner knows has to last.
        monkeypatch.setattr(tune_search, "TRIALS_OF_A_RUN", 4)
        other = Workspace(tmp_path / "other")
        other.root.mkdir()
        for scheduler, trials in {"asha": 7, "median": 10, "hyperband": 5}.items():
            search = make_search(
                name=f"strict-{scheduler}", scheduler=scheduler, trials=trials, strict=True, **settings
            )
            tables = [
                run_search(search, store, place, chosen, tracker=RecordingTracker(), kept=fleet).trials
                for place, chosen, fleet in (
                    (workspace, options, kept), (other, FleetOptions(workers=0, runner=judged), None),
                )
            ]  # fmt: skip
            pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))
            assert len(tables[0]) == trials and ("pruned" in set(tables[0]["state"]) or scheduler == "hyperband")
        queue, fleet = queue_of(kept.pool), kept.pool
        assert queue.watch([]) == {}
        fleet.abandon()
        with pytest.raises(QueueLost):
            # Ray ends the process in its own time.
            for _ in range(1000):
                queue.watch([])
                time.sleep(0.01)
        with pytest.raises(FleetError, match="the cell queue died"):
            fleet.drain()
