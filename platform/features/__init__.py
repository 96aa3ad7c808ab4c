"""`prepare`: from the clips of a corpus to a feature store.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `fusion_models/backbones`, `datasets/corpora`,
`datasets/corpora/manifest`, `datasets/media`, `datasets/store`.
Public: `FeaturePlan`, `extractors`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"extractors": ["FeaturePlan", "extractors"]})
