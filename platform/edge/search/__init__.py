"""Ray Tune and Optuna: a search over the parameters of a system.

May import: `platform/core`, `platform/workspace`, `platform/scheduling`, `platform/edge/fleet`,
`platform/edge/tracking`, `datasets/store`, `sweeps`.
Public: `Study`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "study": ["Study"],
    },
)
