"""Gains against the dose of corpora with one: shares of the possible, slopes, and where errors are.

May import: `reports/figures`, `reports/results`, `reports/stats`, `reports/tables`, `platform/core`,
`platform/workspace`, `datasets/corpora`, `datasets/corpora/embedded`, `datasets/store`.
Public: `DoseSection`, `dose_section`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"section": ["DoseSection", "dose_section"]})
