"""Extracted features in a data set of the Hugging Face library, as `save_to_disk` writes it; read with pyarrow alone.

    dataset_dict.json   optional: names the splits, each a folder of its own
    state.json          names the Arrow files of a split
    *.arrow             a row a clip: `clip`, `fps`; `audio`, `visual`, `text` as lists [frames][width]; and of every
                        target a list [frames]; optional `subject`, `video`, `partition`

The split says whether a clip is for training, validation or test, where no column `partition` does. A row of nothing
but zeros means that the modality has nothing there; null is no label.

I features of a frame.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo, Target, labelled
from crossfold.datasets.corpora.findings import Finding, check_targets
from crossfold.datasets.corpora.registry import CORPORA, Corpus, FeatureClip, Inspection
from crossfold.platform.core.errors import DataError
from crossfold.platform.core.files import path_inside

NAME = "huggingface"
_SPLITS, _STATE = "dataset_dict.json", "state.json"
_MODALITIES = ("audio", "visual", "text")
_PARTITIONS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "test": "test"}  # fmt: skip
_SAVE = "write it again with `save_to_disk` of the library datasets"
_FEATURES = "give lists of numbers [frames][width]; sound and pictures belong into a folder with a manifest.csv"


def inspect_saved(root: Path, *, deep: bool) -> Inspection:
    """Clips and findings of a saved data set; `deep` also reads the features."""
    root = root.resolve()
    findings: list[Finding] = []
    clips: list[FeatureClip] = []
    targets: tuple[Target, ...] = ()
    labels: list[np.ndarray] = []
    names: set[str] = set()
    try:
        for split, folder in _splits(root):
            table = _table(folder)
            found = tuple(Target(name) for name in _targets(table))
            if not found or (targets and found != targets):
                problem = f"has the targets {', '.join(t.name for t in found) or 'of none'}"
                raise DataError(problem, "give each split the same lists of one number a frame, such as valence")
            targets = found
            for row in range(table.num_rows):
                try:
                    info = _info(table, row, split)
                    if info.name in names:
                        raise DataError(f"clip {info.name!r} is there twice", "give each row a name of its own")
                    names.add(info.name)
                    clip = FeatureClip(info, functools.partial(_read, folder, row, info))
                    labels.append(clip.read().labels if deep else _labels(table, row, info))
                    clips.append(clip)
                except DataError as error:
                    findings.append(Finding(f"{folder.name}, row {row}", "clip", error.problem, error.remedy))
    except DataError as error:
        findings.append(Finding(root.name, "saved-dataset", error.problem, error.remedy))
    if labels:
        findings += check_targets(labels, targets)
    return Inspection(NAME, clips, tuple(findings), targets=targets)


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order."""
    return sorted(path for path in root.resolve().rglob("*") if path.suffix in (".arrow", ".json"))


def _splits(root: Path) -> Iterator[tuple[str, Path]]:
    """The name and the folder of each split; one of no name where there are none."""
    if not (root / _SPLITS).is_file():
        yield "", root
        return
    for name in _json(root / _SPLITS).get("splits", ()):
        yield str(name), path_inside(root, str(name))


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is not there, or damaged ({error})", _SAVE) from None
    return found


@functools.lru_cache(maxsize=8)
def _table(folder: Path) -> Any:
    """The rows of a split as a table of pyarrow, mapped and not copied. Raises `DataError`."""
    import pyarrow as pa

    state = _json(folder / _STATE)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DataError(f"{folder.name} is a selection of other rows", "call flatten_indices() before save_to_disk()")
    try:
        files = [path_inside(folder, str(file["filename"])) for file in state["_data_files"]]
        parts = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in files]
        return pa.concat_tables(parts)
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        raise DataError(f"{folder.name} cannot be read ({error})", _SAVE) from None


def _depth(kind: Any) -> int:
    """How many lists of numbers are in each other in a column; -1 for anything else."""
    import pyarrow.types as types

    kind = getattr(kind, "storage_type", kind)  # Array2D of the library is lists of lists
    depth = 0
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth if types.is_floating(kind) or types.is_integer(kind) else -1


