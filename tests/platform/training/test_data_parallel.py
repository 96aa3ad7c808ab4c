"""Two processes that share a cell give what one gives; what the first finds out, errors included, reaches the other."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.training.data_parallel import SINGLE_PROCESS, ProcessGroup
from tests.support.paths import environment

EXACT = {
    "loss__scope": "window",
    "temporal__dropout": 0.0,
    "head__dropout": 0.0,
    "epochs": 3,
    "batch": 7,
    "reload_best": True,
}
"""Dropout draws of its own in each process; without it the sums are the same."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory, synthetic_store, tiny_cell):
    """One launch of two processes for all tests: a cell that is stopped after epochs 1 and 2, and one that diverges."""
    from crossfold.platform.workspace.workspace import Workspace

    def workspace():
        made = Workspace(tmp_path_factory.mktemp("workspace"))
        made.paths.stores.mkdir()
        (made.paths.stores / synthetic_store.path.name).symlink_to(synthetic_store.path)
        return made

    cell = tiny_cell("hgrjca", targets=("valence", "arousal"), devices=2, **EXACT)
    bad = tiny_cell("rjca", devices=2, **(EXACT | {"optimizer__lr": 1e200, "optimizer__warmup_epochs": 0}))
    folder, two = tmp_path_factory.mktemp("two"), workspace()
    jobs = []
    for name, made, stops in (("cell", cell, "1,2,0"), ("bad", bad, "0")):
        (folder / f"{name}.json").write_text(made.model_dump_json())
        jobs.append(f"{folder / name}.json:{stops}")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.trials", str(rank), "2", str(folder / "meeting"), two.root, *jobs],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for rank in range(2)
    ]
    said = []
    try:
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            said.append(out.splitlines())
    finally:
        for process in started:
            process.kill()
    return cell, bad, two, workspace(), said


@pytest.fixture
def one_and_two(shared, in_double_precision):
    """The cell as one process gives it, and as two."""
    cell, _, two, workspace, _ = shared
    alone = cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"devices": 1})})
    assert attempt_cell(alone, workspace).status == "done"
    return workspace.read(alone.cell_id), two.read(cell.cell_id)


def test_two_processes_give_the_numbers_of_one(one_and_two):
    one, two = one_and_two
    for column in ("train_loss", "ccc_valence", "ccc_arousal", "learning_rate"):
        np.testing.assert_allclose(two.curve[column], one.curve[column], rtol=0, atol=1e-6, err_msg=column)
    np.testing.assert_allclose(two.predictions.prediction, one.predictions.prediction, rtol=0, atol=1e-6)
    assert two.result["selection"]["best_epoch"] == one.result["selection"]["best_epoch"]


def test_stopping_and_committing_is_the_business_of_the_first(shared):
    cell, _, two, _, said = shared
    assert [words[:3] for words in said] == [["cancelled", "cancelled", "done"]] * 2
    assert two.finished() == {cell.cell_id}
    assert sorted(path.name for path in two.paths.cell(cell.cell_id).iterdir()) == sorted(CELL_FILES)


def test_both_end_when_the_cell_diverges(shared):
    """Neither waits for the other; the failure is on record once."""
    _, bad, two, _, said = shared
    assert all("Diverged" in words[3] for words in said), said
    assert [failure.kind for failure in two.failures_of(bad.cell_id)] == ["diverged"]


def test_shares_of_a_batch_are_all_of_it():
    chosen = np.arange(11)
    shards = [ProcessGroup(rank, 3).shard(chosen) for rank in range(3)]
    assert sorted(np.concatenate(shards).tolist()) == chosen.tolist()
    assert [len(shard) for shard in shards] == [4, 4, 3]
    assert len(ProcessGroup(2, 3).shard(np.arange(2))) == 0


def test_alone_nothing_changes():
    weight = torch.nn.Parameter(torch.ones(2))
    SINGLE_PROCESS.sum_gradients([weight], 1)
    assert weight.grad is None
    assert SINGLE_PROCESS.first
    assert float(SINGLE_PROCESS.total(torch.tensor(3.0))) == 3.0
    assert SINGLE_PROCESS.broadcast(lambda: "said") == "said"
    with pytest.raises(KeyError):
        SINGLE_PROCESS.broadcast(lambda: {}["nothing"])


def test_a_shared_cell_is_not_run_by_one_process_unasked(workspace, tiny_cell):
    outcome = attempt_cell(tiny_cell("concat", devices=2, **EXACT), workspace)
    assert outcome.failure.kind == "data"
    assert "over 2 devices, and 1 run it" in outcome.failure.message
