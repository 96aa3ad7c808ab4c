"""Rows of `list` that only an import of torch could make, kept in the cache folder until a source file changes."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossfold.platform.core.files import write_json
from crossfold.sweeps.kept_files import kept_file, systems_are_loaded

Rows = list[dict[str, Any]]


def kept_rows(kind: str, make: Callable[[], Rows], *sources: Path) -> Rows:
    """The rows that `make` gives: they follow from the systems, the backbones and these files and folders."""
    if systems_are_loaded():
        return make()
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        found: Rows = json.loads(kept_file(kind, *sources).read_bytes())
        return found
    rows = make()
    from crossfold.fusion_models.backbones.catalogue import BACKBONES
    from crossfold.fusion_models.catalogue import systems

    # What is unavailable today may be installed tomorrow.
    if not systems.unavailable and not BACKBONES.unavailable:
        # Without a cache folder the list is only slower.
        with contextlib.suppress(OSError, RuntimeError):
            write_json(kept_file(kind, *sources), rows)
    return rows
