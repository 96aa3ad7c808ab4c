"""The folder that holds the truth: stores, cells, failures, launches; each cell whole or not at all.

May import: `platform/core`, `platform/workspace/remote`, `datasets/corpora/embedded`, `datasets/store`.
Public: `CellRecord`, `Predictions`, `Workspace`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cell_record": ["CellRecord"],
        "predictions": ["Predictions"],
        "workspace": ["Workspace"],
    },
)
