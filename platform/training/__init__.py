"""One training loop, and the data of a cell.

May import: `platform/core`, `platform/modeling`, `datasets/batches`, `datasets/store`, `datasets/corpora`.
Public: `CellData`, `Split`, `Trained`, `loss_of`, `open_data`, `simulate`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cell_data": ["CellData", "Split", "open_data"],
        "losses": ["loss_of"],
        "lr_schedule": ["simulate"],
        "train": ["Trained"],
    },
)
