"""From a store to batches: windows, raw clips, features in GPU memory, damaged frames. The only package
of `datasets` with torch.

May import: `datasets/store`, `platform/core`.
Public: `Batch`, `BatchSpec`, `DamagedFrames`, `Stitcher`, `WindowSource`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corruptions": ["DamagedFrames"],
        "source": ["Batch", "BatchSpec", "WindowSource"],
        "windows": ["Stitcher"],
    },
)
