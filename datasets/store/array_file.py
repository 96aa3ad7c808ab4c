"""Writes a `.npy` file row after row, in the bytes of `np.save`.

A memory map would end the whole process with SIGBUS where the disk is full, since the file has holes until its pages
are written; and `np.save` reports a full disk without its error number.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np


class ArrayFile:
    """A file of `rows` rows that is written from its first row to its last. A context manager, or call `close`."""

    def __init__(self, path: Path, dtype: np.dtype | type | str, shape: Sequence[int]) -> None:
        """shape: (rows, *shape of a row)."""
        self.dtype = np.dtype(dtype)
        self.shape = tuple(shape)
        self._left = self.shape[0]
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """rows: [n, *shape of a row], converted to the type of the file. Raises `OSError` where the disk is full."""
        if rows.shape[1:] != self.shape[1:] or len(rows) > self._left:
            raise ValueError(f"rows of shape {rows.shape} do not fit: {self._left} of {self.shape} are left")
        self._left -= len(rows)
        if math.prod(rows.shape):
            self._file.write(np.ascontiguousarray(rows, self.dtype).data)

    def close(self) -> None:
        """Raises `ValueError` where rows are missing, and `OSError` where the disk is full."""
        self._file.close()
        if self._left:
            raise ValueError(f"{self._left} of {self.shape[0]} rows are missing")

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._left = 0
            self._file.close()


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a whole array [N, ...], as `np.save` does. Raises `OSError` with its number where the disk is full."""
    with ArrayFile(path, array.dtype, array.shape) as file:
        file.append(array)
