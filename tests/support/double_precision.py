"""Training and scoring in double precision, in a test or in a process that a test starts."""

import torch

from crossfold.datasets.batches.windows import WindowSource


def compute_in_double(patch):
    """`patch(object, name, value)` widens what is gathered from a store; weights follow torch's default type."""
    gathered = WindowSource._tensor

    def widened(source, array):
        tensor = gathered(source, array)
        return tensor.double() if tensor.is_floating_point() else tensor

    patch(WindowSource, "_tensor", widened)
    torch.set_default_dtype(torch.float64)
