"""The command line: one file for each group of commands, and the only place that ends the process.

May import: everything.
Public: `main`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["main"],
    },
)
