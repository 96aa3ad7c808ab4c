"""Studies under every sampler, with conditions, starts, several objectives and budgets; importance; fresh seeds."""

import functools
import json
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna_dashboard import wsgi

from crossfold.platform.core.layout import sqlite_uri
from crossfold.platform.edge.search.importance import importance_of
from crossfold.platform.edge.search.retrain import Retrained, fresh_cells, fresh_seeds
from crossfold.platform.edge.search.study import Study
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.sweep_files import Budget, Search
from crossfold.sweeps.trials import check_space, trial_cells

SPACE = {
    "gate_bias": {"choice": [True, False]},
    "temperature": {"log": [0.03, 3.0], "points": 3, "when": {"gate_bias": True}},
    "iterations": {"int": [1, 4]},
}


@pytest.fixture
def opened(store, tmp_path):
    def opened(**changes) -> Study:
        data = {
            "name": "s", "corpus": "none", "recipe": "demo", "system": "hgrjca", "inner_folds": 2, "seeds": [0],
            "trials": 12, "space": SPACE,
        }  # fmt: skip
        search = Search.parse(data | changes, "test")
        check_space(search, store)
        return Study(search, functools.partial(trial_cells, search, store), Workspace(tmp_path))

    return opened


def play(study: Study, count: int, value=lambda params: params["iterations"] / 10, **costs) -> list[dict]:
    loaded = optuna.load_study(study_name=study.name, storage=study.storage)
    asked = []
    for _ in range(count):
        loaded.sampler = study.sampler
        trial = loaded.ask()
        study.suggest(trial)
        study.note_ended(trial, "complete", 6)
        loaded.tell(trial, [value(trial.params), *(cost(trial.params) for cost in costs.values())])
        asked.append(dict(trial.params))
    return asked


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "grid", "qmc"])
def test_every_sampler_keeps_to_the_space_and_goes_on_as_if_it_had_not_been_interrupted(sampler, opened, tmp_path):
    asked = play(opened(sampler=sampler, trials=16), 7)
    for params in asked:
        assert ("temperature" in params) == params["gate_bias"]
        assert params["iterations"] in (1, 2, 3, 4) and 0.03 <= params.get("temperature", 1) <= 3
    again = opened(sampler=sampler, trials=16, name="again")
    first = play(again, 3)
    rest = play(Study(again.search, again._cells_of, Workspace(tmp_path)), 4)
    assert [*first, *rest] == asked


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "grid"])
def test_a_trial_that_a_dead_driver_left_open_is_repeated_and_changes_no_other(sampler, opened, tmp_path):
    asked = play(opened(sampler=sampler, trials=16), 14)
    again = opened(sampler=sampler, trials=16, name="again")
    first = play(again, 11)
    loaded = optuna.load_study(study_name=again.name, storage=again.storage, sampler=again.sampler)
    again.suggest(left := loaded.ask())
    rest = play(Study(again.search, again._cells_of, Workspace(tmp_path)), 3)
    assert left.params == rest[0]
    assert [*first, *rest] == asked


def test_a_grid_is_run_to_its_last_configuration_without_repeating_one(opened):
    study = opened(sampler="grid", trials=None)
    assert study.grid_size == 3 * 4 + 4
    asked = play(study, study.grid_size)
    assert len({tuple(sorted(params.items())) for params in asked}) == study.grid_size


def test_known_configurations_are_judged_first_and_once(opened):
    start = [{"gate_bias": True, "temperature": 0.1, "iterations": 3}, {"iterations": 2}]
    study = opened(start=start)
    asked = play(study, 2)
    assert asked[0] == start[0] and asked[1]["iterations"] == 2
    assert start[0] not in play(opened(start=start), 3)


def test_several_objectives_give_a_front_and_the_winner_is_the_best_of_it_by_ccc(opened):
    study = opened(objective=["ccc", "parameters"], sampler="random", trials=20)
    asked = play(study, 12, parameters=lambda params: 100 * params["iterations"] + 10 * params["gate_bias"])
    params, value = study.best
    assert value == max(one["iterations"] for one in asked) / 10
    front = [asked[number] for number in study.front]
    assert not any(one["gate_bias"] for one in front), "the gate costs parameters and brings nothing here"
    table = study.table()
    assert (table["objective_parameters"] >= 100).all() and params["iterations"] == value * 10


