"""Arrays that are written row after row have the bytes of `np.save`, and a full disk is an error with its number."""

import errno
import io

import numpy as np
import pytest

from crossfold.datasets.store.array_file import ArrayFile, write_array
from crossfold.platform.core.files import whole_folder

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(6, 4),
    np.arange(36, dtype=np.uint8).reshape(6, 2, 3),
    np.linspace(0, 1, 12).astype(np.float16).reshape(6, 2),
    np.array([True, False, True]),
    np.zeros((3, 0), np.float32),
    np.zeros((0, 4), np.float32),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_the_bytes_are_those_of_numpy(tmp_path, array):
    held = io.BytesIO()
    np.save(held, np.ascontiguousarray(array))
    write_array(tmp_path / "whole.npy", array)
    with ArrayFile(tmp_path / "parts.npy", array.dtype, array.shape) as file:
        for begin in range(0, len(array), 2):
            file.append(array[begin : begin + 2])
    assert (tmp_path / "whole.npy").read_bytes() == held.getvalue()
    assert (tmp_path / "parts.npy").read_bytes() == held.getvalue()


def test_rows_are_converted_and_their_number_and_shape_are_checked(tmp_path):
    path = tmp_path / "a.npy"
    with ArrayFile(path, "float32", (2, 3)) as file:
        file.append(np.ones((2, 3)))
    assert np.load(path).dtype == np.float32
    with pytest.raises(ValueError, match="1 of 2 rows are missing"), ArrayFile(path, "float32", (2, 3)) as file:
        file.append(np.ones((1, 3)))
    for rows in (np.ones((3, 3)), np.ones((1, 1))):
        with pytest.raises(ValueError, match="do not fit"), ArrayFile(path, "float32", (2, 3)) as file:
            file.append(rows)


def test_a_full_disk_is_an_error_that_names_the_folder_and_no_signal(small_disk):
    """A memory map of 8 MiB on a disk of 4 MiB ends the process with SIGBUS."""
    with pytest.raises(OSError, match="No space left") as error, whole_folder(small_disk / "store") as folder:
        write_array(folder / "a.npy", np.ones((2**10, 2**11), np.float32))
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(small_disk / "store"))
    assert not list(small_disk.iterdir())
