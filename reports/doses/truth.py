"""What is known of the reported clips of a corpus with a dose: labels, what is planted, and what observers say."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import Span
from crossfold.datasets.corpora.embedded.ceilings import OBSERVERS, Observer, best_predictions, regimes_of, shown_of
from crossfold.datasets.corpora.embedded.dose import Dose, SyntheticDose
from crossfold.datasets.corpora.embedded.episodes import SENSES
from crossfold.datasets.corpora.embedded.estimated_ceilings import estimated_predictions
from crossfold.datasets.corpora.embedded.switching_fit import LEAST_CLIPS, ObservedClip
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.metrics import moments
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.results.model import Setting

EXACT, ESTIMATED = "exact", "estimated"
GOOD = "good"
Said = Mapping[Observer, Mapping[str, np.ndarray]]
"""Observer -> clip -> its prediction [frames, targets]."""
Squares = Mapping[str, np.ndarray]
"""Kind of frame -> squared errors and squared labels of each clip, summed: float64 [clips, 2]."""


@dataclass(frozen=True)
class Truth:
    """What is known of the validation clips of one fold."""

    labels: Mapping[str, np.ndarray]
    """By clip, [frames, targets]; not a number where there is none."""
    kinds: Mapping[str, np.ndarray]
    """By clip, what is planted at each frame: good, missing, corrupted, conflict or complementary."""
    said: Said
    """Empty where there is no ceiling."""
    targets: tuple[str, ...]
    origin: str
    """Where the ceilings are from: `EXACT`, `ESTIMATED`, or why there is none."""

    @classmethod
    def of(cls, dose: Dose, store: FeatureStore, fold: int) -> "Truth":
        """The observers are asked for every clip; what is estimated takes seconds, once for a store in a process."""
        clips = store.fold(fold).validation
        labels = {clip: _labels(store, clip) for clip in clips}
        kinds = {clip: _kinds(store, clip) for clip in clips}
        if isinstance(dose, SyntheticDose):
            return cls(labels, kinds, _exact(dose, store), store.targets, EXACT)
        said, origin = _estimated(store.path, store.content_hash, fold)
        return cls(labels, kinds, said, store.targets, origin)

    def videos(self, observer: Observer, target: str) -> dict[str, list[float]]:
        """Clip -> the six moments of (prediction, label) in the form of `result.json`."""
        at = self.targets.index(target)
        of_clips = {
            clip: moments(self.said[observer][clip][:, at], of[:, at], ~np.isnan(of[:, at]))
            for clip, of in self.labels.items()
        }
        return {clip: [float(x) for x in astuple(of)] for clip, of in of_clips.items()}

    def errors(self, said: Mapping[str, np.ndarray], columns: Sequence[int]) -> Squares:
        """Sums over the labelled frames and the targets of each clip, by kind of frame."""
        found: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(said), 2)))
        for row, (clip, predicted) in enumerate(said.items()):
            labels = self.labels[clip][:, columns]
            off = predicted[:, columns] - labels
            for kind in np.unique(self.kinds[clip]):
                at = self.kinds[clip] == kind
                found[str(kind)][row] += [float(np.nansum(off[at] ** 2)), float(np.nansum(labels[at] ** 2))]
        return dict(found)


def find_truth(workspace: Workspace, setting: Setting, dose: Dose, folds: Sequence[int]) -> tuple[Truth | None, str]:
    """What is known of the clips of a setting, and where its ceilings are from, or why there is none.

    folds: of the finished cells. A synthetic store is made if need be.
    """
    if len(folds) > 1:
        return None, "no ceiling: it is estimated of one fold, and several ran"
    try:
        store = FeatureStore(workspace.local_store(setting.corpus, setting.store))
    except (UserError, DataError) as error:
        if isinstance(dose, SyntheticDose):
            raise
        return None, f"no ceiling: {error.problem}"
    truth = Truth.of(dose, store, folds[0])
    return truth, truth.origin


def _labels(store: FeatureStore, clip: str) -> np.ndarray:
    rows = store.rows(clip)
    labels: np.ndarray = np.where(store.valid[rows], np.asarray(store.labels[rows], np.float64), np.nan)
    return labels


def _spans(store: FeatureStore, clip: str) -> list[Span]:
    spans = store.spans[store.spans["clip"] == clip]
    return [Span(*row) for row in spans[["start", "end", "kind", "modality"]].itertuples(index=False, name=None)]


def _kinds(store: FeatureStore, clip: str) -> np.ndarray:
    found = np.full(store.clip(clip).frames, GOOD, dtype="<U16")
    for span in _spans(store, clip):
        found[span.start : span.end] = span.kind
    return found


def _exact(dose: SyntheticDose, store: FeatureStore) -> Said:
    regimes = {clip: regimes_of(_spans(store, clip), store.clip(clip).frames) for clip in store.fold(0).validation}
    made = [shown_of({m: store.features(m, 0)[store.rows(clip)] for m in SENSES}, of) for clip, of in regimes.items()]
    return {observer: dict(zip(regimes, best_predictions(dose, made, observer), strict=True)) for observer in OBSERVERS}


@lru_cache(maxsize=16)
def _estimated(path: Path, content_hash: str, fold: int) -> tuple[Said, str]:
    """What observers say of the validation clips of a store of this hash; or nothing, and why."""
    store = FeatureStore(path)
    lacking = [m for m in SENSES if m not in store.modalities or store.input_kind(m) is not None]
    if lacking:
        return {}, f"no ceiling: it is estimated from features of audio and visual, and {lacking[0]} has none"
    of = store.fold(fold)
    if len(of.train) < LEAST_CLIPS:
        return (
            {},
            f"no ceiling: {LEAST_CLIPS} training clips are needed to estimate it, and fold {fold} has {len(of.train)}",
        )
    train, reported = ([_observed(store, clip, fold) for clip in clips] for clips in (of.train, of.validation))
    try:
        said = estimated_predictions(train, reported)
    except np.linalg.LinAlgError:
        return {}, "no ceiling: features or labels of the training clips vary too little to estimate it"
    return {observer: dict(zip(of.validation, each, strict=True)) for observer, each in said.items()}, ESTIMATED


def _observed(store: FeatureStore, clip: str, fold: int) -> ObservedClip:
    rows = store.rows(clip)
    features = {}
    for modality in SENSES:
        x, scale = np.asarray(store.features(modality, fold)[rows], np.float64), store.normalisation(modality, fold)
        features[modality] = x if scale is None else (x - scale.mean) / np.maximum(scale.std, 1e-6)
    present = {modality: np.asarray(store.present(modality)[rows]) for modality in SENSES}
    return ObservedClip(features, present, _labels(store, clip), _spans(store, clip))
