"""Predictions of clips that no fold reports: the test part of a corpus, whose labels others hold (E13).

Every finished cell can predict them with the features of its own fold, so folds and seeds together are an ensemble.
"""

from collections.abc import Sequence

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.evaluation.predict import predictions_of
from crossfold.platform.export.predictor import Predictor
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.predictions import Predictions


def clips_of_test_part(store: FeatureStore) -> tuple[str, ...]:
    """Names of the clips of the test part. Raises `UserError` where the store has none."""
    names = tuple(clip.name for clip in store.clips if clip.partition == "test")
    if not names:
        raise UserError(
            f"store {store.path.name} has no clips of a test part",
            "prepare the corpus with them (Aff-Wild2: put the list ..._test_set_release.txt next to the annotations)",
        )
    return names


def predict_clips(record: CellRecord, store: FeatureStore, clips: Sequence[str]) -> Predictions:
    """What a finished cell predicts for every frame of these clips; labels as the store has them.

    Raises `UserError` for cells that read raw frames or predict whole clips of frames.
    """
    predictor, fold, predicted = Predictor.of(record, store), record.cell.fold, []
    for name in clips:
        rows = store.rows(name)
        features = {m: np.asarray(store.features(m, fold)[rows]) for m in predictor.inputs}
        predicted.append(predictor.predict(features, {m: np.asarray(store.present(m)[rows]) for m in features}))
    return predictions_of(store, clips, record.cell.targets, np.concatenate(predicted).astype(np.float32))
