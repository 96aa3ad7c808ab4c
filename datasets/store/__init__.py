"""The feature store on disk: memory-mapped features, labels, masks and folds under a content hash.

May import: `datasets/corpora`, `platform/core`.
Public: `FeatureStore`, `INPUT_KINDS`, `Normalisation`, `StoreSpec`, `verify_store`, `write_store`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "feature_store": ["FeatureStore", "Normalisation", "StoreSpec", "verify_store", "write_store"],
        "input_kinds": ["INPUT_KINDS"],
    },
)
