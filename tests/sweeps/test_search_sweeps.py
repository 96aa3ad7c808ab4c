"""The file of a search: its block in a sweep, one search for each system, conditions, grids, and what is refused."""

import pytest
import yaml

from crossfold.platform.core.errors import UserError
from crossfold.sweeps.prepared import read_searches
from crossfold.sweeps.sweep_files import Range, Search, Sweep, load
from crossfold.sweeps.trials import check_settings, corners, default_sweep, grid, winner_sweep

FILE = {
    "name": "mine",
    "corpus": "puppets",
    "recipe": "demo",
    "systems": ["rjca", "grjca", {"rjca+dca": {"iterations": 2}}],
    "folds": [0, 1],
    "seeds": [3, 4],
    "search": {"budget": {"trials": 8}, "inner_folds": 2},
}


@pytest.fixture
def read(tmp_path):
    def read(changes=(), overrides=(), **block) -> tuple[Search, ...]:
        data = {**FILE, **dict(changes), "search": {**FILE["search"], **block}}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return read_searches(str(path), overrides)

    return read


def test_each_system_is_searched_in_the_space_that_it_declares_with_the_same_budget(read):
    rjca, grjca, gated = read()
    assert [each.name for each in (rjca, grjca, gated)] == ["mine-rjca", "mine-grjca", "mine-rjca-dca"]
    assert set(rjca.space) == {"iterations"}
    assert set(grjca.space) == {"iterations", "temperature"}
    # What is fixed for a system is not searched.
    assert set(gated.space) == {"temperature"} and gated.params == {"iterations": 2}
    for each in (rjca, grjca, gated):
        assert (each.limits.trials, each.inner_folds, each.seeds, each.group) == (8, 2, (0,), "mine")
        assert (each.winner.folds, each.winner.seeds) == ((0, 1), (3, 4))


def test_a_parameter_is_searched_for_the_systems_that_have_it(read):
    lr = {"log": [0.001, 0.1]}
    rjca, grjca, _ = read(space={"temperature": {"log": [0.1, 1]}, "iterations": "default", "recipe.optimizer.lr": lr})
    assert list(rjca.space) == ["iterations", "recipe.optimizer.lr"]
    assert grjca.space["temperature"] == Range(log=(0.1, 1))
    assert grjca.space["iterations"] == Range(int=(1, 4))


def test_a_start_holds_for_each_system_what_the_system_has(read):
    start = [{"iterations": 3, "temperature": 0.1}]
    rjca, grjca, _ = read(start=start)
    assert rjca.start == ({"iterations": 3},)
    assert grjca.start == ({"iterations": 3, "temperature": 0.1},)


def test_repetitions_differ_in_name_and_seed_of_the_sampler_and_share_the_default(read):
    found = read({"systems": ["grjca"]}, repeats=3)
    assert [each.name for each in found] == ["mine-r1", "mine-r2", "mine-r3"]
    assert len({each.sampler_seed for each in found}) == 3
    assert {default_sweep(each).name for each in found} == {"mine-default"}
    assert [winner_sweep(each, {}).name for each in found] == ["mine-r1-winner", "mine-r2-winner", "mine-r3-winner"]


def test_a_key_of_the_block_is_set_from_the_command_line(read):
    found = read((), ["inner_folds=4", "budget={cell_epochs: 90}", "sampler=random", "epochs=2", "seeds=[7]"])
    assert {(each.inner_folds, each.limits.cell_epochs, each.sampler) for each in found} == {(4, 90, "random")}
    assert found[0].set == {"epochs": 2} and found[0].winner.seeds == (7,)


