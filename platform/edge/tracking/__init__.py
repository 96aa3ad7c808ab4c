"""MLflow, a mirror of the workspace.

May import: `platform/core`, `platform/workspace`, `platform/features`, `platform/export`, `datasets/store`, `sweeps`.
Public: `MlflowTracker`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "tracker": ["MlflowTracker"],
    },
)
