"""Means of predictions, the folds that are chosen, and finished cells scored in another way."""

import json
from types import SimpleNamespace

import pytest

from crossfold.platform.core.cell import pair_key
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.evaluation_config import CHAINS, SUITES, Evaluation
from crossfold.platform.core.metrics import ccc
from crossfold.platform.evaluation.ensembles import best_folds, mean_of, save_seed_ensembles
from crossfold.platform.evaluation.evaluate import rescore
from crossfold.platform.evaluation.scoring import to_rescore
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.modeling.emotion_model import stored_narrow


@pytest.fixture
def three_seeds(workspace, tiny_cell):
    """A workspace with one system on two folds, and three seeds on the first."""
    cells = [tiny_cell("concat", fold=fold, seed=seed) for fold, seed in ((0, 0), (0, 1), (0, 2), (1, 0))]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    return workspace, cells


def saved(workspace):
    return [json.loads(path.read_text()) for path in save_seed_ensembles(workspace)]


def test_seeds_of_one_fold_are_averaged(three_seeds):
    workspace, cells = three_seeds
    (found,) = saved(workspace)
    assert found["members"] == [cell.cell_id for cell in cells[:3]]
    assert found["seeds"] == [0, 1, 2]
    records = [workspace.read_exactly(cell.cell_id) for cell in cells[:3]]
    mean = sum(record.predictions.prediction.astype(float) for record in records) / 3
    one = records[0].predictions
    expected = float(ccc(mean[:, 0], one.label[:, 0].astype(float), one.valid[:, 0]))
    assert found["metrics"]["valence"]["ccc"] == pytest.approx(expected, abs=1e-6)
    assert found["metrics"]["valence"]["frames"] == records[0].result["metrics"]["valence"]["frames"]
    assert found["videos"]["valence"].keys() == records[0].result["videos"]["valence"].keys()


def test_a_score_is_kept_and_read_again(three_seeds):
    workspace, cells = three_seeds
    (first,) = saved(workspace)
    (path,) = workspace.paths.ensembles.glob("*.json")
    kept = json.loads(path.read_text())
    assert (kept["system"], kept["fold"], kept["over"]) == ("concat", 0, "seed")
    for cell in cells:
        (workspace.paths.cell(cell.cell_id) / "predictions.npz").unlink()
    (again,) = saved(workspace)
    assert again == first


def test_a_member_that_ran_again_makes_a_new_score(three_seeds):
    workspace, cells = three_seeds
    (first,) = saved(workspace)
    path = workspace.paths.cell(cells[0].cell_id) / "result.json"
    result = json.loads(path.read_text())
    result["metrics"]["valence"]["ccc"] += 0.01
    path.write_text(json.dumps(result))
    (again,) = saved(workspace)
    assert again["metrics"] == first["metrics"]
    assert len(list(workspace.paths.ensembles.glob("*.json"))) == 2


def test_what_was_rescored_goes_when_the_cell_runs_again(workspace, tiny_cell):
    cell = tiny_cell("concat")
    assert attempt_cell(cell, workspace).status == "done"
    path = rescore(cell.cell_id, OTHER, workspace)
    aside = workspace.move_aside(cell.cell_id)
    workspace.restore(cell.cell_id, aside)
    assert path.is_file(), "the re-run did not finish: the old result and all that was said of it stay"
    aside = workspace.move_aside(cell.cell_id)
    assert attempt_cell(cell, workspace).status == "done"
    workspace.restore(cell.cell_id, aside)
    assert not path.exists()


def test_folds_that_report_different_clips_have_no_mean(three_seeds):
    workspace, cells = three_seeds
    with pytest.raises(UserError, match="different clips"):
        mean_of([workspace.read_exactly(cell.cell_id).predictions for cell in (cells[0], cells[3])])
    with pytest.raises(UserError, match="no predictions"):
        mean_of([])


def record(fold, value):
    return SimpleNamespace(cell=SimpleNamespace(fold=fold), result={"selection": {"best_ccc": value}})


