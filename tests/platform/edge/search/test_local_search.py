"""Searches with `--workers 0`: the same study without Ray, stopped and continued, and the same trials each time."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import FleetError
from crossfold.platform.core.outcome import EpochReport
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.edge.search.fleet_access import KeptFleet
from crossfold.platform.edge.search.run_search import run_search
from crossfold.platform.edge.search.study import Study
from crossfold.platform.scheduling.drive import OpenPool
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.plan import expand
from crossfold.sweeps.sweep_files import Search
from crossfold.sweeps.trials import trial_cells, winner_sweep
from tests.support.factories import synthetic_workspace
from tests.support.paths import environment
from tests.support.trials import RecordingTracker, judged


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Epochs of `judged` last no time."""
    monkeypatch.setattr("tests.support.trials.time.sleep", lambda seconds: None)


def make_search(**changes) -> Search:
    given = {
        "name": "s", "corpus": "none", "recipe": "demo", "set": {"epochs": 4}, "system": "rjca+dca", "inner_folds": 2,
        "seeds": [0], "targets": ["valence"], "trials": 5, "sampler_seed": 7, "space": {"iterations": {"int": [1, 4]}},
    }  # fmt: skip
    return Search.parse(given | changes, "test")


def run(search: Search, store: FeatureStore, workspace: Workspace, runner=judged, **options):
    said: list[str] = []
    found = run_search(
        search, store, workspace, FleetOptions(workers=0, runner=runner, **options),
        tracker=RecordingTracker(), show=said.append,
    )  # fmt: skip
    return found, said


def test_the_best_is_found_and_trials_that_fall_behind_stop_early(store, workspace):
    found, said = run(make_search(trials=8), store, workspace)
    assert found.best_params == {"iterations": 3}
    assert found.best_value == pytest.approx(4 / 20)
    table = found.trials
    assert list(table["state"]).count("complete") >= 1
    assert set(table["state"]) == {"complete", "pruned"}
    pruned = table[table["state"] == "pruned"]
    assert set(pruned["epochs"]) == {3}, "the first rung"
    assert (pruned["value"] == 3 / 20 - (pruned["iterations"] - 3).abs() / 10).all()
    assert [line.split(" ")[1] for line in said] == [f"{number}/8" for number in range(1, 9)]
    assert json.loads((workspace.paths.searches / "s.json").read_text())["best_params"] == {"iterations": 3}
    ran = Counter((workspace.root / "ran.log").read_text().split())
    finished = workspace.finished()
    assert {cell_id: ran[cell_id] for cell_id in finished} == dict.fromkeys(finished, 1), "none is trained twice"


def test_the_same_seed_gives_the_same_trials(store, workspace, tmp_path):
    space = {"iterations": {"int": [1, 4]}, "recipe.optimizer.lr": {"log": [0.001, 0.01]}}
    first, _ = run(make_search(space=space), store, workspace)
    second, _ = run(make_search(space=space), store, Workspace(tmp_path / "other"))
    pd.testing.assert_frame_equal(first.trials.drop(columns="seconds"), second.trials.drop(columns="seconds"))
    assert first.trials["recipe.optimizer.lr"].nunique() == 5


def test_a_trial_whose_cell_fails_has_no_value_and_the_search_goes_on(store, workspace, monkeypatch):
    monkeypatch.setenv("CROSSFOLD_TEST_FAIL", "3")
    found, said = run(make_search(trials=8), store, workspace)
    assert found.best_params["iterations"] != 3
    assert [line.split(" ")[1] for line in said if "failed" not in line] == [f"{number}/8" for number in range(1, 9)]
    assert len(found.trials) == 8 + sum("a trial failed" in line for line in said), "failed ones do not count"
    states = found.trials.groupby("iterations")["state"].agg(set)
    assert states[3] == {"failed"}
    assert all("failed" not in states[other] for other in states.index if other != 3)


def test_a_grid_ends_when_each_configuration_has_run_once_though_some_failed(store, workspace, monkeypatch):
    monkeypatch.setenv("CROSSFOLD_TEST_FAIL", "3")
    found, _ = run(make_search(trials=None, sampler="grid", scheduler="none"), store, workspace)
    states = found.trials.set_index("iterations")["state"].to_dict()
    assert len(found.trials) == 4 and states == {1: "complete", 2: "complete", 3: "failed", 4: "complete"}


