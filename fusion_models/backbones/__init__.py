"""Encoders of one frame or clip: raw pixels or a spectrogram in, a feature vector out.

May import: `platform/core`.
Public: `BACKBONES`, `Backbone`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"catalogue": ["BACKBONES", "Backbone"]})
