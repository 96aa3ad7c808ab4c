"""One cell from beginning to end: what it may look at, what it writes, and how trouble is classed."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load as from_safetensors

from crossfold.datasets.batches.source import WindowSource
from crossfold.platform.core.cell import Inner
from crossfold.platform.core.errors import Cancelled, DataError, Diverged, UserError
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.metrics import Moments, ccc, ccc_of
from crossfold.platform.core.outcome import FailureClass, Silent
from crossfold.platform.evaluation.predict import forward_pass
from crossfold.platform.evaluation.scoring import pooled_ccc, score
from crossfold.platform.execution import run_cell as trial
from crossfold.platform.execution.run_cell import attempt_cell, classify
from crossfold.platform.modeling.emotion_model import build_model
from crossfold.platform.training.cell_data import open_data, splits
from crossfold.platform.workspace.predictions import Predictions
from tests.support.factories import make_store


def out_of_memory():
    torch.empty(2**50)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Diverged("x"), FailureClass.DIVERGED),
        (MemoryError(), FailureClass.OOM),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureClass.OOM),
        (DataError("x"), FailureClass.DATA),
        (UserError("x"), FailureClass.DATA),
        (OSError("disk gone"), FailureClass.INFRA),
        (ConnectionError(), FailureClass.INFRA),
        (ValueError("x"), FailureClass.CODE),
        (KeyError("x"), FailureClass.CODE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureClass.CODE),
        (ZeroDivisionError(), FailureClass.CODE),
    ],
    ids=repr,
)
def test_classes_of_trouble(error, kind):
    assert classify(error) == kind


def test_memory_that_the_cpu_does_not_have_is_oom():
    """torch says RuntimeError here; another try on a larger or emptier machine is worth it."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert classify(caught.value) == FailureClass.OOM


def test_a_finished_cell(workspace, tiny_cell, synthetic_store):
    cell = tiny_cell("ca+dca", targets=("valence", "arousal"))
    outcome = attempt_cell(cell, workspace, attempt=3)
    assert outcome.status == "done"
    assert outcome.failure is None
    record = workspace.read(cell.cell_id)
    assert sorted(path.name for path in record.path.iterdir()) == sorted(CELL_FILES)
    assert record.cell == cell
    assert record.env["attempt"] == 3
    assert record.env["versions"]["torch"] == torch.__version__.split("+")[0]
    result = record.result
    assert result["status"] == "done"
    assert result["selection"]["epochs"] == len(record.curve) == 2
    assert list(record.curve.columns) == ["epoch", "learning_rate", "train_loss", "ccc_valence", "ccc_arousal"]
    best = record.curve.iloc[result["selection"]["best_epoch"] - 1]
    assert result["selection"]["best_ccc"] == pytest.approx((best.ccc_valence + best.ccc_arousal) / 2, abs=1e-12)
    assert not workspace.paths.scratch(cell.cell_id).exists()
    assert record.predictions.clips == synthetic_store.fold(0).validation


def test_predictions_and_result_agree(workspace, tiny_cell, synthetic_store):
    cell = tiny_cell("jca", targets=("valence", "arousal"), fold=1)
    assert attempt_cell(cell, workspace).status == "done"
    record = workspace.read(cell.cell_id)
    predictions = record.predictions
    assert record.result["metrics"].keys() == {"valence", "arousal"}
    for t, target in enumerate(cell.targets):
        metrics = record.result["metrics"][target]
        columns = predictions.prediction[:, t], predictions.label[:, t], predictions.valid[:, t]
        assert metrics["ccc"] == pytest.approx(float(ccc(*columns)), rel=1e-12)
        assert metrics["ccc"] == pytest.approx(
            record.curve[f"ccc_{target}"][record.result["selection"]["best_epoch"] - 1]
        )
        assert metrics["frames"] == predictions.valid[:, t].sum()
        x, y = (column[columns[2]].astype(np.float64) for column in columns[:2])
        assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), rel=1e-9)
        assert metrics["pcc"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-6)
        videos = {name: Moments(*values) for name, values in record.result["videos"][target].items()}
        pooled = sum(videos.values(), Moments(0, 0.0, 0.0, 0.0, 0.0, 0.0))
        assert ccc_of(pooled) == pytest.approx(metrics["ccc"], rel=1e-9), "the moments of videos merge to the headline"
        assert metrics["ccc_video_mean"] == pytest.approx(np.mean([ccc_of(m) for m in videos.values()]), rel=1e-12)
    rows = np.concatenate([np.r_[synthetic_store.rows(name)] for name in predictions.clips])
    np.testing.assert_array_equal(predictions.label, synthetic_store.labels[rows])
    labelled = synthetic_store.valid[rows].all(1)  # `drop`: both labels or neither
    np.testing.assert_array_equal(predictions.valid, np.stack([labelled, labelled], axis=1))


