"""Charts.

May import: `reports/results`, `reports/stats`, `platform/core`, `platform/workspace`, `datasets/corpora`,
`datasets/media`, `datasets/store`.
Public: `Figure`, `Panel`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"base": ["Figure", "Panel"]})