def test_a_search_that_is_interrupted_keeps_its_trials_and_repeats_the_open_one(store, workspace):
    search, begun = make_search(trials=4), []

    def interrupting(cell, workspace, *, reporter, **keywords):
        begun.append(cell.cell_id)
        if len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                reporter.epoch(cell.cell_id, judged_report())
        return judged(cell, workspace, reporter=reporter, **keywords)

    with pytest.raises(KeyboardInterrupt):
        run(search, store, workspace, interrupting)
    assert len(begun) == 3
    study = open_study(search, store, workspace)
    assert study.judged == 1
    found, _ = run(search, store, workspace)
    table = found.trials
    assert list(table["state"]).count("failed") == 1, "the one that was open"
    assert len(table) == 5
    assert table["iterations"][1] == table["iterations"][2], "it is repeated first"


def test_a_search_whose_time_is_up_says_so_and_continues(store, workspace):
    found, said = run(make_search(trials=3), store, workspace, stop_after=0.0)
    assert found is None
    assert said[-1].endswith("of 3 trials; the same command continues")
    found, _ = run(make_search(trials=3), store, workspace)
    assert found.best_params["iterations"] in (1, 2, 3, 4)


def test_workers_that_are_kept_run_the_winners_cells_and_end_with_the_block(store, workspace):
    search, options = make_search(trials=2), FleetOptions(workers=0, runner=judged)
    with KeptFleet(workspace, options) as kept:
        assert kept.pool is None, "no worker starts before one is needed"
        found = run_search(search, store, workspace, options, tracker=RecordingTracker(), kept=kept)
        pool = kept.pool
        # The ends of cells that a search of before left are no business of the launch that follows.
        pool.submit(left := trial_cells(search, store, {"iterations": 4, "temperature": 0.5}))
        assert {event.cell_id for event in pool.drain()} == {cell.cell_id for cell in left}
        pool.cancel([cell.cell_id for cell in left])
        cells = expand(winner_sweep(search, found.best_params), store).cells
        summary = run_cells(cells, workspace, OpenPool(pool))
        assert kept.pool is pool and pool.drain() == []
    assert (summary.done, summary.cancelled) == (len(cells), 0)
    assert {cell.cell_id for cell in cells} <= workspace.finished()
    with pytest.raises(FleetError, match="the worker thread ended"):
        pool.drain()


def test_a_worker_that_ends_without_a_reason_ends_the_search(store, workspace):
    def broken(cell, workspace, **keywords):
        raise SystemExit(3)

    with pytest.raises(FleetError, match="the worker thread ended"):
        run(make_search(), store, workspace, broken)


def test_the_command_searches_without_ray(tmp_path):
    """Real cells, trained in this process; the winner and the default too."""
    work = synthetic_workspace(tmp_path, frames=60)
    (tmp_path / "s.yaml").write_text(
        "{name: s, corpus: synthetic, recipe: demo, set: {epochs: 1, stress: none}, system: concat, "
        "targets: [valence], inner_folds: 2, seeds: [0], trials: 2, "
        "space: {recipe.optimizer.lr: {choice: [0.001, 0.01]}}, winner: {folds: [0], seeds: [0]}}"
    )
    code = (
        "import sys; from crossfold.platform.edge.cli.app import main\n"
        "try: main(['search', 's.yaml', '--workers', '0', '-w', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(work.root)], cwd=tmp_path, env=environment(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best mean CCC" in done.stdout
    assert len(work.finished()) in (2 + 2, 4 + 2)


def judged_report() -> EpochReport:
    return EpochReport(
        epoch=1, epochs=4, learning_rate=0.1, train_loss=1.0, ccc={"valence": 0.1}, best_ccc=0.1, seconds=0.1
    )


def open_study(search: Search, store: FeatureStore, workspace: Workspace) -> Study:
    return Study(search, lambda chosen: trial_cells(search, store, chosen), workspace)