def test_the_weights_of_a_cell_give_its_predictions_again(workspace, tiny_cell, synthetic_store):
    cell = tiny_cell("rjca+dca", targets=("arousal",), epochs=3)
    assert attempt_cell(cell, workspace).status == "done"
    record = workspace.read(cell.cell_id)
    model = build_model(cell, {m: synthetic_store.width(m) for m in ("audio", "visual")})
    model.load_state_dict(from_safetensors((record.path / "best.safetensors").read_bytes()))
    assert sum(p.numel() for p in model.parameters()) == record.result["model"]["parameters"]
    smaller = cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"batch": 5})})
    data = open_data(smaller, synthetic_store.path, "cpu")
    again = forward_pass(model, data, data.reported).predictions
    np.testing.assert_allclose(again.prediction, record.predictions.prediction, rtol=1e-5, atol=1e-6)
    assert pooled_ccc(again)["arousal"] == pytest.approx(record.result["metrics"]["arousal"]["ccc"], abs=1e-5)


def folds_of(store):
    return range(len(store.folds))


def test_inner_cells_never_see_the_reported_clips(synthetic_store, tiny_cell):
    for fold in folds_of(synthetic_store):
        outer = synthetic_store.fold(fold)
        for selection in ("reported", "held_out"):
            reported_by = []
            for index in range(2):
                cell = tiny_cell("concat", fold=fold, inner=Inner(index=index, of=2), selection=selection)
                inner, selecting = splits(cell, synthetic_store)
                touched = {*inner.train, *inner.validation, *selecting}
                assert touched <= set(outer.train)
                assert not touched & set(outer.validation)
                assert not set(inner.train) & set(inner.validation)
                assert not set(inner.train) & set(selecting)
                reported_by += inner.validation
            assert sorted(reported_by) == sorted(outer.train), "each training clip is reported by one inner fold"


def test_held_out_selection_leaves_the_reported_split_alone(synthetic_store, tiny_cell):
    for fold in folds_of(synthetic_store):
        outer = synthetic_store.fold(fold)
        inside, selecting = splits(tiny_cell("concat", fold=fold, selection="held_out"), synthetic_store)
        assert inside.validation == outer.validation
        assert selecting
        assert not set(selecting) & set(outer.validation)
        assert sorted([*inside.train, *selecting]) == sorted(outer.train)
        shown, selecting = splits(tiny_cell("concat", fold=fold), synthetic_store)
        assert shown == outer
        assert selecting == outer.validation


@pytest.mark.parametrize("selection", ["reported", "held_out"])
@pytest.mark.parametrize("inner", [None, Inner(index=1, of=2)], ids=["outer", "inner"])
def test_a_run_reads_windows_of_its_own_clips_only(
    workspace, tiny_cell, synthetic_store, monkeypatch, selection, inner
):
    """Not by what `splits` says but by what is gathered: every row of the store that a run ever reads."""
    read = set()
    gather = WindowSource.batch

    def batch(self, chosen):
        read.update(self.windows.rows[chosen].ravel().tolist())
        return gather(self, chosen)

    monkeypatch.setattr(WindowSource, "batch", batch)
    scored = []
    report = trial.train

    def train(*arguments):
        trained = report(*arguments)
        scored.append(set(read))
        return trained

    monkeypatch.setattr(trial, "train", train)
    cell = tiny_cell("concat", inner=inner, selection=selection)
    assert attempt_cell(cell, workspace).status == "done"

    def rows_of(clips):
        return {row for name in clips for row in range(*synthetic_store.rows(name).indices(10**9))}

    reported = rows_of(synthetic_store.fold(0).validation)
    if inner is not None:
        assert not read & reported
    elif selection == "held_out":
        assert not scored[0] & reported, "training and the choice of an epoch read no reported frame"
        assert read & reported
    assert workspace.read(cell.cell_id).predictions.clips == splits(cell, synthetic_store)[0].validation


