"""A finished cell, taken out of its workspace, predicts what it predicted inside; also through MLflow."""

import numpy as np
import pandas as pd
import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.export.predictor import Predictor, why_not_deployable, write_deployment


@pytest.fixture(params=["reported", "held_out"])
def finished(workspace, tiny_cell, request):
    """A cell that keeps unlabelled frames, so that its windows cover every frame of a clip."""
    cell = tiny_cell("rjca+dca", targets=("valence", "arousal"))
    changes = {"invalid": "mask", "selection": request.param}
    cell = cell.model_copy(update={"recipe": cell.recipe.model_copy(update=changes)})
    assert attempt_cell(cell, workspace).status == "done"
    return workspace.read(cell.cell_id)


def clip_of(store, record, name):
    """Features and presence of one clip, and what the cell said of it."""
    rows = store.rows(name)
    features = {m: np.array(store.features(m, record.cell.fold)[rows]) for m in store.modalities}
    present = {m: np.array(store.present(m)[rows]) for m in store.modalities}
    return features, present, record.predictions.prediction[record.predictions.clip(name)]


def test_a_deployed_cell_says_what_it_said_in_its_workspace(finished, synthetic_store, tmp_path):
    write_deployment(finished, synthetic_store, tmp_path / "out")
    predictor = Predictor.load(tmp_path / "out")
    for name in finished.predictions.clips:
        features, present, said = clip_of(synthetic_store, finished, name)
        np.testing.assert_allclose(predictor.predict(features, present), said, atol=2e-6)


def test_a_clip_shorter_than_a_window_is_predicted_frame_by_frame(finished, synthetic_store, tmp_path):
    write_deployment(finished, synthetic_store, tmp_path)
    features, present, _ = clip_of(synthetic_store, finished, finished.predictions.clips[0])
    short = {m: values[:3] for m, values in features.items()}
    found = Predictor.load(tmp_path).predict(short, {m: seen[:3] for m, seen in present.items()})
    assert found.shape == (3, 2)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.pop("audio"), "needs audio"),
        (lambda f: f.update(visual=f["visual"][:, :-1]), "visual has shape"),
        (lambda f: f.update(visual=f["visual"][:-1]), "modalities of"),
        (lambda f: f.update(vidual=f["visual"]), "unknown modality 'vidual'"),
        (lambda f: f.update(audio=f["audio"][:0]), "audio has shape"),
    ],
)
def test_wrong_features_are_named(finished, synthetic_store, tmp_path, damage, words):
    write_deployment(finished, synthetic_store, tmp_path)
    features, _, _ = clip_of(synthetic_store, finished, finished.predictions.clips[0])
    damage(features)
    with pytest.raises(UserError, match=words):
        Predictor.load(tmp_path).predict(features)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="holds no deployed cell"):
        Predictor.load(tmp_path)


def test_cells_on_raw_frames_or_clips_say_why_not(finished):
    recipe = finished.cell.recipe
    raw = finished.cell.model_copy(update={"recipe": recipe.model_copy(update={"backbones": {"visual": "resnet50"}})})
    assert "raw frames" in why_not_deployable(raw)
    clips = recipe.model_copy(update={"clip": recipe.clip.model_copy(update={"frames": 16})})
    assert "clips" in why_not_deployable(finished.cell.model_copy(update={"recipe": clips}))
    assert why_not_deployable(finished.cell) is None


def test_mlflow_loads_the_model_of_a_run_and_it_predicts(finished, workspace, synthetic_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import pyfunc

    from crossfold.platform.edge.tracking.sync import sync
    from crossfold.platform.edge.tracking.writer import RunWriter

    assert sync(workspace).created == 1
    writer = RunWriter(workspace)
    writer.prepare()
    run = writer.find_runs()[finished.cell_id]
    # Not `set_tracking_uri`: it would outlive this test in the environment.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.paths.mlflow_uri)
    model = pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    features, _, _ = clip_of(synthetic_store, finished, finished.predictions.clips[0])
    by_name = model.predict(features)
    columns = {f"{m}_{i}": values[:, i] for m, values in features.items() for i in range(values.shape[1])}
    np.testing.assert_array_equal(model.predict(pd.DataFrame(columns)), by_name)
    assert by_name.shape == (len(features["audio"]), 2)
    with pytest.raises(UserError, match="lacks 1 columns"):
        model.predict(pd.DataFrame(columns).drop(columns="audio_0"))
