"""What the training frames of a fold decide about its features, and the features that follow.

The light encoder has principal axes of them; spectrograms in decibels are standardised by them before a frozen
backbone gets them. Both use nothing of the clips that the fold reports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from crossfold.datasets.corpora.clips import UNLABELLED, MediaClip
from crossfold.datasets.corpora.partitions import Fold
from crossfold.datasets.store.array_file import write_array
from crossfold.datasets.store.feature_store import Normalisation
from crossfold.datasets.store.running_stats import Sums
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import whole_file
from crossfold.platform.features.extractors import Extractor
from crossfold.platform.features.pca_faces import LightEncoder, Moments, measure
from crossfold.platform.features.read_clip import ClipTask, clip_folder, network_of

Fitted = Callable[[int, int], None]
"""Called with how many clips were read, and how many there are."""


def fit_light(
    clips: Sequence[MediaClip], folds: Sequence[Fold], scratch: Path, stride: int, fitted: Fitted
) -> dict[int, LightEncoder]:
    """One encoder per fold, of the labelled faces of its training clips and of nothing else."""
    trains = {fold.index: frozenset(fold.train) for fold in folds}
    # Clips that train in the same folds are summed up once: six folds need no more than seven sums.
    sums: dict[frozenset[int], Moments] = {}
    for done, clip in enumerate(clips, start=1):
        member = frozenset(index for index, train in trains.items() if clip.info.name in train)
        if member:
            measures, present = stored(scratch, clip, "visual")
            labelled = (np.isfinite(clip.labels) & (clip.labels != UNLABELLED)).all(1)
            fitting = measured(measures[np.flatnonzero(present & labelled)[::stride]])
            sums[member] = sums.get(member, Moments.none()) + Moments.of(fitting)
        fitted(done, len(clips))
    return {index: LightEncoder.fit(moments for member, moments in sums.items() if index in member) for index in trains}


def fit_standards(
    clips: Sequence[MediaClip], folds: Sequence[Fold], scratch: Path, modality: str, fitted: Fitted
) -> dict[int, Normalisation]:
    """Statistics of each band, float32 [bands, 1], over each fold's training frames where the modality is present."""
    sums = {fold.index: Sums() for fold in folds}
    shape: tuple[int, ...] = ()
    for done, clip in enumerate(clips, start=1):
        array, present = stored(scratch, clip, modality)
        shape = array.shape[1:]
        # Read once and added to every fold that trains on it: reading is what takes time.
        own = Sums()
        own.add(array, present)
        for fold in folds:
            if clip.info.name in fold.train:
                sums[fold.index].merge(own)
        fitted(done, len(clips))
    return {index: Normalisation(*summed.mean_and_std(shape)) for index, summed in sums.items()}


@dataclass(frozen=True)
class FoldTask:
    """A clip that was read, to be encoded once per fold."""

    task: ClipTask
    extractor: Extractor
    standards: Mapping[int, Normalisation]

    @property
    def clip(self) -> MediaClip:
        """Which clip it is."""
        return self.task.clip

    @property
    def files(self) -> dict[int, Path]:
        """Where the features of each fold go."""
        folder = clip_folder(self.task.scratch, self.clip)
        return {index: folder / f"{self.extractor.modality}@{index}.npy" for index in self.standards}


def encode_folds(work: FoldTask) -> UserError | None:
    """Writes the features of each fold that are not there yet; each file appears whole or not at all."""
    array, present = stored(work.task.scratch, work.clip, work.extractor.modality)
    network = network_of(work.task, work.extractor)
    for index, path in work.files.items():
        if path.is_file():
            continue
        standard = work.standards[index]
        features = np.empty((len(array), network.backbone.width), np.float32)
        with threadpool_limits(1):
            for begin in range(0, len(array), network.batch):
                rows = slice(begin, begin + network.batch)
                features[rows] = network.encode(standardised_input(array[rows], present[rows], standard))
        features[~present] = 0
        with whole_file(path) as draft:
            write_array(draft, features)
    return None


def standardised_input(rows: np.ndarray, present: np.ndarray, standard: Normalisation) -> np.ndarray:
    """What a frozen backbone gets: standardised, zero where bool [n] `present` is false, in the stored type."""
    scaled = (rows - standard.mean) / standard.std
    scaled[~present] = 0
    # As `WindowSource` gives it to a backbone that is trained.
    typed: np.ndarray = scaled.astype(rows.dtype)
    return typed


def measured(visual: np.ndarray) -> np.ndarray:
    """What the scratch folder has for the light encoder, float32 [T, F]; versions before 0.2 left faces there."""
    return measure(visual) if visual.dtype == np.uint8 else visual


def stored(scratch: Path, clip: MediaClip, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """An array of a clip that was read, mapped, and bool [frames], where it is present."""
    folder = clip_folder(scratch, clip)
    return np.load(folder / f"{modality}.npy", mmap_mode="r"), np.load(folder / f"{modality}.present.npy")
