"""Extracted features of the corpus `manifest`: one .npy, .npz or .parquet file per clip and modality, a row per frame.

An .npz may hold several modalities, each under its name. A row of nothing but zeros, or of nothing but not-a-number,
means that the modality has nothing there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo, Span
from crossfold.datasets.corpora.findings import Finding, Report, from_error
from crossfold.datasets.corpora.manifest.paths import MANIFEST
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.core.errors import DataError

SUFFIXES = (".npy", ".npz", ".parquet")
_REMEDY = "write numbers of [frames, width]: numpy.save, numpy.savez, or a parquet table of numeric columns"
_PLACES = ("time", "frame")


def read_features(path: Path, modality: str) -> np.ndarray:
    """float32 [frames, width] of one modality. Raises `DataError` where the file holds anything else."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            array = table.drop(columns=[c for c in table.columns if str(c).lower() in _PLACES]).to_numpy()
        else:
            loaded = np.load(path, allow_pickle=False)
            array = loaded if isinstance(loaded, np.ndarray) else _of_archive(loaded, path, modality)
    except DataError:
        raise
    except Exception as error:  # NumPy and pyarrow raise many kinds for a damaged header
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"cannot be read as {path.suffix} ({reason})", "write the file again") from None
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise DataError(f"holds {array.dtype} {list(array.shape)}", _REMEDY)
    features = np.asarray(array, np.float32)
    empty = np.isnan(features).sum(axis=1) == features.shape[1]
    if (broken := np.flatnonzero(~np.isfinite(features).all(axis=1) & ~empty)).size:
        raise DataError(f"row {broken[0]} has values that are not finite", "extract the clip again")
    return np.where(empty[:, None], np.float32(0), features)


def _of_archive(archive: np.lib.npyio.NpzFile, path: Path, modality: str) -> np.ndarray:
    with archive:
        names = archive.files
        if modality in names:
            return np.asarray(archive[modality])
        if len(names) == 1 and names[0] not in MODALITIES:  # numpy.savez calls it arr_0
            return np.asarray(archive[names[0]])
        raise DataError(f"holds {', '.join(names) or 'nothing'}, and no {modality!r}", f"name the array {modality!r}")


def modalities_of_file(path: Path) -> list[str]:
    """Which modalities an .npz of several has; none where it cannot be read, which reading it will say."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [name for name in MODALITIES if name in archive.files]
    except Exception:  # as above
        return []


@dataclass(frozen=True)
class FeatureFiles:
    """Where the features of a clip are, and how wide those are that it lacks."""

    files: Mapping[str, Path]
    widths: Mapping[str, int]
    """Of every modality of the corpus: a clip brings zeros for the one it does not have."""
    labels: np.ndarray
    spans: tuple[Span, ...] = ()

    def read(self, info: ClipInfo) -> ClipArrays:
        """The arrays of the clip. Raises `DataError` where a file has changed since it was checked."""
        features: dict[str, np.ndarray] = {}
        present: dict[str, np.ndarray] = {}
        for modality, width in self.widths.items():
            if modality in self.files:
                array = read_features(self.files[modality], modality)
            else:
                array = np.zeros((info.frames, width), np.float32)
            features[modality], present[modality] = array, np.abs(array).max(axis=1) > 0
        return ClipArrays(features, present, self.labels, self.spans)


def check_shapes(
    clip: str, files: Mapping[str, Path], root: Path, line: int, findings: list[Finding]
) -> dict[str, tuple[int, int]]:
    """(frames, width) by modality, all of as many frames; empty, and findings, where that is not so."""
    shapes: dict[str, tuple[int, int]] = {}
    for modality, path in files.items():
        try:
            frames, width = read_features(path, modality).shape
            shapes[modality] = (frames, width)
        except DataError as error:
            findings.append(from_error(error, path, root, "features-readable"))
    if len(shapes) < len(files):
        return {}
    if len({frames for frames, _ in shapes.values()}) > 1:
        listed = ", ".join(f"{modality} {frames}" for modality, (frames, _) in shapes.items())
        problem = f"line {line}: clip {clip} has features of different length: {listed} rows"
        remedy = "resample them to one row per frame; nothing is stretched or cut here"
        Report(MANIFEST, findings).error("features-length", problem, remedy)
        return {}
    return shapes


def check_width(modality: str, width: int, first: dict[str, tuple[int, str]], clip: str, report: Report) -> None:
    """Every clip's features of a modality are as wide as those of the `first` clip that has it."""
    wanted, of = first.setdefault(modality, (width, clip))
    if width != wanted:
        problem = f"is {width} wide, those of clip {of} are {wanted}"
        report.error("features-width", problem, "extract all clips alike")
