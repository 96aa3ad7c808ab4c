"""What a reader of a corpus delivers, and how it reports what is wrong with a data folder.

May import: `datasets/media`, `platform/core`.
Public: `CORPORA`, `ClipArrays`, `ClipInfo`, `Corpus`, `FeatureClip`, `Finding`, `Fold`, `Inspection`, `MediaClip`,
`Severity`, `Span`, `Target`, `find_reader`, `make_folds`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "clips": ["ClipArrays", "ClipInfo", "MediaClip", "Span", "Target"],
        "findings": ["Finding", "Severity"],
        "partitions": ["Fold", "make_folds"],
        "registry": ["CORPORA", "Corpus", "FeatureClip", "Inspection", "find_reader"],
    },
)