def test_best_folds_by_their_mean_with_ties_by_index():
    cells = [record(0, 0.4), record(1, 0.9), record(1, 0.1), record(2, 0.5), record(3, 0.5), record(4, 0.45)]
    assert best_folds(cells, 1) == (1,)
    assert best_folds(cells, 3) == (1, 2, 3), "fold 1 ties with 2 and 3 at 0.5"
    assert best_folds(cells, 5) == (0, 1, 2, 3, 4)
    for count in (0, 6):
        with pytest.raises(UserError, match="folds"):
            best_folds(cells, count)


OTHER = Evaluation(post=CHAINS["ca2021"], stress=SUITES["quick"])


def test_rescoring_is_what_training_would_have_written(workspace, new_workspace, tiny_cell):
    cell = tiny_cell("rjca+dca")
    assert attempt_cell(cell, workspace).status == "done"
    committed = (workspace.paths.cell(cell.cell_id) / "result.json").read_bytes()
    path = rescore(cell.cell_id, OTHER, workspace)
    assert (workspace.paths.cell(cell.cell_id) / "result.json").read_bytes() == committed
    assert path == workspace.paths.rescored / OTHER.key / f"{cell.cell_id}.json"

    there = new_workspace()
    otherwise = tiny_cell("rjca+dca", post="ca2021", stress="quick")
    assert otherwise.cell_id == cell.cell_id
    assert attempt_cell(otherwise, there).status == "done"
    trained, again = there.read(cell.cell_id).result, json.loads(path.read_text())
    for part in ("post", "stress", "spans", "gates"):
        assert again[part] == trained[part], part
    assert again["evaluation"] == OTHER.model_dump(mode="json")


def test_rescoring_again_writes_nothing_and_reads_nothing(workspace, tiny_cell):
    cell = tiny_cell("concat")
    assert attempt_cell(cell, workspace).status == "done"
    path = rescore(cell.cell_id, OTHER, workspace)
    before = path.stat().st_mtime_ns
    (workspace.paths.cell(cell.cell_id) / "best.safetensors").unlink()
    assert rescore(cell.cell_id, OTHER, workspace).stat().st_mtime_ns == before


def test_who_needs_rescoring(workspace, tiny_cell):
    done, same, missing = (
        tiny_cell("concat"),
        tiny_cell("concat", seed=1, post="ca2021", stress="quick"),
        tiny_cell("ca"),
    )
    for cell in (done, same):
        assert attempt_cell(cell, workspace).status == "done"
    cells = [done, same, missing]
    assert list(to_rescore(cells, OTHER, workspace)) == [done]
    rescore(done.cell_id, OTHER, workspace)
    assert list(to_rescore(cells, OTHER, workspace)) == []
    assert list(to_rescore(cells, done.recipe.evaluation, workspace)) == [same]
    record = workspace.read(done.cell_id)
    ways = list(workspace.evaluations(record))
    assert [way["evaluation"]["post"]["steps"] == [] for way in ways] == [True, False]
    assert ways[1]["post"]["columns"].keys() == {"train", "oracle"}


def test_weights_that_are_not_those_of_the_predictions_are_refused(workspace, tiny_cell):
    cells = [tiny_cell("concat", seed=seed) for seed in (0, 1)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    first, second = (workspace.paths.cell(cell.cell_id) / "best.safetensors" for cell in cells)
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="predict other values"):
        rescore(cells[0].cell_id, OTHER, workspace)
    assert not workspace.paths.rescored.exists()


def test_only_cells_of_bf16_from_before_may_predict_a_little_else(tiny_cell):
    """Since then their revision is above that of the system, and what they stored was predicted in float32."""
    before = tiny_cell("concat", precision="bf16")
    since = before.model_copy(update={"revision": before.revision + 1})
    cells = (before, since, tiny_cell("concat"))
    assert [stored_narrow(cell) for cell in cells] == [True, False, False]


def test_the_two_selections_of_a_cell_are_a_pair(tiny_cell):
    pair = [tiny_cell("ca", selection=selection) for selection in ("reported", "held_out")]
    assert pair[0].cell_id != pair[1].cell_id
    assert pair_key(pair[0]) == pair_key(pair[1])
    others = [tiny_cell("ca", seed=1), tiny_cell("jca"), tiny_cell("ca", epochs=3), tiny_cell("ca", fold=1)]
    assert len({pair_key(cell) for cell in (pair[0], *others)}) == 5
