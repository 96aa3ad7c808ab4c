"""Whether finished cells are still as they were committed: a disk that filled, a copy that broke off, a flipped bit."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfold.platform.results import Workspace
from crossfold.platform.core.layout import CELL_FILES, HASHED, LEFTOVER_SECONDS, RECORD

_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{16}-[a-z0-9_]{8}")


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


def remove_leftovers(workspace: "Workspace") -> int:
    """Removes what processes that were killed left; returns how many half-written cell folders there were.

    Called by a driver, before its own workers: whatever an earlier fleet kept for itself is nobody's any more.
    """
    oldest = time.time() - LEFTOVER_SECONDS
    left = [
        folder
        for folder in workspace.cells.glob(".*-*")
        if _HALF_WRITTEN.fullmatch(folder.name) and folder.stat().st_mtime < oldest
    ]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (workspace.root / "fleet").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    finished = workspace.finished()
    for note in (workspace.root / "unfinished").glob("[!.]*.json"):
        if note.stem in finished:
            note.unlink(missing_ok=True)
    return len(left)


def damaged_cells(workspace: "Workspace", cell_ids: Iterable[str]) -> list[str]:
    """Those of some finished cells that are damaged, in the order of their identities.

    Of a workspace at a URL a damaged copy is fetched again first, and files that were never asked for are no damage.
    """
    mirror = workspace.mirror
    if mirror is None:
        return [cell_id for cell_id in sorted(cell_ids) if damage_of(workspace.cell_path(cell_id)) is not None]
    return [
        cell_id
        for cell_id in sorted(cell_ids)
        if (place := workspace.cell_path(cell_id)).is_dir() and damage_of(place, mirror.large) is not None
        if not mirror.fetch_again(cell_id)
    ]


def set_damaged_aside(workspace: "Workspace", cell_ids: Iterable[str]) -> dict[str, tuple[str, Path]]:
    """Moves damaged cells out of `cells/`, so that the next run computes them; returns what was wrong, and where to."""
    found = {}
    for cell_id in cell_ids:
        folder = workspace.cell_path(cell_id)
        damage = damage_of(folder, workspace.mirror.large if workspace.mirror is not None else ())
        if damage is None or not folder.is_dir():
            continue
        number = 1
        while (place := workspace.root / "damaged" / f"damaged-{cell_id}-{number}").exists():
            number += 1
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        if workspace.mirror is not None:
            workspace.mirror.withdraw(cell_id)
        found[cell_id] = (damage, place)
    return found
