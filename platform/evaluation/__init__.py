"""From trained weights to predictions, and from predictions to scores.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/training`, `fusion_models`,
`fusion_models/blocks`, `datasets/batches`, `datasets/store`.
Public: `pooled_ccc`, `processed`, `score`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"postprocessing": ["processed"], "scoring": ["pooled_ccc", "score"]}
)