def test_a_cancelled_cell_is_no_failure(workspace, tiny_cell):
    class Stop:
        def epoch(self, cell_id, report):
            raise Cancelled

    assert attempt_cell(tiny_cell(), workspace, reporter=Stop()).status == "cancelled"
    assert workspace.failures_of() == []
    assert workspace.finished() == set()


def test_a_reporter_that_breaks_is_a_failure_with_its_traceback(workspace, tiny_cell):
    class Broken:
        def epoch(self, cell_id, report):
            raise RuntimeError("the reporter fell over")

    outcome = attempt_cell(tiny_cell(), workspace, reporter=Broken(), attempt=2)
    assert outcome.status == "failed"
    failure = outcome.failure
    assert failure.kind == FailureClass.CODE
    assert failure.attempt == 2
    assert failure.message == "RuntimeError: the reporter fell over"
    assert "def epoch" in failure.log_tail or "in epoch" in failure.log_tail
    assert len(failure.log_tail) <= trial.LOG_TAIL
    assert failure.label == tiny_cell().label
    assert workspace.failures_of(tiny_cell().cell_id) == [failure]


def test_a_store_that_is_not_there_is_data(workspace, tiny_cell):
    cell = tiny_cell().model_copy(update={"store": "0" * 16})
    outcome = attempt_cell(cell, workspace)
    assert outcome.failure.kind == FailureClass.DATA
    assert "is not a feature store" in outcome.failure.message


def test_a_fold_that_is_not_there_is_data(workspace, tiny_cell):
    outcome = attempt_cell(tiny_cell(fold=40), workspace)
    assert outcome.failure.kind == FailureClass.DATA
    assert "fold 40" in outcome.failure.message


def test_finished_twice_keeps_the_first(workspace, tiny_cell):
    cell = tiny_cell()
    trial.run_cell(cell, workspace, reporter=Silent(), attempt=1, device="cpu")
    trial.run_cell(cell, workspace, reporter=Silent(), attempt=2, device="cpu")
    assert workspace.read(cell.cell_id).env["attempt"] == 1


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory):
    """Two people in one validation video, one of them without labels of arousal; one clip without any label."""
    rng = np.random.default_rng(0)

    def clip(name, partition, **more):
        labels = rng.uniform(-1, 1, (40, 2))
        features = {"audio": rng.standard_normal((40, 3)), "visual": rng.standard_normal((40, 3))}
        return {"name": name, "partition": partition, "features": features, "labels": labels, **more}

    clips = [clip(f"t{i}", "train") for i in range(3)]
    clips += [clip("v_left", "validation", video="v"), clip("v_right", "validation", video="v")]
    clips += [clip("w", "validation")]
    clips[4]["labels"][:, 1] = -5
    clips[5]["labels"][:] = -5
    return make_store(tmp_path_factory.mktemp("odd") / "stores", clips)


