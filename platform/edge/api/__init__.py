"""The Python interface, `import crossfold as cf`: train, load, sweep, prepare and report from a script or a notebook.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/features`, `platform/export`,
`platform/scheduling`, `platform/edge/launch`, `platform/edge/tracking`, `datasets/corpora/embedded`, `datasets/store`,
`sweeps`, `reports`, `reports/results`.
Public: `Workspace`, `TrainedCell`, `load`, `power`, `prepare`, `report`, `sweep`, `train`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpora": ["prepare"],
        "training": ["sweep", "train"],
        "trained_cell": ["TrainedCell", "load"],
        "workspace": ["Workspace", "power", "report"],
    },
)
