"""Mean and standard deviation of more frames than fit into memory."""

import numpy as np

CHUNK_ROWS = 1024
"""Rows of raw input that are in memory at a time."""


class Sums:
    """Running sums over frames, from which mean and standard deviation follow: float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.squares: np.ndarray | float = 0.0

    def add(self, array: np.ndarray, present: np.ndarray) -> None:
        """Frames [T, width], or spectrograms [T, bands, columns], where bool [T] `present`."""
        if array.ndim == 2:
            self._add(np.asarray(array, np.float64)[present])
            return
        for begin in range(0, len(array), CHUNK_ROWS):
            seen = np.asarray(array[begin : begin + CHUNK_ROWS])[present[begin : begin + CHUNK_ROWS]]
            self._add(np.moveaxis(seen.astype(np.float64), 1, -1).reshape(-1, array.shape[1]))

    def merge(self, other: "Sums") -> None:
        """Adds what another summed up."""
        self.count += other.count
        # Not in place: a sum that starts as 0.0 would otherwise become the other's array.
        self.total = self.total + other.total
        self.squares = self.squares + other.squares

    def _add(self, seen: np.ndarray) -> None:
        self.count += len(seen)
        self.total += seen.sum(0)
        self.squares += (seen**2).sum(0)

    def mean_and_std(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """float32 each, [width] or [bands, 1]; what never varies keeps its scale."""
        flat = np.zeros(shape[0])
        mean = flat + self.total / max(self.count, 1)
        std = np.sqrt(np.maximum((flat + self.squares) / max(self.count, 1) - mean**2, 0))
        std[std < 1e-6] = 1.0  # a constant column
        wide = shape[:1] + (1,) * (len(shape) - 1)
        return mean.astype(np.float32).reshape(wide), std.astype(np.float32).reshape(wide)
