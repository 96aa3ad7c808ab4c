"""Collects attention maps over the windows of a few clips, and reduces them to a readable size.

Legend: B batch, W frames of a window, L its indices (as many, or clips of several frames, A16), C cells of a map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.fusion_models.blocks.attention_maps import AttentionMap, maps_over_time
from crossfold.fusion_models.system import Notes
from crossfold.platform.evaluation.scoring import DAMAGE
from crossfold.platform.workspace.attention_maps import ClipMaps

WINDOWS = 10
"""Windows that a map spans: in all of a long clip, a window would be a speck on the diagonal."""
MOST_CELLS = 64
MOST_BYTES = 36_000
"""Of all maps of a cell, at two bytes a number that is one: systems with many maps keep coarser ones."""

_Key = tuple[str, str, str]


@dataclass
class _Grid:
    """The sums of one clip, whose frames begin at a row of the store."""

    clip: slice
    start: int
    stop: int
    sums: dict[_Key, np.ndarray] = field(default_factory=dict)
    counts: dict[_Key, np.ndarray] = field(default_factory=dict)


class MapCollector:
    """Lays the maps of overlapping windows on the diagonal of a clip and averages them."""

    def __init__(self, grids: Mapping[str, _Grid], frames: int) -> None:
        """`frames`: W."""
        self._window, self._grids = frames, grids

    @classmethod
    def of_store(cls, store: FeatureStore, clips: Sequence[str], frames: int) -> "MapCollector":
        """Of clips of a store; `frames`: W."""
        return cls({name: _grid(store, name, frames * WINDOWS) for name in clips}, frames)

    @classmethod
    def of_clip(cls, name: str, frames: int, window: int) -> "MapCollector":
        """Of one clip that is in no store, whose rows are its frames."""
        return cls({name: _Grid(slice(0, frames), 0, min(frames, window * WINDOWS))}, window)

    def wants(self, rows: np.ndarray) -> bool:
        """Whether any of the windows, rows int [B, W] of the store, lies in a clip that is kept."""
        return any(((rows[:, 0] >= g.clip.start) & (rows[:, 0] < g.clip.stop)).any() for g in self._grids.values())

    def add(self, rows: np.ndarray, real: np.ndarray, notes: Notes) -> None:
        """Adds the maps of a batch: rows int [B, W], real bool [B, W], and what the model noted."""
        found = maps_over_time(notes)
        if not found:
            return
        cells = self._cells(found)
        values = [(each, each.values.cpu().numpy()) for each in found]
        # An index of several frames stands where its first one does.
        each = rows.shape[1] // found[0].values.shape[1]
        for grid in self._grids.values():
            inside = np.flatnonzero((rows[:, 0] >= grid.clip.start) & (rows[:, 0] < grid.clip.stop))
            for b in inside:
                frame_L = rows[b, ::each] - grid.clip.start
                used_L = real[b, ::each] & (frame_L >= grid.start) & (frame_L < grid.stop)
                for map_, values_B in values:
                    _add(grid, map_, values_B[b], frame_L, used_L, min(cells, -(-(grid.stop - grid.start) // each)))

    def _cells(self, found: Sequence[AttentionMap]) -> int:
        """C, so that all maps of all clips stay within their bytes. Cells far from the diagonal are empty."""
        # Those over pairs of frames only: a map over one axis needs few bytes.
        pairs = {(each.kind, each.query, each.key) for each in found if each.values.ndim == 3}
        if not pairs:
            return MOST_CELLS
        filled = sum(min(1.0, 2 * self._window / (grid.stop - grid.start)) for grid in self._grids.values())
        return min(MOST_CELLS, int((MOST_BYTES / (2 * len(pairs) * filled)) ** 0.5))

    def maps(self) -> dict[str, ClipMaps]:
        """The means, float32, NaN where nothing was added; a system without maps over time has clips without maps."""
        found = {}
        for name, grid in self._grids.items():
            maps = {}
            for key in sorted(grid.sums):
                count = grid.counts[key]
                mean = grid.sums[key] / np.maximum(count, 1)
                maps[key] = np.where(count > 0, mean, np.nan).astype(np.float32)
            found[name] = ClipMaps(grid.start, grid.stop, maps)
        return found


def _add(grid: _Grid, map_: AttentionMap, values: np.ndarray, frame_L: np.ndarray, used_L: np.ndarray, c: int) -> None:
    if not used_L.any():
        return
    cell = (frame_L[used_L] - grid.start) * c // (grid.stop - grid.start)
    # Frames of a window stand in order, so those of a cell are neighbours.
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    axes = values.ndim
    block = values[np.ix_(*(used_L,) * axes)].astype(np.float64)
    for axis in range(axes):
        block = np.add.reduceat(block, first, axis=axis)
    frames = np.diff(first, append=len(cell))
    key = (map_.kind, map_.query, map_.key)
    at = np.ix_(*(cell[first],) * axes)
    grid.sums.setdefault(key, np.zeros((c,) * axes))[at] += block
    grid.counts.setdefault(key, np.zeros((c,) * axes))[at] += np.outer(frames, frames) if axes == 2 else frames


def _grid(store: FeatureStore, name: str, most: int) -> _Grid:
    """The stretch of a clip with the most frames known to be damaged; the first one where none are known."""
    rows = store.rows(name)
    frames = rows.stop - rows.start
    length = min(frames, most)
    damaged = np.zeros(frames, np.int64)
    spans = store.spans[(store.spans["clip"] == name) & store.spans["kind"].isin(DAMAGE)]
    for start, end in spans[["start", "end"]].to_numpy(int):
        damaged[start:end] = 1
    before = np.concatenate([[0], np.cumsum(damaged)])
    start = int(np.argmax(before[length:] - before[: frames - length + 1]))
    return _Grid(rows, start, start + length)
