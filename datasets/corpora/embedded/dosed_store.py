"""The feature store of a synthetic corpus with a dose: made in seconds wherever it is needed, from its name alone."""

import glob
import json
from pathlib import Path
from typing import Any

from crossfold.datasets.corpora.clips import VALENCE_AROUSAL
from crossfold.datasets.corpora.embedded.dose import SyntheticDose
from crossfold.datasets.corpora.embedded.episodes import GENERATOR, clip_infos, make_clip
from crossfold.datasets.corpora.partitions import Fold
from crossfold.datasets.store.feature_store import StoreSpec, write_store


def dosed_store(stores: Path, dose: SyntheticDose) -> Path:
    """The store of a corpus with this dose in the folder of stores; it is made where it is not there."""
    origin = _origin(dose)
    for manifest in sorted(stores.glob(f"{glob.escape(dose.corpus)}-*/manifest.json")):
        if manifest.parent.name.rpartition("-")[0] == dose.corpus and _read_origin(manifest) == origin:
            return manifest.parent
    stores.mkdir(parents=True, exist_ok=True)
    infos = clip_infos(dose)
    train, validation = (
        tuple(info.name for info in infos if info.partition == part) for part in ("train", "validation")
    )
    spec = StoreSpec(
        corpus=dose.corpus,
        layout="none: clips are made from the dose",
        targets=VALENCE_AROUSAL,
        clips=infos,
        origin=origin,
        folds=(Fold(0, train, validation),),
    )
    return write_store(stores, spec, lambda info: make_clip(dose, info))


def _origin(dose: SyntheticDose) -> dict[str, Any]:
    return {"features": "as given", "generator": GENERATOR, "dose": dose.model_dump(mode="json")}


def _read_origin(manifest: Path) -> Any:
    try:
        return json.loads(manifest.read_text(encoding="utf-8")).get("origin")
    except (OSError, ValueError):  # it is being written, or damaged: the store is made again
        return None
