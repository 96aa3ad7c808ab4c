"""Seeds that say what they may depend on.

No seed depends on the name of the system. Systems are compared on the same batches, and functions that are identical
start from the same weights and drop the same units, so that pairs of cells differ by their systems alone.
"""

import hashlib
from collections.abc import Mapping, Sequence

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.hashing import canonical_json


def seed_for(purpose: str, **facts: object) -> int:
    """63 bits that depend on the purpose and the named facts, and on nothing else."""
    text = canonical_json({"purpose": purpose, **facts})
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def batch_seed(cell: Cell, epoch: int) -> int:
    """Order of the windows in an epoch: shared by all systems and targets of a fold and seed."""
    return seed_for("batches", store=cell.store, fold=cell.fold, seed=cell.seed, epoch=epoch)


def weight_seed(cell: Cell, role: str, shapes: Mapping[str, Sequence[int]]) -> int:
    """Initial weights of one part of the model: shared by all systems of a fold, target and seed that have this part.

    role: its place in the model, such as `fusion.attend.blocks.0.fc`; shapes: of its parameters, by name.
    """
    facts = {"fold": cell.fold, "target": cell.target, "seed": cell.seed}
    return seed_for("weights", role=role, shapes={name: list(shape) for name, shape in shapes.items()}, **facts)


def crop_seed(cell: Cell, epoch: int, window: int) -> int:
    """Random crop and flip of a window in an epoch: shared by all systems and targets of a fold and seed."""
    return seed_for("crop", store=cell.store, fold=cell.fold, seed=cell.seed, epoch=epoch, window=window)


def modality_dropout_seed(cell: Cell, epoch: int) -> int:
    """Modalities that windows lose in an epoch: shared by all systems and targets of a fold and seed."""
    facts = {"store": cell.store, "fold": cell.fold, "seed": cell.seed}
    return seed_for("modality dropout", **facts, epoch=epoch)


def dropout_seed(cell: Cell, epoch: int = 0, rank: int = 0) -> int:
    """Dropout, from the first epoch on: shared by all systems of a fold, target and seed.

    epoch, rank: of a process that shares a cell with others, and begins each epoch anew.
    """
    return seed_for("dropout", fold=cell.fold, target=cell.target, seed=cell.seed, epoch=epoch, rank=rank)
