"""Mean and standard deviation over the clips that a cell really trains on, and no others (D7)."""

from functools import lru_cache

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore, Normalisation
from crossfold.datasets.store.running_stats import Sums


def statistics_of(store: FeatureStore, modality: str, fold: int, trained: tuple[str, ...]) -> Normalisation | None:
    """Statistics over these clips: those of the fold where they are all its training clips, else computed once.

    An inner fold, or a part that is held out to pick the epoch, trains on fewer clips than the outer fold; statistics
    of the others would leak into it. None for raw input that is used as it is.
    """
    stored = store.normalisation(modality, fold)
    if stored is None or set(trained) == set(store.fold(fold).train):
        return stored
    return _computed(store, modality, fold, tuple(sorted(trained)))


@lru_cache(maxsize=64)  # the cells of a fold train on the same clips
def _computed(store: FeatureStore, modality: str, fold: int, trained: tuple[str, ...]) -> Normalisation:
    sums = Sums()
    features, present = store.features(modality, fold), store.present(modality)
    for name in trained:
        rows = store.rows(name)
        sums.add(features[rows], np.asarray(present[rows]))
    return Normalisation(*sums.mean_and_std(store.frame_shape(modality)))
