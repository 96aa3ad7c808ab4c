"""What a workspace says, as rows."""

import numpy as np
import pytest

from crossfold.platform.core.cell import PROTOCOL, Inner
from crossfold.platform.core.metrics import ccc
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.evaluation.ensembles import save_seed_ensembles
from crossfold.reports.page.describe import page_notices, setting_names
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.load import load_results
from crossfold.reports.results.model import COLUMNS
from crossfold.reports.tables.leaderboard import ENSEMBLE, build_leaderboard, ensemble_scores
from crossfold.reports.tables.measure import protocol_words
from tests.support import lab


def fail(workspace, cell, kind=FailureClass.DIVERGED):
    workspace.record_failure(
        Failure(cell.cell_id, cell.label, kind, 1, "loss is not finite at step 7", "tail", "2025-01-01T00:00:00+00:00")
    )


def test_one_row_a_cell_and_target(finished):
    results = load_results(finished)
    cells = results.cells
    assert tuple(cells.columns) == COLUMNS
    assert len(cells) == len(results.runs) == 120
    assert set(cells["status"]) == {"done"}
    assert cells.drop_duplicates(["variant", "target", "fold", "seed"]).shape[0] == 120
    assert cells["variant"].nunique() == len(lab.VARIANTS)
    row = cells[cells["system"] == "rjca"].iloc[0]
    record = finished.read_exactly(row["cell_id"])
    assert row["ccc"] == record.result["metrics"][row["target"]]["ccc"]
    assert row["train_seconds"] == record.env["train_seconds"]


def test_variants_are_named_by_what_tells_them_apart(finished):
    names = set(load_results(finished).variants.values())
    assert {"CA (residual sum)", "CA (residual tanh)", "CA + DCA", "RJCA", "Visual only"} <= names


def test_what_another_setting_ran_does_not_lengthen_a_name(workspace):
    store = lab.make_store(workspace.root)
    many = dict.fromkeys("abcde", 0)
    first = [lab.Fake("jca", {"axis": "time"}, 0.4)]
    later = [lab.Fake("jca", {"axis": "time", **many}, 0.4), lab.Fake("jca", {"axis": "time", **many, "b": 1}, 0.3)]
    wide = [lab.Fake("rjca", {**many}, 0.4), lab.Fake("rjca", dict.fromkeys(many, 1), 0.3)]
    for fakes, recipe in ((first, Recipe(epochs=30)), ((*later, *wide), Recipe(epochs=31))):
        for cell, noise in lab.cells_of(store, tuple(fakes), folds=(0,), seeds=(0,), recipe=recipe):
            lab.finish(workspace, store, cell, noise)
    names = sorted(load_results(workspace).variants.values())
    assert names == ["JCA", "JCA (b 0)", "JCA (b 1)", "RJCA (a 0)", "RJCA (a 1)"]


def test_a_cell_with_two_targets_has_two_rows_and_a_setting_of_its_own(workspace):
    store = lab.make_store(workspace.root)
    pairs = lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(0,), targets=(("valence", "arousal"),))
    pairs += lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(0,))
    for cell, noise in pairs:
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    assert sorted(results.cells["target"]) == ["arousal", "arousal", "valence", "valence"]
    assert len(results.settings) == 2


def test_cells_of_searches_are_left_out(workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(0,), inner=Inner(index=0, of=3)):
        lab.finish(workspace, store, cell, noise)
    assert load_results(workspace).cells.empty


def test_what_is_owed_and_what_failed_are_rows_too(workspace):
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), targets=(("valence",),))
    lab.finish(workspace, store, *cells[0])
    fail(workspace, cells[1][0])
    fail(workspace, cells[0][0])
    lab.launch(workspace, store, [cell for cell, _ in cells])
    results = load_results(workspace)
    assert results.cells.set_index("seed")["status"].to_dict() == {0: "done", 1: "failed", 2: "planned"}
    assert results.cells.set_index("seed").loc[1, "failure"] == "diverged"
    assert results.cells["setting"].nunique() == 1
    assert [failure.cell_id for failure in results.failures] == [cells[1][0].cell_id]


def test_a_sweep_without_a_finished_cell_is_not_lost(workspace):
    store = lab.make_store(workspace.root)
    cells = [cell for cell, _ in lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), targets=(("valence",),))]
    for cell in cells:
        fail(workspace, cell, FailureClass.OOM)
    lab.launch(workspace, store, cells)
    results = load_results(workspace)
    assert set(results.cells["status"]) == {"failed"}
    assert next(iter(results.settings.values())).recipe == "not known yet"


def test_a_sweep_that_says_its_recipe_belongs_to_the_setting_of_that_recipe(workspace):
    store = lab.make_store(workspace.root)
    recipe = Recipe(name="demo", epochs=30)
    first, *others = lab.cells_of(store, lab.VARIANTS[:3], folds=(0,), targets=(("valence",),), recipe=recipe)
    lab.finish(workspace, store, *first)
    lab.launch(workspace, store, [cell for cell, _ in others], recipe=recipe)
    results = load_results(workspace)
    assert len(results.settings) == 1
    assert results.cells["status"].value_counts().to_dict() == {"planned": 8, "done": 1}
    longer = lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), recipe=Recipe(name="long", epochs=99))
    lab.launch(workspace, store, [cell for cell, _ in longer], "long", recipe=Recipe(name="long", epochs=99))
    assert [s.recipe for s in load_results(workspace).settings.values()] == ["demo", "long"]
    assert all(s.recipe_hash for s in load_results(workspace).settings.values())


