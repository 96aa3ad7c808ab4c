"""Extracted features of the corpus `manifest`: one file per clip and modality, a row per frame.

Arrays (.npy, .npz) have row i for frame i; an .npz may hold several modalities, each under its name. Tables (.csv,
.parquet, .arff) may say in a column or in their index which frame or time a row is of: then rows come in any order, and
a frame without one has nothing there. A row of nothing but zeros, or of nothing but not-a-number, means the same. Where
times say that there are several rows in each frame, as those of openSMILE every 10 ms, the frame has their mean.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo, Span
from crossfold.datasets.corpora.findings import Finding, Refusal, Report, from_error
from crossfold.datasets.corpora.manifest.paths import MANIFEST
from crossfold.datasets.corpora.manifest.placing import first_number
from crossfold.datasets.corpora.table_files import MOST_CELLS, MOST_FEATURES
from crossfold.datasets.corpora.table_places import Places, find_places
from crossfold.datasets.corpora.tables import read_table
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.core.errors import DataError

_ARRAYS = (".npy", ".npz")
_TABLES = (".parquet", ".csv", ".arff")
SUFFIXES = (*_ARRAYS, *_TABLES)
"""Of files that are found by the names of clips."""
_TEXTS = (".txt", ".tsv")
NAMED_SUFFIXES = (*SUFFIXES, *_TEXTS)
"""Of files that the manifest names."""
_REMEDY = "write numbers of [frames, width]: numpy.save, numpy.savez, or a table of numeric columns"
_LARGEST = 8 * 2**30  # bytes of an array
_OFF_GRID = 0.3  # of a frame by which the time of a row may differ from that of its frame
_SEVERAL, _FINEST = 0.55, 0.02
"""Of a frame, from one row to the next: where the step is between them, a frame has several rows."""
_SPARSE = 100  # frames for each row of a table; more are no numbers of frames


@dataclass(frozen=True)
class Rows:
    """Features of a clip as its file has them."""

    values: np.ndarray
    """float32 [rows, width]; zeros where the modality has nothing."""
    places: Places = field(default_factory=Places)
    """Where the rows belong."""


def read_rows(path: Path, modality: str) -> Rows:
    """The rows of one modality. Raises `DataError` where the file holds anything else."""
    places = Places()
    try:
        if path.suffix.lower() in (*_TABLES, *_TEXTS):
            array, places = _of_table(path)
        else:
            # Memory is mapped, so a header that promises more than the file has is refused before it is allocated.
            loaded = np.load(path, allow_pickle=False, mmap_mode="r")
            array = loaded if isinstance(loaded, np.ndarray) else _of_archive(loaded, path, modality)
    except DataError:
        raise
    except Refusal as refusal:
        raise DataError(*refusal.args[1:]) from None
    except Exception as error:  # NumPy and pyarrow raise many kinds for a damaged header
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"cannot be read as {path.suffix} ({reason})", "write the file again") from None
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu" or array.nbytes > _LARGEST:
        raise DataError(f"holds {array.dtype} {list(array.shape)}", _REMEDY)
    with np.errstate(over="ignore"):  # what no float32 holds is found below
        features = np.array(array, np.float32)
    empty = np.isnan(features).sum(axis=1) == features.shape[1]
    if places.sure is not None:
        empty |= ~places.sure
    if (broken := np.flatnonzero(~np.isfinite(features).all(axis=1) & ~empty)).size:
        raise DataError(f"row {broken[0]} has values that are not finite", "extract the clip again")
    return Rows(np.where(empty[:, None], np.float32(0), features), places)


def _of_table(path: Path) -> tuple[np.ndarray, Places]:
    """float64 [rows, columns] and where the rows belong. Raises `Refusal`."""
    found: list[Finding] = []
    table = read_table(path, path.parent, found, numeric=True, most_columns=MOST_FEATURES)
    if table is None:
        raise DataError(found[0].problem, found[0].remedy)
    places, names = find_places(table, found, "features-place")
    if not names:
        raise DataError(f"has no column of features among {', '.join(table.columns)[:80]}", "extract the clip again")
    values = [table.numbers(column, found, "features-number") for column in names]
    if found:
        raise DataError(found[0].problem, found[0].remedy)
    said = (table.written, *places.said, f"{len(names)} features, {names[0]} to {names[-1]}")
    return np.stack(values, axis=1), replace(places, said=said)


def _of_archive(archive: np.lib.npyio.NpzFile, path: Path, modality: str) -> np.ndarray:
    with archive:
        names = archive.files
        name = modality if modality in names else names[0] if len(names) == 1 and names[0] not in MODALITIES else None
        if name is None:
            problem = f"holds {', '.join(names) or 'nothing'}, and no {modality!r}"
            raise DataError(problem, f"name the array {modality!r}")
        with zipfile.ZipFile(path) as entries:
            size = entries.getinfo(f"{name}.npy").file_size
        if size > _LARGEST:
            raise DataError(f"holds {size / 2**30:,.0f} GiB under {name!r}", _REMEDY)
        return np.asarray(archive[name])


def read_clip(
    files: Mapping[str, Path], rate: float | None, first_frame: int | None = None
) -> dict[str, np.ndarray | DataError]:
    """float32 [frames, width] of each modality of a clip, or why there is none.

    Tables that place their rows are as long as the arrays of the clip, or as their last row says. rate: frames per
    second; first_frame: the number of the first frame in tables, None where only the table shows it.
    """
    read: dict[str, Rows | DataError] = {}
    for modality, path in files.items():
        try:
            read[modality] = read_rows(path, modality)
        except DataError as error:
            read[modality] = error
    by_row = [len(rows.values) for rows in read.values() if isinstance(rows, Rows) and rows.places.way == "row"]
    frames = max(by_row, default=None)
    found: dict[str, np.ndarray | DataError] = {}
    index: dict[str, np.ndarray] = {}
    for modality, rows in read.items():
        if isinstance(rows, DataError) or rows.places.way == "row":
            found[modality] = rows if isinstance(rows, DataError) else rows.values
            continue
        try:
            index[modality] = _frames_of_rows(rows, rate, frames, first_frame)
        except DataError as error:
            found[modality] = error
    longest = max([frames or 0, *(int(numbers.max()) + 1 for numbers in index.values())])
    for modality, numbers in index.items():
        values = read[modality].values  # type: ignore[union-attr]
        # Where arrays say how long the clip is, a table that goes on is reported as of another length.
        length = longest if frames is None else max(frames, int(numbers.max()) + 1)
        if length > _SPARSE * len(values) + 10_000 or length * values.shape[1] > 20 * MOST_CELLS:
            problem = f"has {len(values)} rows, the last of frame {length - 1}"
            found[modality] = DataError(problem, "number the frames of the clip from 0")
            continue
        found[modality] = _placed(values, numbers, length)
    return {modality: found[modality] for modality in files}


def _placed(values: np.ndarray, index: np.ndarray, frames: int) -> np.ndarray:
    """float32 [frames, width]: the row of each frame, or the mean of its rows that hold something; index: [rows]."""
    placed = np.zeros((frames, values.shape[1]), np.float32)
    some = np.abs(values).max(axis=1) > 0
    numbers, counts = np.unique(index[some], return_counts=True)
    if counts.max(initial=1) == 1:
        placed[index] = values
        return placed
    sums = np.zeros((frames, values.shape[1]), np.float64)
    np.add.at(sums, index[some], values[some])
    placed[numbers] = sums[numbers] / counts[:, None]
    return placed


def _frames_of_rows(rows: Rows, rate: float | None, frames: int | None, first_frame: int | None) -> np.ndarray:
    """int64 [rows]: the frame of each row, from 0; each once, unless times are of several rows in each frame.

    Raises `DataError`.
    """
    places = rows.places
    numbers = places.first
    if places.way == "frame":
        if (wrong := numbers[(numbers != np.rint(numbers)) | (numbers < 0) | (numbers > 2**40)]).size:
            problem = f"has a row of frame {wrong[0]:g} by its column {places.column}"
            raise DataError(problem, "frames are whole numbers")
        first = first_frame if first_frame is not None else first_number(numbers, frames if frames is not None else -1)
        if first is None:
            problem = f"has frames {numbers.min():g} to {numbers.max():g}, which may count from 0 or from 1"
            raise DataError(problem, "write `first_frame: 0` or `first_frame: 1` into manifest.yaml")
        if numbers.min() < first:
            raise DataError(f"has a row of frame {numbers.min():g}, frames count from {first}", "correct `first_frame`")
        index = numbers.astype(np.int64) - first
    elif (within := _frames_around(numbers, places, rate)) is not None:
        return within
    else:
        index = _frames_at(numbers, places, rate)
    if len(np.unique(index)) < len(index):
        values, counts = np.unique(index, return_counts=True)
        problem = f"has {counts.max()} rows of frame {values[counts.argmax()]} by {places.column}"
        raise DataError(problem, "keep one: a frame has one row; write a file for each face")
    return index


def _frames_around(times: np.ndarray, places: Places, rate: float | None) -> np.ndarray | None:
    """int64 [rows]: the frame in which each row begins, where there are several rows in each; else None."""
    apart = np.diff(np.sort(times))
    if rate is None or len(times) < 2 or times.min() < 0 or apart.min() <= 0:
        return None
    units = (1.0, 1e-3) if places.unit is None else (places.unit,)
    finer = [unit for unit in units if _FINEST < float(np.median(apart)) * unit * rate < _SEVERAL]
    # What is added keeps a time that is the begin of a frame, up to rounding, within that frame.
    return np.floor(times * finer[0] * rate + 1e-3).astype(np.int64) if len(finer) == 1 else None


def _frames_at(times: np.ndarray, places: Places, rate: float | None) -> np.ndarray:
    """int64 [rows]: the frame at each time, of a clip of `rate` frames per second. Raises `DataError`."""
    if rate is None:
        order: np.ndarray = np.argsort(np.argsort(times, kind="stable"))
        return order  # that the rate is missing is said for the clip
    if times.min() < 0:
        raise DataError(f"has a row at {times.min():g} by {places.column}", "times begin at 0, with the first frame")
    step = float(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 1 / rate
    if step == 0:
        problem = f"has several rows at one time by {places.column}"
        raise DataError(problem, "keep one: a frame has one row; write a file for each face")
    units = (1.0, 1e-3) if places.unit is None else (places.unit,)
    fits = [unit for unit in units if 0.75 < step * unit * rate < 1.25]
    problem = f"has a row every {step:g} by {places.column}, its clip has {rate:g} frames per second"
    if not fits:
        raise DataError(problem, "resample the features to one row per frame or more, or correct column rate")
    grid = times * fits[0] * rate
    begin = np.ceil(grid.min() - 0.5 - 1e-6)  # windows may be stamped at their middle
    index = begin + np.rint(grid - grid.min())
    if np.abs(grid - grid.min() - (index - begin)).max() > _OFF_GRID:
        raise DataError(f"{problem}: rows fall between frames", "resample the features, or correct column rate")
    frames: np.ndarray = index.astype(np.int64)
    return frames


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
    rate: float | None = None
    first_frame: int | None = None
    """As in `read_clip`."""

    def read(self, info: ClipInfo) -> ClipArrays:
        """The arrays of the clip. Raises `DataError` where a file has changed since it was checked."""
        features: dict[str, np.ndarray] = {}
        present: dict[str, np.ndarray] = {}
        read = read_clip(self.files, self.rate, self.first_frame)
        for modality, width in self.widths.items():
            array = read.get(modality, np.zeros((info.frames, width), np.float32))
            if isinstance(array, DataError):
                raise array
            features[modality], present[modality] = array, np.abs(array).max(axis=1) > 0
        return ClipArrays(features, present, self.labels, self.spans)


@dataclass(frozen=True)
class FeatureRow:
    """What the row of a clip says about its features."""

    clip: str
    files: Mapping[str, Path]
    line: int
    rate: float | None
    first_frame: int | None


def check_shapes(row: FeatureRow, root: Path, findings: list[Finding]) -> dict[str, tuple[int, int]]:
    """(frames, width) by modality, all of as many frames; empty, and findings, where that is not so."""
    shapes: dict[str, tuple[int, int]] = {}
    for modality, array in read_clip(row.files, row.rate, row.first_frame).items():
        if isinstance(array, DataError):
            findings.append(from_error(array, row.files[modality], root, "features-readable"))
        else:
            shapes[modality] = (array.shape[0], array.shape[1])
    if len(shapes) < len(row.files):
        return {}
    if len({frames for frames, _ in shapes.values()}) > 1:
        listed = ", ".join(f"{modality} {frames}" for modality, (frames, _) in shapes.items())
        problem = f"line {row.line}: clip {row.clip} has features of different length: {listed} rows"
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
