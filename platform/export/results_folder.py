"""Scores of finished cells without weights, features and frames, for `crossfold report --join` of another group.

The folder has the form of a workspace, so that a report reads it as it is. Predictions stay at home, as their file also
holds annotations, which most licences forbid to pass on; their SHA-256 goes along.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import json_bytes, publish_folder, temporary_folder
from crossfold.platform.core.layout import PREDICTIONS_SHA256, WorkspacePaths
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.documents import read_launched
from crossfold.platform.workspace.workspace import Workspace

FILES = ("cell.json", "result.json", "curve.parquet")
_OF_SWEEP = ("name", "corpus", "store", "fold_rule", "protocol")


def write_results(workspace: Workspace, records: Sequence[CellRecord], folder: Path) -> None:
    """Writes the scores of some finished cells into a new folder, whole or not at all.

    The name of the machine is left out of `env.json`. What the launched sweeps say of the cells goes along, such as
    which of them are `seen`. Raises `UserError` where the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists", "give another --out, or remove it first")
    with temporary_folder(folder.absolute().parent, folder.name) as draft:
        paths = WorkspacePaths(draft)
        for record in records:
            there = paths.cell(record.cell_id)
            there.mkdir(parents=True)
            for name in FILES:
                shutil.copyfile(record.file(name), there / name)
            machine = {key: value for key, value in record.env.get("machine", {}).items() if key != "host"}
            env = {**record.env, "machine": machine, PREDICTIONS_SHA256: record.predictions.sha256}
            (there / "env.json").write_bytes(json_bytes(env))
        paths.sweeps.mkdir()
        ids = {record.cell_id for record in records}
        for path in sorted(workspace.paths.sweeps.glob("[!.]*.json")):
            if kept := _of_cells(read_launched(path), ids):
                (paths.sweeps / path.name).write_bytes(json_bytes(kept))
        publish_folder(draft, folder.absolute())


def _of_cells(sweep: dict[str, Any], ids: set[str]) -> dict[str, Any]:
    """What a launched sweep says of some cells; empty where it asked for none of them."""
    cells = [cell_id for cell_id in sweep["cells"] if cell_id in ids]
    seen = [cell_id for cell_id in sweep.get("seen", ()) if cell_id in ids]
    labels = {cell_id: sweep["labels"][cell_id] for cell_id in cells}
    facts = {name: sweep[name] for name in _OF_SWEEP if name in sweep}
    return facts | {"cells": cells, "labels": labels, "seen": seen} if cells or seen else {}
