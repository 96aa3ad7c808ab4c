"""Windows as a recipe wants them: of frames, or of clips of several frames that share one prediction (A16).

Legend: W windows, B batch, L indices of a window, F frames of a clip, T targets.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from crossfold.datasets.batches.gpu_source import Resident, ResidentSource
from crossfold.datasets.batches.windows import Batch, Frames, Windows, WindowSource, cut
from crossfold.datasets.store.feature_store import FeatureStore, Normalisation
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.recipe import Clip


class Source(Protocol):
    """Gathers batches of windows. `windows` covers frames of the store, whatever an index stands for."""

    windows: Windows

    def __len__(self) -> int: ...

    def batch(self, chosen: np.ndarray) -> Batch:
        """The windows of these indices, int [B]."""
        ...

    def with_frames(self, modality: str, frames: Frames, present: np.ndarray) -> "Source":
        """The same windows with other content of one modality."""
        ...

    def with_statistics(self, statistics: Mapping[str, Normalisation | None]) -> "Source":
        """The same windows, normalised by other statistics than those of the fold."""
        ...


class ClipSource:
    """Windows whose indices are clips: x and y of L indices, `windows` of L x F frames."""

    def __init__(
        self,
        store: FeatureStore,
        windows: Windows,
        clip: Clip,
        *,
        fold: int,
        modalities: Sequence[str],
        targets: Sequence[str],
        device: str = "cpu",
        inputs: Mapping[str, str] | None = None,
        resident: Resident | None = None,
    ) -> None:
        """`windows`: of L x F frames each; `resident`: see `window_source`."""
        self.windows = windows
        self._clip = clip
        shown = windows if clip.feature == "mean" else _one_frame(windows, clip)
        where: _Where = {"fold": fold, "targets": targets, "device": device, "resident": resident}
        self._labels = _gathered(store, windows, modalities=(), inputs=None, **where)
        self._inputs = _gathered(store, shown, modalities=modalities, inputs=inputs, **where)

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, chosen: np.ndarray) -> Batch:
        """The windows of these indices, int [B]: x : B x L x D, y and valid : B x L x T, real : B x L."""
        labels, inputs = self._labels.batch(chosen), self._inputs.batch(chosen)
        x = inputs.x
        if self._clip.feature == "mean":
            weight_BLF = _folded(inputs.real, self._clip.frames)
            x = {m: _mean(_folded(values, self._clip.frames), weight_BLF) for m, values in x.items()}
        valid_BLFT = _folded(labels.valid, self._clip.frames)
        y, valid = _targets(_folded(labels.y, self._clip.frames), valid_BLFT, self._clip)
        return Batch(x=x, y=y, valid=valid, real=_folded(labels.real, self._clip.frames).any(dim=2))

    def with_frames(self, modality: str, frames: Frames, present: np.ndarray) -> "ClipSource":
        """The same windows with other content of one modality, as `WindowSource.with_frames`."""
        other = copy.copy(self)
        other._inputs = self._inputs.with_frames(modality, frames, present)
        return other

    def with_statistics(self, statistics: Mapping[str, Normalisation | None]) -> "ClipSource":
        """The same windows, normalised by other statistics, as `WindowSource.with_statistics`."""
        other = copy.copy(self)
        other._inputs = self._inputs.with_statistics(statistics)
        return other


def window_source(
    cell: Cell,
    store: FeatureStore,
    clips: tuple[str, ...],
    modalities: Sequence[str],
    *,
    device: str = "cpu",
    inputs: Mapping[str, str] | None = None,
    resident: Resident | None = None,
) -> Source:
    """The windows of some clips of the store, as the recipe of a cell cuts and labels them.

    resident: what of the store lies on the device already, for the fold, the modalities and the targets of the cell.
    """
    recipe = cell.recipe
    frames = recipe.clip.frames
    windows = cut(store, clips, length=recipe.window * frames, hop=recipe.hop * frames, invalid=recipe.invalid)
    where: _Where = {"fold": cell.fold, "targets": cell.targets, "device": device, "resident": resident}
    if frames == 1:
        return _gathered(store, windows, modalities=modalities, inputs=inputs, **where)
    return ClipSource(store, windows, recipe.clip, modalities=modalities, inputs=inputs, **where)


class _Where(TypedDict):
    fold: int
    targets: Sequence[str]
    device: str
    resident: Resident | None


def _gathered(
    store: FeatureStore,
    windows: Windows,
    *,
    fold: int,
    modalities: Sequence[str],
    targets: Sequence[str],
    device: str,
    inputs: Mapping[str, str] | None,
    resident: Resident | None,
) -> Source:
    """Windows of frames, gathered on the device where the store lies there."""
    if resident is None:
        return WindowSource(
            store, windows, fold=fold, modalities=modalities, targets=targets, device=device, inputs=inputs
        )
    return ResidentSource(
        store, windows, fold=fold, modalities=modalities, targets=targets, resident=resident, inputs=inputs
    )


def _one_frame(windows: Windows, clip: Clip) -> Windows:
    """One frame a clip: the last or the middle one of those that are real."""
    rows_WLF = windows.rows.reshape(len(windows), -1, clip.frames)
    count_WL = windows.real.reshape(rows_WLF.shape).sum(axis=2)
    last_WL = np.maximum(count_WL - 1, 0)
    chosen_WL = last_WL if clip.feature == "last" else last_WL // 2
    rows = np.take_along_axis(rows_WLF, chosen_WL[..., None], axis=2)[..., 0]
    return Windows(rows, count_WL > 0)


def _folded(values: Tensor, frames: int) -> Tensor:
    """B x L x F x ... of B x (L F) x ..."""
    return values.reshape(len(values), -1, frames, *values.shape[2:])


def _mean(values_BLFx: Tensor, weight_BLF: Tensor) -> Tensor:
    """Mean over the real frames of a clip; zero where there is none."""
    weight = weight_BLF.reshape(*weight_BLF.shape, *(1,) * (values_BLFx.ndim - weight_BLF.ndim)).to(values_BLFx.dtype)
    mean: Tensor = (values_BLFx * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1)
    return mean


def _targets(y_BLFT: Tensor, valid_BLFT: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
    """The label of a clip (D9): the mean of its labelled frames, or that of its last one."""
    if clip.label == "mean":
        return _mean(y_BLFT, valid_BLFT), valid_BLFT.any(dim=2)
    # The last frame with a label: a clip cut off by the end of a video is shorter.
    place_F = torch.arange(1, clip.frames + 1, device=y_BLFT.device).reshape(1, 1, -1, 1)
    last_BLT = (place_F * valid_BLFT).argmax(dim=2)
    return y_BLFT.gather(2, last_BLT.unsqueeze(2)).squeeze(2), valid_BLFT.any(dim=2)
