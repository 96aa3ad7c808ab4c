"""The vocabulary: what a cell, an outcome and a recipe are; errors, registry, seeds, metrics, and the names and
writing of files.

May import: nothing of ours.
Public: `Cell`, `DataError`, `EpochReport`, `Failure`, `FailureClass`, `Inner`, `MODALITIES`, `Outcome`, `PROTOCOL`,
`Recipe`, `Registry`, `FrozenModel`, `UserError`, `ccc`, `load_plugin`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base_model": ["FrozenModel"],
        "cell": ["Cell", "Inner", "MODALITIES", "PROTOCOL"],
        "errors": ["DataError", "UserError"],
        "metrics": ["ccc"],
        "outcome": ["EpochReport", "Failure", "FailureClass", "Outcome"],
        "recipe": ["Recipe"],
        "registry": ["Registry", "load_plugin"],
    },
)
