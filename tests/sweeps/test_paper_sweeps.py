"""Each table of a paper has its sweep, and a finished sweep leaves no cell of its table unmeasured."""

import json
import re

import pytest

from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.core.errors import UserError
from crossfold.reports.tables.published import LEADERBOARD, MEAN, table_ids, table_spec
from crossfold.sweeps import plan, sweep_files
from crossfold.sweeps.recipe_files import load_recipe, shipped_recipes

# A row that needs another store has a sweep of its own, in addition to that of its table.
TABLES = [name for name in table_ids() if name != LEADERBOARD and not table_spec(name).architecture]


SWEEPS = [
    *((name, name) for name in TABLES),
    *sorted({(row.sweep, name) for name in TABLES for row in table_spec(name).rows if row.sweep}),
]
"""Name of a sweep, and the table that it fills."""


def wanted_of(table, sweep):
    """(system, parameters, folds, target) of every cell that a sweep measures, or submits, for a table."""
    spec = table_spec(table)
    targets = [column.target for column in spec.columns if column.target != MEAN]
    for row in spec.rows:
        for column in spec.columns if (row.sweep or table) == sweep else ():
            asked = spec.asked(row, column)
            if asked.system and (not asked.why_not or (spec.submit and asked.why_not == "not measurable")):
                for target in targets if column.target == MEAN else [column.target]:
                    yield asked.system, dict(asked.params), asked.folds, target


def made_of(sweep):
    """(system, all parameters) of every variant of a sweep."""
    for variant in sweep.systems:
        for one in variant.expand():
            params = find_system(one.system).params.parse(one.params, one.system)
            yield one.system, params.model_dump(mode="json")


def test_there_is_one_sweep_a_table_and_one_for_rows_of_another_store():
    assert sorted(path.stem for path in (sweep_files.HERE / "paper").glob("*.yaml")) == sorted(
        name for name, _ in SWEEPS
    )
    assert set(TABLES) < set(sweep_files.shipped_sweeps())


@pytest.mark.parametrize(("name", "table"), SWEEPS)
def test_a_finished_sweep_leaves_no_cell_of_its_table_out(name, table):
    sweep, spec = sweep_files.load(name), table_spec(table)
    made = list(made_of(sweep))
    used = set()
    for system, params, folds, target in wanted_of(table, name):
        found = [i for i, (name, has) in enumerate(made) if name == system and params.items() <= has.items()]
        assert len(found) == 1, f"{system} {params}: {len(found)} variants of the sweep"
        used.add(found[0])
        assert set(folds) <= set(sweep.folds)
        assert target in sweep.targets
    assert used == set(range(len(made))), f"{[made[i] for i in set(range(len(made))) - used]} are in no row"
    assert (sweep.name, sweep.corpus, sweep.recipe) == (name, spec.corpus, spec.recipe)
    assert all(sweep.set == row.set for row in spec.rows if (row.sweep or table) == name)
    assert set(sweep.folds) == set(spec.folds)
    assert sweep.seeds == (0, 1, 2)
    assert set(sweep.targets) == {target for *_, target in wanted_of(table, name)}


@pytest.mark.parametrize(("name", "table"), SWEEPS)
def test_a_sweep_says_what_it_reproduces_and_costs(name, table):
    sweep = sweep_files.load(name)
    text = sweep_files.find_sweep(name).read_text()
    comment = text[: text.index("\nname:")]
    assert all(line.startswith("# ") for line in comment.splitlines())
    number = table_spec(table).number
    assert re.search(rf"\b{re.escape(number)}\b", comment)
    models = 1 if sweep.joint_targets else len(sweep.targets)
    cells = len(list(made_of(sweep))) * len(sweep.folds) * len(sweep.seeds) * models
    assert f"# Cost: {cells} cells" in comment
    assert f"crossfold plan {name}" in comment


@pytest.mark.parametrize("table", [name for name, _ in SWEEPS])
def test_a_sweep_has_a_recipe_and_expands_on_an_embedded_corpus(table, synthetic_store):
    sweep = sweep_files.load(table)
    assert sweep.recipe in shipped_recipes()
    assert load_recipe(sweep.recipe).joint_targets == bool(sweep.joint_targets)
    here = ["corpus=synthetic", "recipe=demo", "folds=[0]", f"targets={json.dumps(synthetic_store.targets[:1])}"]
    made = plan.expand(sweep_files.load(table, here), synthetic_store)
    needs_text = {variant.system for variant in sweep.systems if "text" in str(variant.params)}
    assert {skipped.label for skipped in made.skipped} <= needs_text
    assert made.cells or needs_text == {variant.system for variant in sweep.systems}


def test_a_sweep_is_found_by_name_and_by_its_path_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = sweep_files.HERE / "paper" / "grjca-t2.yaml"
    for source in ("grjca-t2", "grjca-t2.yaml", "sweeps/paper/grjca-t2.yaml", file):
        assert sweep_files.find_sweep(source) == file
    with pytest.raises(UserError, match="did you mean 'grjca-t2'"):
        sweep_files.find_sweep("grjca-t22")
    with pytest.raises(UserError, match="no sweep"):
        sweep_files.find_sweep("elsewhere/grjca-t2.yaml")
