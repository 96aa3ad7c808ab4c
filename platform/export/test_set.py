"""Predictions of clips that no fold reports: the test part of a corpus, whose labels others hold (E13).

Every finished cell can predict them with the features of its own fold, so folds and seeds together are an ensemble.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.export.predictor import Predictor, write_deployment
from crossfold.platform.modeling.emotion_model import modalities_of
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.predictions import Predictions


def clips_of_test_part(store: FeatureStore) -> tuple[str, ...]:
    """Names of the clips of the test part. Raises `UserError` where the store has none."""
    names = tuple(clip.name for clip in store.clips if clip.partition == "test")
    if not names:
        raise UserError(
            f"store {store.path.name} has no clips of a test part",
            "prepare the corpus with them (Aff-Wild2: put the list ..._test_set_release.txt beside the annotations)",
        )
    return names


def predict_clips(record: CellRecord, store: FeatureStore, clips: Sequence[str]) -> Predictions:
    """What a finished cell predicts for every frame of these clips; labels as the store has them.

    Raises `UserError` for cells that read raw frames or predict whole clips of frames.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_deployment(record, store, Path(folder))
        predictor = Predictor.load(Path(folder))
    modalities, fold = modalities_of(record.cell), record.cell.fold
    predicted = []
    for name in clips:
        rows = store.rows(name)
        features = {m: np.asarray(store.features(m, fold)[rows]) for m in modalities}
        predicted.append(predictor.predict(features, {m: np.asarray(store.present(m)[rows]) for m in modalities}))
    lengths = [store.clip(name).frames for name in clips]
    columns = [store.targets.index(target) for target in record.cell.targets]
    labels = np.concatenate([np.asarray(store.labels[store.rows(name)]) for name in clips])
    return Predictions(
        clips=tuple(clips),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        frame=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        prediction=np.concatenate(predicted).astype(np.float32),
        label=labels[:, columns],
        valid=np.concatenate([np.asarray(store.valid[store.rows(name)]) for name in clips])[:, columns],
        targets=record.cell.targets,
    )
