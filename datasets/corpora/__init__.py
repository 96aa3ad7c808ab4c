"""What a reader of a corpus delivers, and how it reports what is wrong with a data folder.

May import: `datasets/media`, `platform/core`.
Public: `CORPORA`, `ClipArrays`, `ClipInfo`, `Corpus`, `EMBEDDED`, `FeatureClip`, `Finding`, `Fold`, `Inspect`,
`Inspection`, `MediaClip`, `Severity`, `Span`, `Target`, `UNLABELLED`, `VALENCE_AROUSAL`, `find_reader`, `is_asked`,
`make_folds`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "clips": ["ClipArrays", "ClipInfo", "MediaClip", "Span", "Target", "UNLABELLED", "VALENCE_AROUSAL"],
        "findings": ["Finding", "Severity"],
        "partitions": ["Fold", "make_folds"],
        "registry": [
            "CORPORA",
            "Corpus",
            "EMBEDDED",
            "FeatureClip",
            "Inspect",
            "Inspection",
            "find_reader",
            "is_asked",
        ],
    },
)
