"""Reading of media files: video, sound, face crops, words; everything on the time axis of the video frames.

May import: `platform/core`.
Public: `VideoFacts`, `Word`, `log_mel`, `probe`, `read_sound`, `read_transcript`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "sound": ["log_mel", "read_sound"],
        "transcripts": ["Word", "read_transcript"],
        "video": ["VideoFacts", "probe"],
    },
)
