"""Files of the cache folder that hold what is known of systems and backbones, so that few commands import them.

A system is a file of torch modules, and torch takes seconds to import. What follows from source files alone is kept
under the hash of all of them, and holds until one of them changes.
"""

import hashlib
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path

import pydantic

from crossfold.platform.core.layout import cache_folder
from crossfold.platform.core.registry import ENTRY_POINTS

_CATALOGUES = ("crossfold.fusion_models.catalogue", "crossfold.fusion_models.backbones.catalogue")


def systems_are_loaded() -> bool:
    """Whether systems and backbones must be asked themselves: they are imported already, or installed plug-ins may add
    some.

    A plug-in of `--plugin` that registers one has imported its catalogue.
    """
    return any(name in sys.modules for name in _CATALOGUES) or bool(importlib.metadata.entry_points(group=ENTRY_POINTS))


def kept_file(kind: str, *sources: Path) -> Path:
    """The file in the cache folder for what follows from the files of the systems and from these files and folders.

    Its name holds the hash of all of them. Raises `RuntimeError` where the user has no home folder.
    """
    return cache_folder() / f"{kind}-{_hash_of(_folder_of_systems(), *sources)}.json"


@cache
def _folder_of_systems() -> Path:
    spec = importlib.util.find_spec(_CATALOGUES[0])
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _hash_of(*sources: Path) -> str:
    digest = hashlib.sha256(pydantic.VERSION.encode())
    for source in sources:
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