def test_a_recipe_that_no_longer_reads_does_not_stop_a_report(workspace):
    store = lab.make_store(workspace.root)
    cells = [cell for cell, _ in lab.cells_of(store, lab.VARIANTS[:1], folds=(0,))]
    lab.launch(workspace, store, cells, recipe={"name": "old", "no_such_key": 1})
    assert next(iter(load_results(workspace).settings.values())).recipe_hash == ""


def test_recipes_are_never_mixed_and_names_are_only_labels(workspace):
    store = lab.make_store(workspace.root)
    for recipe in (Recipe(name="demo", epochs=30), Recipe(name="demo", epochs=5), Recipe(name="other", epochs=30)):
        for seed in (0, 1):
            if recipe.name == "other" and seed == 0:
                continue
            cells = lab.cells_of(
                store, lab.VARIANTS[:1], folds=(0,), seeds=(seed,), targets=(("valence",),), recipe=recipe
            )
            lab.finish(workspace, store, *cells[0])
    assert sorted(s.recipe_hash for s in load_results(workspace).settings.values()) == sorted(
        {s.recipe_hash for s in load_results(workspace).settings.values()}
    )
    assert load_results(workspace).cells.groupby("setting").size().tolist() == [2, 2]


def test_only_the_latest_revision_of_a_system_counts(workspace):
    store = lab.make_store(workspace.root)
    for revision in (1, 2):
        for cell, noise in lab.cells_of(
            store, lab.VARIANTS[:1], folds=(0,), targets=(("valence",),), revision=revision
        ):
            lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    assert set(results.cells["revision"]) == {2}
    assert results.superseded == 3


def test_cells_of_an_earlier_protocol_are_labelled_on_the_page_and_in_their_table(workspace):
    store = lab.make_store(workspace.root)
    common = {"folds": (0,), "targets": (("valence",),)}
    old = lab.cells_of(store, lab.VARIANTS[:1], protocol=2, revision=1, **common)
    new = lab.cells_of(store, lab.VARIANTS[:1], revision=2, **common)
    for cell, noise in old + new:
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    by_protocol = {setting.protocol: setting for setting in results.settings.values()}
    assert by_protocol.keys() == {2, PROTOCOL}
    assert results.superseded == 0  # a revision supersedes within its protocol only
    assert any(notice.startswith("Cells of protocol 2 were computed by an earlier") for notice in page_notices(results))
    assert setting_names([by_protocol[2]])[by_protocol[2].key].endswith("protocol 2")
    assert "protocol" not in setting_names([by_protocol[PROTOCOL]])[by_protocol[PROTOCOL].key]
    assert "of an earlier version; today's is" in protocol_words(by_protocol[2])
    assert protocol_words(by_protocol[PROTOCOL]) == f"protocol {PROTOCOL}"


def test_an_empty_workspace_has_no_rows(workspace):
    results = load_results(workspace)
    assert results.cells.empty
    assert not results.settings


def test_what_one_recipe_owes_never_makes_another_look_unfinished(workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), targets=(("valence",),)):
        lab.finish(workspace, store, cell, noise)
    longer = lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), targets=(("valence",),), recipe=Recipe(epochs=99))
    lab.launch(workspace, store, [cell for cell, _ in longer])
    cells = load_results(workspace).cells
    assert cells.groupby("setting")["status"].unique().map(list).tolist().count(["done"]) == 1
    assert cells["setting"].nunique() == 2


def test_the_ensemble_of_seeds_is_a_column_once_every_fold_is_complete(workspace):
    store = lab.make_store(workspace.root)
    asked = lab.cells_of(store, lab.VARIANTS[:2], folds=(0, 1), seeds=(0, 1))
    for cell, noise in asked[:-1]:
        lab.finish(workspace, store, cell, noise)
    lab.launch(workspace, store, [cell for cell, _ in asked], recipe=asked[0][0].recipe)
    assert load_results(workspace).ensembles == {}
    assert len(save_seed_ensembles(workspace)) == 7, "2 variants x 2 folds x 2 targets, one without its second seed"

    results = load_results(workspace)
    (setting,) = results.settings.values()
    whole, unfinished = setting_variants(results, setting)
    scores = ensemble_scores(results, setting)
    assert scores.keys() == {whole}, f"{unfinished} still owes a cell"
    members = [cell for cell, _ in asked if cell.system == "unimodal_audio"]
    expected = []
    for fold in (0, 1):
        for target in ("valence", "arousal"):
            pair = [c.cell_id for c in members if (c.fold, c.target) == (fold, target)]
            predictions = [workspace.read_exactly(cell_id).predictions for cell_id in pair]
            mean = (predictions[0].prediction + predictions[1].prediction) / 2
            expected.append(float(ccc(mean[:, 0], predictions[0].label[:, 0], predictions[0].valid[:, 0])))
    assert scores[whole] == pytest.approx(np.mean(expected), abs=1e-6)
    singles = results.cells[(results.cells["variant"] == whole) & (results.cells["status"] == "done")]["ccc"]
    assert scores[whole] > singles.mean(), "noise of seeds averages out"
    assert ENSEMBLE in build_leaderboard(results, setting).extra
