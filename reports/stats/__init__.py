"""Intervals, tests, and how numbers are written.

May import: `platform/core`.
Public: `Gain`, `Interval`, `number`, `paired_gain`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"intervals": ["Gain", "Interval", "paired_gain"], "formatting": ["number"]}
)
