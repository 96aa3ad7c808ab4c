"""One cell from its start to its commit, and what it costs.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/training`, `platform/evaluation`,
`datasets/batches`, `datasets/store`.
Public: `attempt_cell`, `forecast`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"duration_forecast": ["forecast"], "run_cell": ["attempt_cell"]}
)
