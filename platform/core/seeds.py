"""Seeds that say what they may depend on.

The order of batches never depends on the system, so that systems are compared on the same batches.
"""

import hashlib

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.hashing import canonical_json


def seed_for(purpose: str, **facts: object) -> int:
    """63 bits that depend on the purpose and the named facts, and on nothing else."""
    text = canonical_json({"purpose": purpose, **facts})
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def batch_seed(cell: Cell, epoch: int) -> int:
    """Order of the windows in an epoch: shared by all systems and targets of a fold and seed."""
    return seed_for("batches", store=cell.store, fold=cell.fold, seed=cell.seed, epoch=epoch)


def weight_seed(cell: Cell) -> int:
    """Initial weights and dropout: own per system, fold, target and seed."""
    return seed_for(
        "weights", system=cell.system, params=cell.params, fold=cell.fold, target=cell.target, seed=cell.seed
    )


def crop_seed(cell: Cell, epoch: int, window: int) -> int:
    """Random crop and flip of a window in an epoch: shared by all systems and targets of a fold and seed."""
    return seed_for("crop", store=cell.store, fold=cell.fold, seed=cell.seed, epoch=epoch, window=window)


def dropout_seed(cell: Cell, epoch: int, rank: int) -> int:
    """Dropout of one epoch in a process that shares a cell with others."""
    return seed_for("dropout", weights=weight_seed(cell), epoch=epoch, rank=rank)
