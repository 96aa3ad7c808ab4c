"""A workspace as tidy tables.

May import: `reports/stats`, `platform/core`, `platform/workspace`.
Public: `Results`, `Setting`, `load_results`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"load": ["load_results"], "model": ["Results", "Setting"]}
)
