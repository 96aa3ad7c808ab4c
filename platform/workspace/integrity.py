"""Whether finished cells are still as they were committed: a disk that filled, a copy that broke off, a flipped bit."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crossfold.platform.core.layout import CELL_FILES, HASHED, RECORD


def describe_files(folder: Path) -> dict[str, Any]:
    """Sizes in bytes of the files of a cell folder, and the SHA-256 of its numbers."""
    names = [name for name in CELL_FILES if (folder / name).is_file()]
    return {name: (folder / name).stat().st_size for name in names} | {
        "sha256": hashlib.sha256((folder / HASHED).read_bytes()).hexdigest()
    }


def damage_of(folder: Path, elsewhere: Iterable[str] = ()) -> str | None:
    """What is wrong with the folder of a finished cell, in words; None if nothing is. `elsewhere`: may be missing."""
    name = "env.json"
    try:
        env = json.loads((folder / name).read_bytes())
        name = HASHED
        numbers = (folder / name).read_bytes()
        if RECORD in env:
            expected = dict(env[RECORD])
            if hashlib.sha256(numbers).hexdigest() != expected.pop("sha256"):
                return f"{name} is not what was committed"
            for name, size in expected.items():
                if name in elsewhere and not (folder / name).exists():
                    continue
                if (found := (folder / name).stat().st_size) != size:
                    return f"{name} has {found} of {size} bytes"
        else:
            # Of a version that wrote no sizes down.
            for name, whole in _WHOLE.items():
                if name in elsewhere and not (folder / name).exists():
                    continue
                if not whole((folder / name).read_bytes()):
                    return f"{name} breaks off"
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{name} cannot be read: {error}"
    return None


def _whole_weights(content: bytes) -> bool:
    """A safetensors file names its length: 8 bytes for that of a header, which says where the last tensor ends."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return len(content) == 8 + length + max(ends, default=0)


_WHOLE: dict[str, Callable[[bytes], bool]] = {
    "result.json": lambda content: isinstance(json.loads(content), dict),
    "cell.json": lambda content: isinstance(json.loads(content), dict),
    "best.safetensors": _whole_weights,
    "curve.parquet": lambda content: content.endswith(b"PAR1"),
    # The end record of a zip file without a comment.
    "predictions.npz": lambda content: content[-22:-18] == b"PK\x05\x06",
}
