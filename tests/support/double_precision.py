"""Training and scoring in double precision, in a test or in a process that a test starts."""

import torch

from crossfold.datasets.batches.source import Batch, WindowSource


def compute_in_double(patch):
    """`patch(object, name, value)` widens what is gathered from a store; weights follow torch's default type."""
    gathered = WindowSource.batch

    def widened(source, chosen):
        batch = gathered(source, chosen)
        x = {m: values.double() if values.is_floating_point() else values for m, values in batch.x.items()}
        return Batch(x=x, y=batch.y.double(), valid=batch.valid, real=batch.real)

    patch(WindowSource, "batch", widened)
    torch.set_default_dtype(torch.float64)
