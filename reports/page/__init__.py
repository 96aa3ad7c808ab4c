"""One HTML file that opens offline.

May import: `reports/doses`, `reports/figures`, `reports/tables`, `reports/results`, `reports/stats`,
`platform/core`, `platform/workspace`, `datasets/store`.
Public: `Page`, `make_page`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"compose": ["Page", "make_page"]})
