"""Models that an earlier version logged still load and predict what their cells predicted."""

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import unpack_old_workspace


def test_models_that_an_earlier_version_saved_load_and_predict(tmp_path):
    from mlflow import pyfunc

    workspace = Workspace(unpack_old_workspace(tmp_path))
    saved = sorted((workspace.root / "mlflow-artifacts").glob("*/artifacts/model"))
    assert len(saved) == 7
    for folder in saved:
        assert "loader_module: crossfold.platform.edge.mlflow_model\n" in (folder / "MLmodel").read_text()
        model = pyfunc.load_model(str(folder))
        record = workspace.read_exactly(model.metadata.metadata["cell_id"])
        store = FeatureStore(workspace.find_store(record.cell.corpus))
        clip, said = record.predictions.clips[0], record.predictions
        rows = store.rows(clip)
        features = {m: np.array(store.features(m, record.cell.fold)[rows]) for m in store.modalities}
        predicted = model.predict(features)[said.frame[said.clip(clip)]]
        np.testing.assert_allclose(predicted, said.prediction[said.clip(clip)], atol=2e-6)
