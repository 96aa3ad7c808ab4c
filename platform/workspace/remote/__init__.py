"""A workspace at a URL, and the folder on this machine that follows it.

May import: `platform/core`.
Public: `Mirror`, `RemoteFiles`, `is_url`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "filesystem": ["RemoteFiles", "is_url"],
        "mirror": ["Mirror"],
    },
)
