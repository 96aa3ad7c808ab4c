"""Files of pretrained weights: found by name in one folder, and checked against their digest.

Where no digest is published, the one of the first use is written next to the file, with what the network then gave for
a fixed input; both are compared ever after, so no number changes unnoticed.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, utc_now, write_json
from crossfold.platform.modeling.pretrained_catalogue import Weights, weights_entry
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.fusion_models.backbones.catalogue import Backbone

OWN_SUFFIX = ".safetensors"
"""Weights that the user trained are read from `<backbone>.safetensors`, as `export --format backbone` writes them."""
_TOLERANCE = 1e-3
"""Of the standard deviation of the outputs; machines and versions differ by less, other weights by far more."""


def weights_folder(given: Path | None = None, workspace: Workspace | None = None) -> Path:
    """`--weights`, else `CROSSFOLD_WEIGHTS`, else `weights` in the workspace."""
    if given is not None:
        return given.resolve()
    if "CROSSFOLD_WEIGHTS" in os.environ:
        return Path(os.environ["CROSSFOLD_WEIGHTS"]).resolve()
    return (workspace or Workspace.locate(None)).paths.weights


def own_weights(backbone: "Backbone", folder: Path) -> Path | None:
    """The file of weights that the user trained, which is preferred to published ones; None where those are used.

    Raises `UserError` where there is none and none are published.
    """
    path = path_inside(folder, f"{backbone.name}{OWN_SUFFIX}")
    if path.is_file():
        return path
    if backbone.weights is not None:
        return None
    raise UserError(
        f"{backbone.name} has no published weights, and {path} is not there",
        f"train it from --{backbone.modality} raw:{backbone.input} and run `crossfold export SWEEP --format backbone "
        f"--out {folder}`, or pass --random-weights SEED to test the pipeline",
    )


def find_weights(name: str, folder: Path | None = None) -> Path:
    """The file or folder of some weights, there and whole.

    folder: else as `weights_folder` says. Raises `UserError` that names the file, the place and the page where it is
    missing, and both digests where it is another one.
    """
    entry = weights_entry(name)
    folder = weights_folder(folder)
    # The name under which the publisher offers it, so that a download can be put there as it is.
    path = folder / entry.place
    advice = f"put {'the folder' if entry.is_folder else 'the file'} {entry.place} from {entry.page} into {folder}"
    other_place = f"{advice}, or name its folder with --weights or CROSSFOLD_WEIGHTS"
    if wrong := _absent(entry, path):
        raise UserError(f"weights {name!r} ({entry.title}) are missing: {wrong}", other_place)
    if wrong := _altered(entry, path):
        recorded = entry.sha256 is None and first_use(path)
        accept = f"{advice}, or delete {_record_path(path).name} there to accept these"
        raise UserError(f"weights {name!r}: {wrong}", accept if recorded else other_place)
    return path


def weights_state(entry: Weights, folder: Path) -> tuple[str, str]:
    """(`present`, `missing` or `damaged`; what was found), for a listing; raises nothing, writes nothing."""
    path = folder / entry.place
    if wrong := _absent(entry, path):
        return ("damaged" if path.exists() else "missing"), wrong
    wrong = _altered(entry, path)
    return ("damaged", wrong) if wrong else ("present", str(path))


def weights_facts(name: str, folder: Path) -> dict[str, str]:
    """What a manifest says of published weights. Raises `UserError` where they are missing or altered."""
    entry = weights_entry(name)
    return {"name": name, "place": entry.place, "sha256": digest_of(entry, find_weights(name, folder))}


def _absent(entry: Weights, path: Path) -> str:
    if entry.is_folder and path.is_dir():
        lacking = [name for name in entry.holds if not (path / name).is_file()]
        return f"{path} lacks {', '.join(lacking)}" if lacking else ""
    if path.is_dir() if entry.is_folder else path.is_file():
        return ""
    other = "a file, not a folder" if path.is_file() else "a folder, not a file" if path.is_dir() else "not there"
    return f"{path} is {other}"


def _altered(entry: Weights, path: Path) -> str:
    """What is wrong with the digest, in words; empty if it is right or not known."""
    record = first_use(path)
    # With nothing to compare, gigabytes need not be read.
    if entry.sha256 is None and not record:
        return ""
    digest = digest_of(entry, path)
    if entry.sha256 is not None and not digest.startswith(entry.sha256):
        begins = "" if len(entry.sha256) == 64 else "beginning with "
        return f"{path} has SHA-256 {digest}, published is {begins}{entry.sha256}"
    if record and record["sha256"] != digest:
        return f"{path} has SHA-256 {digest}, on its first use ({record['first_used'][:10]}) it had {record['sha256']}"
    return ""


def digest_of(entry: Weights, path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests of the files it must hold."""
    if not entry.is_folder:
        return file_digest(path)
    whole = hashlib.sha256()
    for name in entry.holds:
        whole.update(f"{name} {file_digest(path / name)}\n".encode())
    return whole.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_use(path: Path) -> dict[str, Any]:
    """The record of the first use of a file: `sha256`, `first_used`, `outputs` by network; empty if there is none."""
    record = _record_path(path)
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return {"sha256": str(kept["sha256"]), "first_used": str(kept["first_used"]), "outputs": dict(kept["outputs"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{record} is not a record of weights", "delete it; it is written again") from None


def record_use(path: Path, network: str, sha256: str, output: tuple[float, ...]) -> None:
    """Records the digest and the output of a first use; a later use that differs is a `UserError`.

    output: mean and standard deviation first. A folder that may not be written has no record; the caller's manifest
    holds the same facts.
    """
    record = first_use(path) or {"sha256": sha256, "first_used": utc_now(), "outputs": {}}
    before = record["outputs"].get(network)
    if before is None:
        record["outputs"][network] = list(output)
        try:
            write_json(_record_path(path), record)
        # Shared folders of weights are often read-only.
        except OSError:
            return
    elif not np.allclose(before, output, rtol=0, atol=_TOLERANCE * max(abs(before[1]), 1e-12)):
        raise UserError(
            f"{network} with {path} gives mean {output[0]:.6g} and std {output[1]:.6g} for the fixed input; on "
            f"first use ({record['first_used'][:10]}) it gave {before[0]:.6g} and {before[1]:.6g}",
            f"the code or a library changed; delete {_record_path(path)} to accept the new numbers",
        )


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.seen.json")