def _targets(table: Any) -> list[str]:
    return [field.name for field in table.schema if _depth(field.type) == 1 and field.name not in _MODALITIES]


def _info(table: Any, row: int, split: str) -> ClipInfo:
    cells = {name: table[name][row].as_py() for name in ("clip", "fps", "subject", "video", "partition")
             if name in table.column_names}  # fmt: skip
    for needed in ("clip", "fps"):
        if cells.get(needed) in (None, ""):
            raise DataError(f"has no {needed}", "add columns `clip`, its name, and `fps`, its frames per second")
    asked = str(cells.get("partition") or split)
    if asked not in _PARTITIONS:
        raise DataError(f"is of the part {asked!r}", f"name splits, or a column `partition`, {', '.join(_PARTITIONS)}")
    name, fps = str(cells["clip"]), float(cells["fps"])
    if not 0 < fps < 1e4:
        raise DataError(f"clip {name!r} has {fps:g} frames per second", "correct `fps`")
    video = str(cells.get("video") or name)
    frames = len(table[_targets(table)[0]][row])
    if not frames:
        raise DataError(f"clip {name!r} has no frame", "leave it out")
    return ClipInfo(
        name=name, video=video, subject=str(cells.get("subject") or video), partition=_PARTITIONS[asked], fps=fps,
        frames=frames,
    )  # fmt: skip


def _labels(table: Any, row: int, info: ClipInfo) -> np.ndarray:
    """float32 [frames, targets]; not a number where there is null."""
    columns = [np.array(table[name][row].as_py() or [], np.float32) for name in _targets(table)]
    for name, column in zip(_targets(table), columns, strict=True):
        if len(column) != info.frames:
            raise DataError(f"clip {info.name!r} has {len(column)} values of {name}, not {info.frames}", "one a frame")
    labels = np.stack(columns, axis=1)
    if (np.abs(labels[labelled(labels, tuple(map(Target, _targets(table))))]) > 1).any():
        raise DataError(f"clip {info.name!r} has labels outside [-1, 1]", "a manifest.csv may name other ranges")
    return labels


def _matrix(cell: Any, what: str) -> np.ndarray:
    """float32 [frames, I] of a cell of lists of lists of pyarrow, without lists of Python."""
    rows = cell.values
    if rows is None or not len(rows):
        return np.zeros((0, 0), np.float32)
    widths = np.unique(rows.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    if len(widths) != 1:
        raise DataError(f"{what} of several widths", _FEATURES)
    flat: np.ndarray = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(len(rows), int(widths[0]))


def _read(folder: Path, row: int, info: ClipInfo) -> ClipArrays:
    table = _table(folder)
    features: dict[str, np.ndarray] = {}
    for modality in (name for name in _MODALITIES if name in table.column_names):
        if _depth(table.schema.field(modality).type) != 2:
            raise DataError(f"{modality} holds {table.schema.field(modality).type}", _FEATURES)
        array = _matrix(table[modality][row], f"clip {info.name!r} has rows of {modality}")
        if len(array) != info.frames or not array.shape[1]:
            raise DataError(
                f"clip {info.name!r} has {modality} {list(array.shape)} for {info.frames} frames", _FEATURES
            )
        if not np.isfinite(array).all():
            raise DataError(f"clip {info.name!r} has {modality} that is not finite", "extract the clip again")
        features[modality] = array
    if not features:
        raise DataError(f"has none of the columns {', '.join(_MODALITIES)}", _FEATURES)
    # A row of zeros is none.
    present = {modality: np.any(array, axis=1) for modality, array in features.items()}
    return ClipArrays(features, present, _labels(table, row, info))


CORPORA.register(NAME, origin=__name__)(
    Corpus(
        description="extracted features in a data set of the Hugging Face library datasets",
        layout="what `save_to_disk` writes: a row a clip, with clip, fps, audio, visual, text and targets",
        needs="your own data; targets in [-1, 1]",
        inspect=inspect_saved,
        sources=source_files,
    )
)
