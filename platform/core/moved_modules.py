"""Modules under the names by which plug-ins knew them before they moved (commit ed74c6d and earlier).

A plug-in is a file of its author: it cannot be rewritten from here, and the names that it imports are part of what we
promise. `load_plugin` installs these aliases first; nothing of ours imports an old name. An import of one works, and
warns with the new place. Modules that became a folder (`datasets/corpora`) keep their names through the folder's
front door, and what MLflow wrote into saved models has a module of its own (`platform/edge/mlflow_model.py`).
"""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_CORPORA = "crossfold.datasets.corpora"
_CORE = "crossfold.platform.core"
MOVED: dict[str, tuple[str, ...]] = {
    "crossfold.datasets.clips": (f"{_CORPORA}.clips",),
    "crossfold.datasets.corpus_files": (f"{_CORPORA}.discovery",),
    "crossfold.datasets.inputs": ("crossfold.datasets.store.input_kinds",),
    "crossfold.datasets.labels": (f"{_CORPORA}.frame_labels",),
    "crossfold.datasets.partitions": (f"{_CORPORA}.partitions",),
    "crossfold.datasets.validation": (f"{_CORPORA}.findings", f"{_CORPORA}.media_checks"),
    "crossfold.platform.config": (f"{_CORE}.recipe", f"{_CORE}.base_model"),
    "crossfold.platform.errors": (f"{_CORE}.errors",),
    "crossfold.platform.registry": (f"{_CORE}.registry",),
    "crossfold.platform.strict": (f"{_CORE}.base_model",),
    "crossfold.platform.weights_table": ("crossfold.platform.modeling.pretrained_catalogue",),
}
"""Old name of a module, and where its contents are now."""

RENAMED = {"Strict": "FrozenModel", "nearest": "did_you_mean"}
"""Old name of something in those modules, and its name now."""


def alias_moved_modules() -> None:
    """Makes every old name importable; nothing is loaded before a plug-in asks for it."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)


class _MovedModule(ModuleType):
    """Stands in for a module that moved."""

    def __getattr__(self, name: str) -> Any:
        places = MOVED[self.__name__]
        # Python's import machinery looks for `__path__` and the like, which are no contents.
        if not name.startswith("__"):
            now = RENAMED.get(name, name)
            for place in places:
                module = importlib.import_module(place)
                if hasattr(module, now):
                    # FutureWarning is the one that Python shows to people who run a program.
                    warnings.warn(f"{self.__name__} is now {place}", FutureWarning, stacklevel=2)
                    return getattr(module, now)
        raise AttributeError(f"{self.__name__} has no {name!r}; its contents are in {' and '.join(places)} now")


class _MovedModules(MetaPathFinder, Loader):
    """Finds the old names, after every other finder."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run: the contents stay where they are."""


_FINDER = _MovedModules()
