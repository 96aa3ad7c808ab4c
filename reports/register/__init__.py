"""The register: what papers and public code leave open or contradict, and what Crossfold does there.

May import: `platform/core`.
Public: `CODE`, `find_entry`, `register`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"entries": ["CODE", "find_entry", "register"]}
)
