"""The encoders that folds fitted, as the arrays that a store keeps of them, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossfold.datasets.store.feature_store import Normalisation
from crossfold.datasets.store.fitted_arrays import FITTED
from crossfold.platform.features.pca_faces import LightEncoder


def light_arrays(encoders: Mapping[int, LightEncoder]) -> dict[str, np.ndarray]:
    """The light face encoder of each fold."""
    found: dict[str, np.ndarray] = {}
    for fold, encoder in encoders.items():
        found |= {f"visual@{fold}.mean": encoder.mean, f"visual@{fold}.axes": encoder.axes}
    return found


def standard_arrays(modality: str, standards: Mapping[int, Normalisation]) -> dict[str, np.ndarray]:
    """The statistics by which each fold standardises the input of a frozen backbone."""
    found: dict[str, np.ndarray] = {}
    for fold, standard in standards.items():
        found |= {f"{modality}@{fold}.mean": standard.mean, f"{modality}@{fold}.std": standard.std}
    return found


def fitted_of(arrays: Mapping[str, np.ndarray], modality: str, fold: int) -> LightEncoder | Normalisation | None:
    """What a fold fitted for a modality; None where the store keeps nothing of it."""
    prefix = f"{modality}@{fold}."
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if "axes" in own:
        return LightEncoder(own["mean"], own["axes"])
    return Normalisation(own["mean"], own["std"]) if own else None


def lacks_fitted(manifest: Mapping[str, Any]) -> bool:
    """Whether a store has features of fitted encoders, but was written by a version that did not keep these."""
    per_fold = any("all" not in entry["files"] for entry in manifest["modalities"].values())
    return per_fold and manifest["origin"].get("features") != "as given" and FITTED.stem not in manifest
