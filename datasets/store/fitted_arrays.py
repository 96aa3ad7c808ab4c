"""What the encoders of each fold were fitted to, next to the features of a store and outside its content hash.

The features follow from these arrays, so the hash stands for them already; stores made before they were kept have the
same hash as those made since. The manifest holds their digest under `fitted`, which is outside the hash as well.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from crossfold.platform.core.errors import DataError
from crossfold.platform.core.files import write_bytes

FITTED = PurePath("fitted.safetensors")
"""The file; its stem is the key of the manifest."""


def add_fitted(store: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds arrays to a whole store that has none. The manifest is written last, so that a crash leaves none."""
    manifest = json.loads((store / "manifest.json").read_text())
    if not arrays or FITTED.stem in manifest:
        return
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_bytes(store / FITTED, content)
    manifest[FITTED.stem] = hashlib.sha256(content).hexdigest()
    write_bytes(store / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())


def read_fitted(store: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a store, empty where its manifest names none. Raises `DataError` where they are damaged."""
    if FITTED.stem not in manifest:
        return {}
    try:
        content = (store / FITTED).read_bytes()
    except OSError as error:
        raise DataError(f"{store / FITTED} cannot be read: {error.strerror}", "copy the store again") from None
    if hashlib.sha256(content).hexdigest() != manifest[FITTED.stem]:
        raise DataError(f"{store / FITTED} does not have the digest of the manifest", "copy the store again")
    return dict(load(content))
