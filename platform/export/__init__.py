"""What leaves a finished cell: a predictor, ABAW files, tables of predictions, backbones.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/features`, `platform/training`,
`platform/evaluation`, `fusion_models`, `datasets/batches`, `datasets/media`, `datasets/store`, `datasets/corpora`.
Public: `Predictor`, `write_abaw`, `write_deployment`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"abaw": ["write_abaw"], "predictor": ["Predictor", "write_deployment"]}
)
