"""A recipe becomes a torch module with weights.

May import: `platform/core`, `platform/workspace`, `fusion_models`, `fusion_models/blocks`, `fusion_models/backbones`,
`datasets/store`, `datasets/media`.
Public: `EmotionModel`, `FrameEncoder`, `build_model`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"emotion_model": ["EmotionModel", "build_model"], "frame_encoder": ["FrameEncoder"]}
)
