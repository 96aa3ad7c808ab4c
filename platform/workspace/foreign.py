"""Files of a workspace that somebody else made: what may be taken over, and why something may not.

Only regular files of known names are copied, never linked, and each copy is checked before it appears in ours: sizes
and hashes, the identity of a cell, that its predictions can be read and give its scores. docs/security.md lists it.
"""

import json
import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from pydantic import BaseModel, TypeAdapter

from crossfold.datasets.store.feature_store import verify_store
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside
from crossfold.platform.core.layout import CELL_ID
from crossfold.platform.core.metrics import ccc
from crossfold.platform.core.outcome import Failure
from crossfold.platform.workspace.disk_space import free_bytes
from crossfold.platform.workspace.integrity import damage_of
from crossfold.platform.workspace.predictions import read_predictions

MIB = 2**20
MOST_DOCUMENT_BYTES = 64 * MIB
"""Of a JSON file."""
MOST_BYTES = {"curve.parquet": 256 * MIB, "predictions.npz": 4096 * MIB, "best.safetensors": 16384 * MIB}
"""Of the other files of a cell."""
MOST_UNPACKED_BYTES = 16384 * MIB
"""Of the arrays in `predictions.npz`."""
MOST_EPOCHS = 1_000_000
SCORE_TOLERANCE = 1e-6
"""Between a stored score and the one that the predictions give."""


class Refused(Exception):
    """Something of another workspace is not taken over; says why."""