def test_the_first_limit_that_is_reached_ends_a_search(opened):
    study = opened(sampler="random")
    play(study, 3)
    assert study.spent == {"trials": 3, "hours": pytest.approx(0, abs=0.1), "cell_epochs": 18}
    assert study.spent["hours"] > 0
    assert study.is_over(Budget(trials=3)) and study.is_over(Budget(trials=99, cell_epochs=18))
    assert study.is_over(Budget(hours=study.spent["hours"] / 2))
    assert not study.is_over(Budget(trials=4, cell_epochs=19, hours=1))


def test_a_search_whose_trials_all_fail_ends(opened):
    study = opened(sampler="random")
    loaded = optuna.load_study(study_name=study.name, storage=study.storage)
    for number in range(20):
        assert not study.is_over(Budget(hours=9)), number
        trial = loaded.ask()
        study.note_ended(trial, "failed", 0)
        loaded.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert study.is_over(Budget(hours=9))


def test_a_study_belongs_to_its_sampler_scheduler_objective_and_repetition(opened):
    usual = opened().name
    others = [{"sampler": "gp"}, {"scheduler": "none"}, {"objective": ["ccc", "flops"]}, {"repeat": 1}]
    assert len({usual, *(opened(**changes).name for changes in others)}) == 5
    assert opened(scheduler="asha", retrain=4, start=[{"iterations": 1}]).name == usual


def test_what_matters_is_told_from_what_does_not(opened):
    space = {"iterations": {"int": [1, 4]}, "temperature": {"log": [0.03, 3.0]}}
    study = opened(space=space, sampler="random", trials=40)
    play(study, 40)
    rows = {row["parameter"]: row for row in importance_of(study.complete())}
    assert rows["iterations"]["matters"] and rows["iterations"]["fanova"] > 0.9
    assert not rows["temperature"]["matters"] and rows["temperature"]["fanova"] < 0.1
    assert importance_of(study.complete()[:9]) == []


def test_the_best_are_judged_again_on_the_same_folds_with_seeds_that_nothing_else_has(opened, store):
    study = opened(sampler="random", retrain=2, seeds=[0, 5], winner={"folds": [0], "seeds": [7]})
    asked = play(study, 6)
    seeds = fresh_seeds(study.search)
    assert seeds == (8, 9, 10)
    cells = fresh_cells(study, store)
    assert len(cells) == 2
    best = max(one["iterations"] for one in asked)
    assert next(iter(cells.values()))[0].params["iterations"] == best
    for group in cells.values():
        assert {cell.seed for cell in group} == set(seeds)
        assert {cell.inner.of for cell in group} == {2} and all(cell.inner is not None for cell in group)


def test_the_interval_over_fresh_seeds_is_students():
    judged = Retrained(0, {}, 0.6, (0.4, 0.5, 0.6))
    low, high = judged.interval
    assert judged.mean == pytest.approx(0.5)
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)
    assert Retrained(0, {}, 0.6, (0.4, 0.4)).interval == (0.4, 0.4)


def test_optuna_dashboard_opens_the_studies_of_a_workspace_and_sees_every_trial(opened, tmp_path):
    study = opened(sampler="random")
    asked = play(study, 4)
    loaded = optuna.load_study(study_name=study.name, storage=study.storage)
    stopped = loaded.ask()
    study.suggest(stopped)
    stopped.report(0.1, 3)
    loaded.tell(stopped, state=optuna.trial.TrialState.PRUNED)
    opened(sampler="random", name="other")

    dashboard = wsgi(sqlite_uri(Workspace(tmp_path).paths.optuna))
    summaries = get(dashboard, "/api/studies")["study_summaries"]
    assert {each["study_name"].rpartition("-")[0] for each in summaries} == {"s", "other"}
    number = next(each["study_id"] for each in summaries if each["study_name"] == study.name)
    seen = get(dashboard, f"/api/studies/{number}")
    assert seen["directions"] == ["maximize"]
    assert [each["state"] for each in seen["trials"]] == ["Complete"] * 4 + ["Pruned"]
    assert [each["values"] for each in seen["trials"][:4]] == [[one["iterations"] / 10] for one in asked]
    assert seen["trials"][4]["intermediate_values"] == [{"step": 3, "value": 0.1}]
    shown = [{each["name"]: each["param_external_value"] for each in trial["params"]} for trial in seen["trials"][:4]]
    assert [one["iterations"] for one in shown] == [str(one["iterations"]) for one in asked]


def get(application, path: str):
    """What a WSGI application answers to a GET, which has to be JSON."""
    environ, status = {}, []
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": path, "QUERY_STRING": ""}
    body = b"".join(application(environ, lambda line, headers, error=None: status.append(line)))
    assert status == ["200 OK"], body
    return json.loads(body)
