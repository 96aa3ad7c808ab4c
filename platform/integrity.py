"""Whether finished cells are still as they were committed: a disk that filled, a copy that broke off, a flipped bit."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfold.platform.results import Workspace

CELL_FILES = ("cell.json", "result.json", "curve.parquet", "predictions.npz", "env.json", "best.safetensors")
"""What the folder of a finished cell holds."""
RECORD = "files"
"""Key of `env.json` under which a commit writes the size of each file of its cell, and the hash of the numbers."""
HASHED = "result.json"
"""Small and read by every table; of the others the size is compared, so that a second is enough for thousands."""


def describe_files(folder: Path) -> dict[str, Any]:
    """Sizes in bytes of the files of a cell folder, and the SHA-256 of its numbers."""
    names = [name for name in CELL_FILES if (folder / name).is_file()]
    return {name: (folder / name).stat().st_size for name in names} | {
        "sha256": hashlib.sha256((folder / HASHED).read_bytes()).hexdigest()
    }


def damage_of(folder: Path) -> str | None:
    """What is wrong with the folder of a finished cell, in words; None if nothing is."""
    try:
        env = json.loads((folder / "env.json").read_bytes())
        expected: dict[str, Any] = dict(env[RECORD]) if RECORD in env else {}
        digest = expected.pop("sha256", None)
        numbers = (folder / HASHED).read_bytes()
        if digest is None:
            # Of a version that wrote no sizes down.
            json.loads(numbers)
            json.loads((folder / "cell.json").read_bytes())
        elif hashlib.sha256(numbers).hexdigest() != digest:
            return f"{HASHED} is not what was committed"
        for name in CELL_FILES:
            size = (folder / name).stat().st_size
            if name in expected and size != expected[name]:
                return f"{name} has {size} of {expected[name]} bytes"
            if size == 0:
                return f"{name} is empty"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"a file of it cannot be read: {error}"
    return None


def damaged_cells(workspace: "Workspace", cell_ids: Iterable[str]) -> list[str]:
    """Those of some finished cells that are damaged, in the order of their identities."""
    return [cell_id for cell_id in sorted(cell_ids) if damage_of(workspace.cell_path(cell_id)) is not None]


def set_damaged_aside(workspace: "Workspace", cell_ids: Iterable[str]) -> dict[str, tuple[str, Path]]:
    """Moves damaged cells out of `cells/`, so that the next run computes them; returns what was wrong, and where to."""
    found = {}
    for cell_id in cell_ids:
        folder = workspace.cell_path(cell_id)
        damage = damage_of(folder)
        if damage is None or not folder.is_dir():
            continue
        number = 1
        while (place := workspace.root / "damaged" / f"damaged-{cell_id}-{number}").exists():
            number += 1
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        found[cell_id] = (damage, place)
    return found
