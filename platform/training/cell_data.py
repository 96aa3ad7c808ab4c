"""What a cell trains on, is selected by and reports: the clips of its fold, cut into windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from crossfold.datasets.batches.source import BatchSpec, StoreArrays, WindowSource
from crossfold.datasets.batches.windows import Windows, cut, slide
from crossfold.datasets.corpora.partitions import Fold, hold_out, inner_fold
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.datasets.store.normalisation import statistics_of
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import DataError
from crossfold.platform.core.recipe import Clip
from crossfold.platform.modeling.emotion_model import EmotionModel, build_model, modalities_of, title_of
from crossfold.platform.modeling.inputs import check_inputs, input_widths, wanted_inputs


@dataclass(frozen=True)
class Split:
    """The clips that are scored together and the windows that cover them."""

    clips: tuple[str, ...]
    source: WindowSource


@dataclass(frozen=True)
class CellData:
    """The store of a cell and its three splits. `selection` and `reported` have the same clips as in the papers."""

    cell: Cell
    store: FeatureStore
    training: Split
    selection: Split
    reported: Split

    @property
    def system_title(self) -> str | None:
        """What reports call a system of a plug-in; None for one of Crossfold."""
        return title_of(self.cell)

    def new_model(self) -> EmotionModel:
        """The untrained model of the cell. Weights come from torch's current generator."""
        return build_model(self.cell, input_widths(self.cell.recipe, self.store, modalities_of(self.cell)))


def open_data(cell: Cell, store_path: Path, device: str) -> CellData:
    """Opens the store and cuts the windows. Raises `DataError` or `UserError` where a split cannot serve."""
    store = _open_store(store_path)
    check_inputs(cell.recipe, store, modalities_of(cell))
    fold, selecting = splits(cell, store)
    spec = batch_spec(cell, device)
    # Of the clips that are trained on: an inner fold has fewer than its outer one.
    statistics = {m: statistics_of(store, m, cell.fold, fold.train) for m in spec.modalities}
    # Shared by the three splits: a GPU holds one copy.
    arrays = StoreArrays.of(store, spec, statistics)
    training, selection, reported = (
        Split(clips, WindowSource(store, windows_of(cell, store, clips), spec, arrays))
        for clips in (fold.train, selecting, fold.validation)
    )
    _refuse_unlabelled(cell, store, {"train on": fold.train, "select by": selecting, "report": fold.validation})
    for split in (training, selection, reported):
        if len(split.source) == 0:
            raise DataError(
                f"fold {cell.fold}: no frame of a split has all of {', '.join(store.targets)}, and `invalid: drop` "
                "leaves out the rest",
                "use `invalid: mask`",
            )
    return CellData(cell, store, training, selection, reported)


def splits(cell: Cell, store: FeatureStore) -> tuple[Fold, tuple[str, ...]]:
    """The fold a cell trains on and reports, and the clips that pick its best epoch."""
    fold = store.fold(cell.fold)
    if cell.inner is not None:
        fold = inner_fold(store.clips, fold, cell.inner.index, cell.inner.of)
    if cell.recipe.selection == "held_out":
        return hold_out(store.clips, fold, cell.recipe.held_out)
    return fold, fold.validation


def batch_spec(cell: Cell, device: str = "cpu") -> BatchSpec:
    """What the batches of a cell hold."""
    modalities = modalities_of(cell)
    inputs = wanted_inputs(cell.recipe, modalities)
    # Where windows slide, an index is a frame: the last one of its clip.
    clip = cell.recipe.clip if cell.recipe.clip.predicts == "clip" else Clip()
    return BatchSpec(cell.fold, modalities, cell.targets, inputs, device, clip)


def windows_of(cell: Cell, store: FeatureStore, clips: Sequence[str]) -> Windows:
    """The windows of these clips as the recipe of a cell cuts them; each spans `window` x `clip.frames` frames."""
    recipe = cell.recipe
    if recipe.clip.predicts == "frame":
        return slide(store, clips, length=recipe.window, step=recipe.clip.frames, invalid=recipe.invalid)
    length, hop = recipe.window * recipe.clip.frames, recipe.hop * recipe.clip.frames
    return cut(store, clips, length=length, hop=hop, invalid=recipe.invalid)


def _refuse_unlabelled(cell: Cell, store: FeatureStore, roles: Mapping[str, tuple[str, ...]]) -> None:
    """Every target has a labelled frame in each split, or nothing is trained."""
    for role, clips in roles.items():
        for target in cell.targets:
            column = store.targets.index(target)
            if not any(store.valid[store.rows(name), column].any() for name in clips):
                raise DataError(
                    f"fold {cell.fold} has no labelled frame of {target} to {role} in {len(clips)} clips",
                    "check the labels",
                )


@lru_cache(maxsize=2)
def _open_store(path: Path) -> FeatureStore:
    """Stores never change, so a worker opens each once."""
    return FeatureStore(path)