def test_a_system_without_a_space_of_its_own_needs_one(read):
    with pytest.raises(UserError, match="search of concat: nothing is left to search"):
        read({"systems": ["concat"]})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"sampler": "tep"}, "search.sampler = 'tep'"),
        ({"budgett": {"trials": 3}}, "unknown key 'search.budgett', did you mean 'budget'"),
        ({"budget": {"trails": 3}}, "unknown key 'search.budget.trails', did you mean 'trials'"),
        ({"space": {"iterations": {"lgo": [1, 2]}}}, "unknown key 'search.space.iterations.lgo', did you mean 'log'"),
        ({"space": {"iteration": {"int": [1, 2]}}}, "no system has a parameter 'iteration', did you mean 'iterations'"),
        ({"space": {"tied": "default"}}, "search.space.tied: rjca declares no range of it"),
        ({"start": [{"recursions": 2}]}, "no system has a parameter 'recursions'"),
        ({"objective": ["parameters", "ccc"]}, "begin with ccc"),
        ({"objective": ["ccc", "ccc"]}, "each once"),
        ({"space": {"iterations": "defualt"}}, "search.space.iterations"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(read, block, message):
    with pytest.raises(UserError) as error:
        read(**block)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"budget": {}}, "has no budget"),
        ({"trials": 4}, "trials 4, but budget.trials 8"),
        ({"objective": ["ccc", "flops"], "scheduler": "asha"}, "scheduler asha stops trials by CCC alone"),
        ({"objective": ["ccc", "flops"], "sampler": "cmaes"}, "cmaes has one objective"),
        (
            {"start": [{"iterations": 9}]},
            "start[0].iterations = 9 is outside of the space, which has iterations: {int: [",
        ),
        ({"start": [{"iterations": 2.5}]}, "start[0].iterations = 2.5 is outside"),
        ({"start": [{"recipe.optimizer.lr": 0.1}]}, "start[0]: the space has no 'recipe.optimizer.lr'"),
        ({"sampler": "grid", "budget": {"trials": 3}}, "the grid has 4 configurations, and the budget 3 trials"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(read, block, message):
    with pytest.raises(UserError) as error:
        check_settings(read(**block)[0])
    assert message in str(error.value)


GATED = {
    "gate_bias": {"choice": [True, False]},
    "temperature": {"log": [0.1, 10], "points": 3, "when": {"gate_bias": True}},
    "iterations": {"int": [1, 2]},
}


def test_a_grid_has_each_combination_once_and_no_value_of_a_parameter_that_is_not_drawn(read):
    (search,) = read({"systems": ["hgrjca"]}, space=GATED, sampler="grid", budget={})
    found = grid(search)
    assert len(found) == 2 * 3 + 2 == len({tuple(sorted(one.items())) for one in found})
    assert {one.get("temperature") for one in found if one["gate_bias"]} == {0.1, 1.0, 10.0}
    assert not any("temperature" in one for one in found if not one["gate_bias"])
    check_settings(search)


def test_each_value_of_a_conditional_space_is_checked_where_it_is_drawn(read):
    (search,) = read({"systems": ["hgrjca"]}, space={**GATED, "gate_bias": {"choice": [False, True]}})
    temperatures = [one["temperature"] for one in corners(search) if "temperature" in one]
    assert {0.1, 10.0} <= set(temperatures)
    assert all(one["gate_bias"] for one in corners(search) if "temperature" in one)


def test_a_condition_on_what_stands_below_is_refused(read):
    space = {"temperature": GATED["temperature"], "gate_bias": GATED["gate_bias"]}
    (search,) = read({"systems": ["hgrjca"]}, space=space)
    with pytest.raises(UserError, match=r"space\.temperature\.when: no parameter 'gate_bias'"):
        list(corners(search))


def test_a_search_of_one_system_in_the_short_form_is_read_as_before(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "{name: s, corpus: puppets, recipe: demo, system: rjca, trials: 5, space: {iterations: {int: [1, 4]}}}"
    )
    (search,) = read_searches(str(path), ["trials=6"])
    assert (search.limits.trials, search.seeds, search.stops_by, search.group) == (6, (0, 1, 2), "asha", None)
    assert isinstance(winner_sweep(search, {"iterations": 2}), Sweep)


@pytest.mark.parametrize(
    ("table", "key", "configurations"),
    [("grjca-t2", "iterations", 4), ("rjcma-t3", "iterations", 4), ("dca-s1", "temperature", 5)],
)
def test_the_scan_of_a_paper_as_a_search_tries_what_its_sweep_tries(table, key, configurations):
    sweep, searches = load(table), read_searches(f"search-{table}", ())
    assert [each.system for each in searches] == [variant.system for variant in sweep.systems]
    for search, variant in zip(searches, sweep.systems, strict=True):
        assert sorted(one[key] for one in grid(search)) == variant.params[key]
        assert search.params == {name: value for name, value in variant.params.items() if name != key}
        assert search.retrain == configurations == len(grid(search))
        assert (search.corpus, search.recipe, search.targets) == (sweep.corpus, sweep.recipe, sweep.targets)
        # Inner folds are made of the training clips of the fold that is reported.
        assert (search.fold,) == search.winner.folds == sweep.folds
        check_settings(search)