_FAILURE = TypeAdapter(Failure)


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes. Raises `Refused`; never waits for a pipe."""
    with open(_open(path, most), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Refused(f"{path.name} has more than {most} bytes")
    return content


def read_document(path: Path) -> Any:
    """A JSON file. Raises `Refused`."""
    try:
        return json.loads(read_regular(path, MOST_DOCUMENT_BYTES))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path.name} is not JSON that can be read: {_short(error)}") from None


def checked_document(path: Path, model: type[BaseModel]) -> Any:
    """A JSON file whose parts are those of `model`. Raises `Refused`."""
    document = read_document(path)
    try:
        model.model_validate(document)
    except ValueError as error:
        raise Refused(f"{path.name} is not what this version writes there: {_short(error)}") from None
    for cell_id in [*document.get("members", ()), *document.get("cells", ()), *document.get("labels", ())]:
        if not CELL_ID.fullmatch(cell_id):
            raise Refused(f"{path.name} names a cell {cell_id[:40]!r}")
    if not _finite(document):
        raise Refused(f"{path.name} holds a number that is not finite")
    return document


def checked_failure(path: Path) -> None:
    """Raises `Refused` for what is no entry of a failure log."""
    document = read_document(path)
    try:
        failure = _FAILURE.validate_python(document)
    except ValueError as error:
        raise Refused(f"{path.name} is no failure: {_short(error)}") from None
    if not CELL_ID.fullmatch(failure.cell_id) or not path.name.startswith(failure.cell_id):
        raise Refused(f"{path.name} is a failure of another cell")


def check_folder(folder: Path, names: Sequence[str] | None = None) -> list[str]:
    """The names of the files in a folder that are no files of a cell; hidden ones are passed over.

    names: those that there must be; None: any, as in a store. Raises `Refused` where anything is no regular file.
    """
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise Refused("it is no folder, but a link or something else")
    there = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    for entry in there:
        if not entry.is_file(follow_symlinks=False):
            raise Refused(f"{entry.name} is no regular file")
    if names is None:
        return sorted(entry.name for entry in there)
    if missing := sorted(set(names) - {entry.name for entry in there}):
        raise Refused(f"{', '.join(missing)} is missing")
    return sorted({entry.name for entry in there} - set(names))


def same_bytes(ours: Path, theirs: Path) -> bool:
    """Whether a regular file of theirs holds what ours does. Raises `Refused`."""
    if not ours.is_file():
        return False
    if ours.stat().st_size != theirs.lstat().st_size:
        return False
    with ours.open("rb") as one, open(_open(theirs, ours.stat().st_size), "rb") as other:
        while chunk := one.read(MIB):
            if other.read(MIB) != chunk:
                return False
    return True


def copy_files(
    source: Path, draft: Path, names: Sequence[str], limits: Callable[[str], int] = lambda name: sys.maxsize
) -> None:
    """Copies regular files of at most `limits(name)` bytes each. Raises `Refused`, also where they would not fit."""
    needed = sum((source / name).lstat().st_size for name in names)
    free = free_bytes(draft)
    if free is not None and needed > free:
        raise Refused(f"it needs {needed // MIB} MiB, and {free // MIB} MiB are free")
    for name in names:
        with open(_open(source / name, limits(name)), "rb") as there, (draft / name).open("wb") as here:
            shutil.copyfileobj(there, here, MIB)


def limit_of(name: str) -> int:
    """The most bytes of a file of a cell."""
    return MOST_BYTES.get(name, MOST_DOCUMENT_BYTES)


def check_cell(draft: Path, cell_id: str) -> Cell:
    """Reads the copy of a finished cell from end to end. Raises `Refused`."""
    if not CELL_ID.fullmatch(cell_id):
        raise Refused("its name is no identity of a cell")
    try:
        cell = Cell.model_validate_json((draft / "cell.json").read_bytes())
        result = json.loads((draft / "result.json").read_bytes())
        metrics = {target: result["metrics"][target]["ccc"] for target in cell.targets}
        # Its record of the sizes is looked up by name.
        json.loads((draft / "env.json").read_bytes()).keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError):
        raise Refused("cell.json, result.json or env.json cannot be read by this version") from None
    if cell.cell_id != cell_id:
        raise Refused(f"its identity is {cell.cell_id}, by this version")
    if damage := damage_of(draft):
        raise Refused(damage)
    try:
        _check_weights(draft / "best.safetensors")
        _check_predictions(draft / "predictions.npz", cell, metrics)
        if pyarrow.parquet.read_metadata(draft / "curve.parquet").num_rows > MOST_EPOCHS:
            raise Refused(f"curve.parquet has more than {MOST_EPOCHS} epochs")
        pyarrow.parquet.read_table(draft / "curve.parquet")
    except Refused:
        raise
    # Whoever made the file may have made it to break any reader in any way.
    except Exception as error:
        raise Refused(f"its curve, predictions or weights cannot be read: {_short(error)}") from None
    return cell


def check_store(draft: Path, name: str) -> None:
    """Reads the copy of a store from end to end. Raises `Refused`."""
    try:
        manifest = json.loads((draft / "manifest.json").read_bytes())
        if f"{manifest['corpus']}-{manifest['content_hash']}" != name:
            raise Refused("its name is not that of its manifest")
        verify_store(draft)
    except Refused:
        raise
    # As for cells.
    except Exception as error:
        raise Refused(f"it is no whole store: {_short(error)}") from None


def _check_weights(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "numpy") as weights:
        if not list(weights.keys()):
            raise Refused(f"{path.name} holds no weights")


def _check_predictions(path: Path, cell: Cell, scores: dict[str, float]) -> None:
    with zipfile.ZipFile(path) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > MOST_UNPACKED_BYTES:
            raise Refused(f"{path.name} unpacks to more than {MOST_UNPACKED_BYTES // MIB} MiB")
    found = read_predictions(path)
    rows, offsets = len(found.frame), found.offsets
    shapes = {array.shape for array in (found.prediction, found.label, found.valid)}
    if shapes != {(rows, len(cell.targets))} or found.targets != cell.targets or found.valid.dtype != bool:
        raise Refused(f"the arrays of {path.name} do not fit together")
    if len(offsets) != len(found.clips) + 1 or offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise Refused(f"the clips of {path.name} do not fit its rows")
    for clip in found.clips:
        try:
            path_inside(path.parent, clip)
        except UserError as error:
            raise Refused(f"{path.name} names a clip that is a path: {error.problem.partition(' cannot')[0]}") from None
    for t, target in enumerate(cell.targets):
        score = float(ccc(found.prediction[:, t], found.label[:, t], found.valid[:, t]))
        if not abs(score - float(scores[target])) <= SCORE_TOLERANCE:
            raise Refused(f"its CCC of {target} is {scores[target]!r}, and its predictions give {score!r}")


def _open(path: Path, most: int) -> int:
    """A descriptor of a regular file; a link is not followed, a pipe not waited for."""
    try:
        found = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise Refused(f"{path.name} cannot be opened as a regular file: {error.strerror}") from None
    facts = os.fstat(found)
    if stat.S_ISREG(facts.st_mode) and facts.st_size <= most:
        return found
    os.close(found)
    if stat.S_ISREG(facts.st_mode):
        raise Refused(f"{path.name} has {facts.st_size} bytes, and at most {most} are taken")
    raise Refused(f"{path.name} is no regular file")


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or bool(np.isfinite(value))


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3])[:200] or type(error).__name__
