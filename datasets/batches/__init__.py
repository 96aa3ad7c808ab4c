"""From a store to batches: windows, raw clips, features in GPU memory, damaged frames. The only room of `datasets`
with torch.

May import: `datasets/store`, `platform/core`.
Public: `Batch`, `DamagedFrames`, `Source`, `Stitcher`, `window_source`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "clip_source": ["Source", "window_source"],
        "corruptions": ["DamagedFrames"],
        "windows": ["Batch", "Stitcher"],
    },
)
