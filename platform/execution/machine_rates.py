"""The best that this machine does: the rate of a matrix product and of copies, which a share of the limit refers to.

Legend: M rows of a square matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from crossfold.platform.core.recipe import Optimizer

TURNS = 10
"""Of each measurement; the fastest counts, since others on the machine can only lengthen it."""
SQUARE = 1024
"""M of the product that shows the rate of products."""
COPIED = 2**26
"""Bytes of the copy that shows the rate of copies; caches are smaller."""


@dataclass(frozen=True)
class MachineRates:
    """The best that was measured here, on the present threads and in one precision."""

    products: float
    """FLOP/s of a matrix product, M x M by M x M."""
    copies: float
    """Bytes/s, read and written ones together, of a copy or of a change in place, whichever moves more."""


def machine_rates(clock: Callable[[], float], *, narrow: bool = False) -> MachineRates:
    """Measures for about a second by `clock`, which gives seconds; products are in bfloat16 where `narrow`."""
    dtype = torch.bfloat16 if narrow else torch.float32
    a_MM, b_MM = (torch.randn(SQUARE, SQUARE).to(dtype) for _ in range(2))
    out_MM = torch.empty_like(a_MM)
    source, target = (torch.zeros(COPIED // 4) for _ in range(2))

    def fastest(work: Callable[[], object]) -> float:
        times = []
        for _ in range(TURNS):
            began = clock()
            work()
            times.append(clock() - began)
        return min(times)

    products = 2 * SQUARE**3 / fastest(lambda: torch.mm(a_MM, b_MM, out=out_MM))
    # A copy fetches the memory that it writes over, too; a change in place, as an optimiser makes it, does not.
    moved = min(fastest(lambda: target.copy_(source)), fastest(lambda: target.neg_()))
    return MachineRates(products, 2 * COPIED / moved)


def optimiser_bytes(params: Optimizer, weights: int) -> int:
    """Bytes that a step of the optimiser reads and writes: weights, gradients, and what is kept with each, float32."""
    if params.kind != "sgd":
        return 7 * 4 * weights  # weight, gradient and both moments are read, and all but the gradient are written
    return (5 if params.momentum else 3) * 4 * weights
