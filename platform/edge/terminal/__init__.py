"""What is printed: tables, progress, status.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/features`, `platform/training`,
`platform/scheduling`, `fusion_models`, `fusion_models/backbones`, `sweeps`.
Public: `emit`, `out`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "console": ["emit", "out"],
    },
)
