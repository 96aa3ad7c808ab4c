"""The feature store: a corpus prepared once, memory-mapped ever after.

`<corpus>-<hash>/` holds `manifest.json`, one `<modality>.npy` (or `<modality>@<fold>.npy` where an encoder
was fitted per fold) of float32 [N, width] or of raw input [N, *shape], `labels.npy` float32 [N, targets],
`valid.npy` bool [N, targets], `present.npy` bool [N, modalities], `clips.parquet` and `spans.parquet`. N counts
the frames of all clips, one after the other. `fitted.safetensors` holds what each fold fitted (`fitted_arrays`), so
that new clips can be encoded alike; it follows from the features, is no part of the content hash, and has a digest of
its own in the manifest.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet

from crossfold.datasets.corpora.clips import UNLABELLED, ClipArrays, ClipInfo, Span, Target, labelled
from crossfold.datasets.corpora.partitions import Fold, make_folds, recognise_folds
from crossfold.datasets.store.array_file import ArrayFile
from crossfold.datasets.store.fitted_arrays import FITTED, add_fitted, read_fitted
from crossfold.datasets.store.input_kinds import standardised
from crossfold.datasets.store.running_stats import CHUNK_ROWS, Sums
from crossfold.platform.core.cell import AS_RELEASED, GROUPED, MODALITIES
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.files import path_inside, publish_folder, temporary_folder

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # raised whenever an older version could not read the files
_AGAIN = "run `crossfold prepare` again"
_RAW_TYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of one modality over the training frames of one fold.

    float32 [width]; of a raw spectrogram float32 [bands, 1].
    """

    mean: np.ndarray
    std: np.ndarray