def test_clips_of_one_video_count_as_one(odd_store):
    rng = np.random.default_rng(1)
    clips = ("v_left", "v_right", "w")
    rows = np.concatenate([np.r_[odd_store.rows(name)] for name in clips])
    predictions = Predictions(
        clips=clips,
        offsets=np.array([0, 40, 80, 120]),
        frame=np.tile(np.arange(40, dtype=np.int32), 3),
        prediction=rng.standard_normal((120, 2)).astype(np.float32),
        label=np.asarray(odd_store.labels[rows]),
        valid=np.asarray(odd_store.valid[rows]),
        targets=("valence", "arousal"),
    )
    made = score(predictions, odd_store)
    assert list(made["videos"]["valence"]) == ["v"], "a video without a labelled frame has no score"
    assert made["videos"]["valence"]["v"][0] == 80
    assert made["videos"]["arousal"]["v"][0] == 40
    assert made["metrics"]["arousal"]["frames"] == 40
    x, y = predictions.prediction[:80, 0], predictions.label[:80, 0]
    assert made["metrics"]["valence"]["ccc"] == pytest.approx(float(ccc(x, y, np.ones(80, bool))), rel=1e-9)
    assert made["metrics"]["valence"]["ccc_video_mean"] == pytest.approx(made["metrics"]["valence"]["ccc"], rel=1e-9)
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize("invalid", ["drop", "mask"])
def test_unlabelled_clips_take_no_part(odd_store, new_workspace, tiny_cell, invalid):
    workspace = new_workspace(odd_store.path)
    cell = tiny_cell("ca", store=odd_store, invalid=invalid)
    outcome = attempt_cell(cell, workspace)
    assert outcome.status == "done", outcome.failure
    record = workspace.read(cell.cell_id)
    # `drop` needs both labels of a frame, so only v_left is left; `mask` also keeps the valence of v_right.
    assert record.result["metrics"]["valence"]["frames"] == (40 if invalid == "drop" else 80)
    assert set(record.predictions.clips) == {"v_left", "v_right", "w"}
    assert not record.predictions.valid[record.predictions.clip("w")].any()


@pytest.mark.parametrize("invalid", ["drop", "mask"])
@pytest.mark.parametrize("silent", ["train", "validation"])
def test_a_fold_without_labels_is_refused_as_data(tmp_path_factory, new_workspace, tiny_cell, invalid, silent):
    rng = np.random.default_rng(0)
    clips = []
    for name, partition in [("a", "train"), ("b", "train"), ("v", "validation")]:
        labels = np.full((30, 2), -5.0) if partition == silent else rng.uniform(-1, 1, (30, 2))
        features = {"audio": rng.standard_normal((30, 3)), "visual": rng.standard_normal((30, 3))}
        clips.append({"name": name, "partition": partition, "labels": labels, "features": features})
    store = make_store(tmp_path_factory.mktemp("silent") / "stores", clips)
    outcome = attempt_cell(tiny_cell("ca", store=store, invalid=invalid), new_workspace(store.path))
    assert outcome.status == "failed"
    assert outcome.failure.kind == FailureClass.DATA, outcome.failure.message
    assert "no labelled frame" in outcome.failure.message


def test_a_modality_the_store_lacks_is_refused_as_data(tmp_path_factory, new_workspace, tiny_cell):
    rng = np.random.default_rng(0)
    clips = [
        {"name": n, "partition": p, "labels": rng.uniform(-1, 1, (30, 2)), "features": {"audio": rng.random((30, 3))}}
        for n, p in [("a", "train"), ("v", "validation")]
    ]
    store = make_store(tmp_path_factory.mktemp("mute") / "stores", clips)
    outcome = attempt_cell(tiny_cell("ca", store=store), new_workspace(store.path))
    assert outcome.failure.kind == FailureClass.DATA, outcome.failure.message


def test_the_cost_of_a_window_is_counted_but_not_that_of_lstms(workspace, tiny_cell, synthetic_store):
    """A frame-wise map costs twice its weights a frame; `concat` with linear encoders and heads is nothing else."""
    linear = {"temporal__kind": "none", "head__layers": 0}
    counted = {}
    for system, changes in {"concat": linear, "rjca": linear, "lstm": linear}.items():
        cell = tiny_cell(system, **changes)
        assert attempt_cell(cell, workspace).status == "done"
        counted[system] = workspace.read(cell.cell_id).result["model"]["flops_per_window"]
        if system == "concat":
            model = build_model(cell, {m: synthetic_store.width(m) for m in ("audio", "visual")})
            matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
            assert counted[system] == 2 * matrices * cell.recipe.window
    assert counted["rjca"] > counted["concat"]
    assert counted["lstm"] is None