class FeatureStore:
    """A store opened for reading; arrays stay on disk until frames are gathered."""

    def __init__(self, path: Path) -> None:
        """Raises `DataError` where a file is missing or has another shape than the manifest says."""
        self.path = path
        try:
            self.manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{path} is not a feature store: {error}", _AGAIN) from None
        if (found := self.manifest["format"]) != FORMAT:
            raise DataError(f"{path} has store format {found}, this version reads {FORMAT}", _AGAIN)
        self.corpus: str = self.manifest["corpus"]
        self.content_hash: str = self.manifest["content_hash"]
        self.targets: tuple[str, ...] = tuple(self.manifest["targets"])
        self.modalities: tuple[str, ...] = tuple(self.manifest["modalities"])
        # Not with pandas, which takes longer to import than all else here.
        with pyarrow.parquet.ParquetFile(path / "clips.parquet") as table:
            self.clips = tuple(ClipInfo(**row) for row in table.read().to_pylist())
        self._starts = np.concatenate([[0], np.cumsum([clip.frames for clip in self.clips])]).astype(np.int64)
        self._index = {clip.name: index for index, clip in enumerate(self.clips)}
        self.labels = self._map("labels.npy", (self.frames, len(self.targets)))
        self.valid = self._map("valid.npy", (self.frames, len(self.targets)))

    @property
    def frames(self) -> int:
        """N, the frames of all clips."""
        return int(self._starts[-1])

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """The folds that were fixed when the store was written."""
        return tuple(
            Fold(fold["index"], tuple(fold["train"]), tuple(fold["validation"])) for fold in self.manifest["folds"]
        )

    @cached_property
    def fold_rule(self) -> str:
        """The rule of the folds, a key of `FOLD_RULES`. Stores of earlier versions say none, and are recognised."""
        return str(self.manifest.get("fold_rule") or recognise_folds(self.clips, self.folds))

    def fold(self, index: int) -> Fold:
        """One fold; a wrong number answers with those there are."""
        if not 0 <= index < len(self.folds):
            raise UserError(f"fold {index} of {self.corpus}, which has folds 0-{len(self.folds) - 1}", "choose one")
        return self.folds[index]

    def target(self, name: str) -> Target:
        """A target with the range and unit of its labels."""
        return Target(name, **self.manifest.get("ranges", {}).get(name, {}))

    def rows(self, clip: str) -> slice:
        """The rows of one clip in every array."""
        index = self._index[clip]
        return slice(int(self._starts[index]), int(self._starts[index + 1]))

    def clip(self, name: str) -> ClipInfo:
        """Who and what a clip is."""
        return self.clips[self._index[name]]

    def width(self, modality: str) -> int:
        """d_m of the stored features; of raw input, all its numbers per frame."""
        return int(self._entry(modality)["width"])

    def frame_shape(self, modality: str) -> tuple[int, ...]:
        """Shape of one frame: (width,) of features, (48, 48, 3) of raw crops."""
        entry = self._entry(modality)
        return tuple(entry.get("shape", (entry["width"],)))

    def input_kind(self, modality: str) -> str | None:
        """What raw input it is (see `input_kinds`); None for extracted features."""
        kind: str | None = self._entry(modality).get("input")
        return kind

    def features(self, modality: str, fold: int) -> np.ndarray:
        """[N, *frame_shape], mapped read-only: what fold `fold` may see. float32, or the raw input as it is stored."""
        files = self._entry(modality)["files"]
        return self._map(files.get(str(fold), files.get("all")), (self.frames, *self.frame_shape(modality)))

    def fitted(self) -> dict[str, np.ndarray]:
        """`modality@fold.name` -> array that the encoder of a fold was fitted to; empty where no encoder is fitted.

        Stores of earlier versions have none either. Raises `DataError` where the file is damaged.
        """
        return read_fitted(self.path, self.manifest)

    def _entry(self, modality: str) -> dict[str, Any]:
        if modality not in self.modalities:
            there = f"store {self.path.name}, which has {', '.join(self.modalities)}"
            remedy = "prepare the corpus with it, or choose systems that do without"
            raise UserError(f"modality {modality!r} is not in {there}", remedy)
        entry: dict[str, Any] = self.manifest["modalities"][modality]
        return entry

    def normalisation(self, modality: str, fold: int) -> Normalisation | None:
        """Statistics of the training frames of a fold, of nothing else (D7); None for raw input used as it is."""
        stored = self.manifest["normalisation"][str(fold)].get(modality)
        if stored is None:
            return None
        return Normalisation(np.array(stored["mean"], np.float32), np.array(stored["std"], np.float32))

    def first_rows(self, rows: np.ndarray) -> np.ndarray:
        """The row at which the clip of each row begins, int64 of the shape of `rows`."""
        first: np.ndarray = self._starts[np.searchsorted(self._starts, rows, side="right") - 1]
        return first

    def present(self, modality: str) -> np.ndarray:
        """bool [N]: whether the modality had anything at the frame."""
        column = self.modalities.index(modality)
        present: np.ndarray = self._map("present.npy", (self.frames, len(self.modalities)))[:, column]
        return present

    @cached_property
    def spans(self) -> "pd.DataFrame":
        """Planted spans: clip, start, end, kind, modality, detail; empty where the corpus has no truth file."""
        import pandas as pd

        return pd.read_parquet(self.path / "spans.parquet")

    def _map(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array: np.ndarray = np.load(path_inside(self.path, name), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name} cannot be read: {error}", _AGAIN) from None
        if array.shape != shape:
            raise DataError(f"{self.path / name} has shape {array.shape}, the manifest says {shape}", _AGAIN)
        return array


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """What a store is of; all but the frames themselves."""

    corpus: str
    layout: str
    targets: Sequence[str | Target]
    """A bare name stands for a target in [-1, 1]."""
    clips: Sequence[ClipInfo]
    origin: Mapping[str, Any]
    """How the features were made (encoder, front end, versions); stored, and part of the hash."""
    folds: Sequence[Fold] | None = None
    """Else those of `make_folds`."""
    fold_rule: str = GROUPED
    """The rule that the folds follow."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The modalities that are raw input for a trainable backbone, with their kind (`input_kinds`)."""
    fitted: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the encoders of the folds were fitted to, as `FeatureStore.fitted` gives it back."""


def write_store(stores: Path, spec: StoreSpec, arrays: Callable[[ClipInfo], ClipArrays]) -> Path:
    """Writes a store under its content hash and returns its folder; an equal store is kept, not rewritten.

    An equal store of an earlier version is given the fitted arrays that it lacks; its hash stays the same.
    arrays: called once per clip, in order, so that memory does not grow with the corpus.
    Raises `DataError` where a clip brings other arrays than the first, too few rows, or values that are not finite.
    """
    import pandas as pd

    folds = tuple(spec.folds) if spec.folds is not None else make_folds(spec.clips, rule=spec.fold_rule)
    scales = [target if isinstance(target, Target) else Target(target) for target in spec.targets]
    # The final name is the content hash, which is known only when all is written.
    with temporary_folder(stores, spec.corpus) as draft:
        with ExitStack() as opened:
            manifest = _write_arrays(draft, spec, scales, arrays, opened)
        pd.DataFrame([asdict(clip) for clip in spec.clips]).to_parquet(draft / "clips.parquet", index=False)
        manifest |= {
            "format": FORMAT,
            "corpus": spec.corpus,
            "layout": spec.layout,
            "targets": [target.name for target in scales],
            "folds": [{"index": f.index, "train": list(f.train), "validation": list(f.validation)} for f in folds],
            "origin": dict(spec.origin),
        }
        # Plain ranges are not stored, so that the hashes of stores made before there were others stay as they are.
        if ranges := {t.name: {"low": t.low, "high": t.high, "unit": t.unit} for t in scales if t != Target(t.name)}:
            manifest["ranges"] = ranges
        # Neither is the rule of folds that were listed, or that are the official split alone.
        if len(folds) > 1 and spec.fold_rule in (GROUPED, AS_RELEASED):
            manifest["fold_rule"] = spec.fold_rule
        manifest["normalisation"] = _normalisation(draft, manifest, spec.clips, folds)
        manifest["content_hash"] = _content_hash(draft, manifest)
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        final = path_inside(stores, f"{spec.corpus}-{manifest['content_hash']}")
        if not (final / "manifest.json").is_file():
            shutil.rmtree(final, ignore_errors=True)  # what was left there has no manifest, so it is not whole
            publish_folder(draft, final)
        add_fitted(final, spec.fitted)
        return final


def _write_arrays(
    folder: Path,
    spec: StoreSpec,
    targets: Sequence[Target],
    arrays: Callable[[ClipInfo], ClipArrays],
    opened: ExitStack,
) -> dict[str, Any]:
    """Writes one clip after the other into files that `opened` closes."""
    total = sum(clip.frames for clip in spec.clips)
    files: dict[str, ArrayFile] = {}
    modalities: dict[str, dict[str, Any]] = {}
    spans: list[dict[str, Any]] = []

    def open_file(name: str, dtype: str, *shape: int) -> ArrayFile:
        return opened.enter_context(ArrayFile(folder / f"{name}.npy", dtype, (total, *shape)))

    for clip in spec.clips:
        brought = arrays(clip)
        _check_rows(clip, brought)
        if not files:
            # The first clip decides which files there are; `_check_shapes` holds all others to it.
            for key in sorted(brought.features, key=_modality_rank):
                array = brought.features[key]
                modality, _, fold = key.partition("@")
                entry = modalities.setdefault(modality, _entry(modality, array, spec.inputs.get(modality)))
                entry["files"][fold or "all"] = f"{key}.npy"
                files[key] = open_file(key, entry.get("dtype", "float32"), *array.shape[1:])
            files["labels"] = open_file("labels", "float32", len(targets))
            files["valid"] = open_file("valid", "bool", len(targets))
            files["present"] = open_file("present", "bool", len(modalities))
        _check_shapes(clip, brought, files, modalities)
        for key, array in brought.features.items():
            files[key].append(array)
        valid = labelled(brought.labels, targets)
        files["labels"].append(np.where(valid, brought.labels, np.float32(UNLABELLED)))
        files["valid"].append(valid)
        files["present"].append(np.stack([brought.present[modality] for modality in modalities], axis=1))
        spans += [{"clip": clip.name, **asdict(span)} for span in brought.spans]
    import pandas as pd

    columns = ["clip", *(field for field in Span.__dataclass_fields__)]
    pd.DataFrame(spans, columns=columns).to_parquet(folder / "spans.parquet", index=False)
    return {"modalities": modalities, "frames": total}


def _modality_rank(key: str) -> tuple[int, str]:
    modality = key.partition("@")[0]
    return (MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), key)


def _entry(modality: str, array: np.ndarray, kind: str | None) -> dict[str, Any]:
    """What the manifest says of a modality; raw input also says its shape, its type and its kind."""
    shape = list(array.shape[1:])
    if kind is None and len(shape) != 1:
        raise DataError(f"{modality} has the shape {shape} a frame", "features are a row of numbers; name raw input")
    entry: dict[str, Any] = {"width": int(np.prod(shape)), "files": {}}
    if kind is None:
        return entry
    if array.dtype.name not in _RAW_TYPES:
        raise DataError(f"{modality}: raw input of type {array.dtype.name}", f"store it as {', '.join(_RAW_TYPES)}")
    return entry | {"shape": shape, "dtype": array.dtype.name, "input": kind}


def _check_rows(clip: ClipInfo, brought: ClipArrays) -> None:
    """Every array of a clip has one row per frame and finite values, or nothing is written."""
    named = [*brought.features.items(), ("labels", brought.labels)]
    named += [(f"presence of {modality}", present) for modality, present in brought.present.items()]
    for name, array in named:
        problem = None
        if len(array) != clip.frames:
            problem = f"has {len(array)} rows for {clip.frames} frames"
        elif not _finite(array, or_nan=name == "labels"):
            problem = "has values that are not finite"
        if problem is not None:
            raise DataError(f"clip {clip.name}: {name} {problem}", "extract the clip again")


def _finite(array: np.ndarray, *, or_nan: bool) -> bool:
    # Raw crops are integers, which are always finite; parts keep memory low for hours of spectrograms.
    if array.dtype.kind not in "fc":
        return True
    parts = (array[begin : begin + CHUNK_ROWS] for begin in range(0, len(array), CHUNK_ROWS))
    return all((np.isfinite(part) | (np.isnan(part) if or_nan else False)).all() for part in parts)


def _check_shapes(
    clip: ClipInfo, brought: ClipArrays, files: Mapping[str, ArrayFile], modalities: Iterable[str]
) -> None:
    """A clip brings what the first one brought, as wide; numpy would stretch a single column without a word."""
    wanted = {name: array.shape[1:] for name, array in files.items() if name not in ("valid", "present")}
    shapes = {name: array.shape[1:] for name, array in {**brought.features, "labels": brought.labels}.items()}
    remedy = "extract all clips alike"
    if shapes != wanted or set(brought.present) != set(modalities):
        found = f"{_widths(shapes)}, with presence of {', '.join(sorted(brought.present))}"
        raise DataError(f"clip {clip.name} brings {found}; the first clip brought {_widths(wanted)}", remedy)
    for name, array in brought.features.items():
        first = files[name].dtype
        if first not in (np.float32, array.dtype):
            problem = f"{name} is {array.dtype.name}, of the first clip it was {first.name}"
            raise DataError(f"clip {clip.name}: {problem}", remedy)


def _widths(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))} wide" for name, shape in sorted(shapes.items()))


def _normalisation(
    folder: Path, manifest: Mapping[str, Any], clips: Sequence[ClipInfo], folds: Sequence[Fold]
) -> dict[str, Any]:
    """Per fold and modality: mean and std over the training frames where the modality is present.

    Raw input has none, but spectrograms in decibels, which have one of each band.
    """
    starts = dict(zip((c.name for c in clips), np.cumsum([0, *(c.frames for c in clips)])[:-1], strict=True))
    frames = {clip.name: clip.frames for clip in clips}
    present = np.load(folder / "present.npy", mmap_mode="r")
    stats: dict[str, Any] = {}
    for fold in folds:
        stats[str(fold.index)] = {}
        for column, (modality, entry) in enumerate(manifest["modalities"].items()):
            # Pictures and VGGish log-mel go to their backbones as they are.
            if "input" in entry and not standardised(entry["input"]):
                continue
            files = entry["files"]
            array = np.load(folder / files.get(str(fold.index), files.get("all")), mmap_mode="r")
            sums = Sums()
            for name in fold.train:
                rows = slice(int(starts[name]), int(starts[name]) + frames[name])
                sums.add(array[rows], np.asarray(present[rows, column]))
            mean, std = sums.mean_and_std(array.shape[1:])
            stats[str(fold.index)][modality] = {"mean": mean.tolist(), "std": std.tolist()}
    return stats


def verify_store(path: Path) -> None:
    """Reads a store from end to end. Raises `DataError` where its files are not those of its content hash."""
    store = FeatureStore(path)
    manifest = {key: value for key, value in store.manifest.items() if key not in ("content_hash", FITTED.stem)}
    found = _content_hash(path, manifest)
    if found != store.content_hash:
        problem = f"its files have content hash {found}, its manifest says {store.content_hash}"
        raise DataError(f"{path} is damaged: {problem}", f"copy the store again, or {_AGAIN}")
    store.fitted()


def _content_hash(folder: Path, manifest: Mapping[str, Any]) -> str:
    import pandas as pd

    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for path in sorted(folder.iterdir()):
        if path.name in ("manifest.json", FITTED.name):
            continue
        digest.update(path.name.encode())
        if path.suffix == ".parquet":
            # The file also names the library that wrote it; equal tables are equal whichever wrote them.
            digest.update(json.dumps(pd.read_parquet(path).to_dict("list"), sort_keys=True).encode())
            continue
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):  # 4 MiB
                digest.update(chunk)
    return digest.hexdigest()[:16]  # 64 bits: short enough for a folder, no clash in practice
