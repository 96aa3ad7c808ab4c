"""The feature store: a corpus prepared once, memory-mapped ever after.

`<corpus>-<hash>/` holds `manifest.json`, one `<modality>.npy` (or `<modality>@<fold>.npy` where an encoder
was fitted per fold) of float32 [N, width], `labels.npy` float32 [N, targets], `valid.npy` bool [N, targets],
`present.npy` bool [N, modalities], `clips.parquet` and `spans.parquet`. N counts the frames of all clips,
one after the other.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crossfold.datasets.clips import UNLABELLED, ClipArrays, ClipInfo, Span
from crossfold.datasets.partitions import Fold, make_folds
from crossfold.platform.errors import DataError, UserError

FORMAT = 1
MODALITY_ORDER = ("audio", "visual", "text")


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of one modality over the training frames of one fold: float32 [width]."""

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
            raise DataError(f"{path} is not a feature store: {error}", "run `crossfold prepare` again") from None
        if self.manifest["format"] != FORMAT:
            raise DataError(
                f"{path} has store format {self.manifest['format']}, this version reads {FORMAT}",
                "run `crossfold prepare` again",
            )
        self.corpus: str = self.manifest["corpus"]
        self.content_hash: str = self.manifest["content_hash"]
        self.targets: tuple[str, ...] = tuple(self.manifest["targets"])
        self.modalities: tuple[str, ...] = tuple(self.manifest["modalities"])
        table = pd.read_parquet(path / "clips.parquet")
        self.clips = tuple(
            ClipInfo(**{str(key): value for key, value in row.items()}) for row in table.to_dict("records")
        )
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

    def fold(self, index: int) -> Fold:
        """One fold; a wrong number answers with those there are."""
        if not 0 <= index < len(self.folds):
            raise UserError(f"fold {index} of {self.corpus}, which has folds 0-{len(self.folds) - 1}", "choose one")
        return self.folds[index]

    def rows(self, clip: str) -> slice:
        """The rows of one clip in every array."""
        index = self._index[clip]
        return slice(int(self._starts[index]), int(self._starts[index + 1]))

    def clip(self, name: str) -> ClipInfo:
        """Who and what a clip is."""
        return self.clips[self._index[name]]

    def width(self, modality: str) -> int:
        """d_m of the stored features."""
        self._require(modality)
        return int(self.manifest["modalities"][modality]["width"])

    def features(self, modality: str, fold: int) -> np.ndarray:
        """float32 [N, width], mapped read-only: the features that fold `fold` may see."""
        self._require(modality)
        files = self.manifest["modalities"][modality]["files"]
        return self._map(files.get(str(fold), files.get("all")), (self.frames, self.width(modality)))

    def _require(self, modality: str) -> None:
        if modality not in self.modalities:
            raise UserError(
                f"modality {modality!r} is not in store {self.path.name}, which has {', '.join(self.modalities)}",
                "prepare the corpus with it, or choose systems that do without",
            )

    def normalisation(self, modality: str, fold: int) -> Normalisation:
        """Statistics of the training frames of a fold; of nothing else (D7)."""
        stored = self.manifest["normalisation"][str(fold)][modality]
        return Normalisation(np.array(stored["mean"], np.float32), np.array(stored["std"], np.float32))

    def present(self, modality: str) -> np.ndarray:
        """bool [N]: whether the modality had anything at the frame."""
        column = self.modalities.index(modality)
        present: np.ndarray = self._map("present.npy", (self.frames, len(self.modalities)))[:, column]
        return present

    @cached_property
    def spans(self) -> pd.DataFrame:
        """Planted spans: clip, start, end, kind, modality, detail; empty where the corpus has no truth file."""
        return pd.read_parquet(self.path / "spans.parquet")

    def _map(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path / name, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name} cannot be read: {error}", "run `crossfold prepare` again") from None
        if array.shape != shape:
            raise DataError(
                f"{self.path / name} has shape {array.shape}, the manifest says {shape}",
                "run `crossfold prepare` again",
            )
        return array


def write_store(
    stores: Path,
    *,
    corpus: str,
    layout: str,
    targets: Sequence[str],
    clips: Sequence[ClipInfo],
    arrays: Callable[[ClipInfo], ClipArrays],
    origin: Mapping[str, Any],
    folds: Sequence[Fold] | None = None,
) -> Path:
    """Writes a store under its content hash and returns its folder; an equal store is kept, not rewritten.

    arrays: called once a clip, in order, so that memory does not grow with the corpus.
    origin: how the features were made (encoder, front end, versions); stored, and part of the hash.
    """
    stores.mkdir(parents=True, exist_ok=True)
    folds = tuple(folds) if folds is not None else make_folds(clips)
    beside = Path(tempfile.mkdtemp(prefix=f".{corpus}-", dir=stores))
    try:
        manifest = _write_arrays(beside, targets, clips, arrays)
        pd.DataFrame([asdict(clip) for clip in clips]).to_parquet(beside / "clips.parquet", index=False)
        manifest |= {
            "format": FORMAT,
            "corpus": corpus,
            "layout": layout,
            "targets": list(targets),
            "folds": [{"index": f.index, "train": list(f.train), "validation": list(f.validation)} for f in folds],
            "origin": dict(origin),
        }
        manifest["normalisation"] = _normalisation(beside, manifest, clips, folds)
        manifest["content_hash"] = _content_hash(beside, manifest)
        (beside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        final = stores / f"{corpus}-{manifest['content_hash']}"
        if not (final / "manifest.json").is_file():
            shutil.rmtree(final, ignore_errors=True)
            beside.chmod(0o755)
            beside.rename(final)
        return final
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_arrays(
    folder: Path, targets: Sequence[str], clips: Sequence[ClipInfo], arrays: Callable[[ClipInfo], ClipArrays]
) -> dict[str, Any]:
    total = sum(clip.frames for clip in clips)
    maps: dict[str, np.ndarray] = {}
    modalities: dict[str, dict[str, Any]] = {}
    spans: list[dict[str, Any]] = []
    start = 0

    def open_map(name: str, dtype: type, width: int) -> np.ndarray:
        return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(total, width))

    for clip in clips:
        brought = arrays(clip)
        _check_rows(clip, brought)
        if not maps:
            for key in sorted(brought.features, key=_modality_rank):
                width = brought.features[key].shape[1]
                modality, _, fold = key.partition("@")
                entry = modalities.setdefault(modality, {"width": width, "files": {}})
                entry["files"][fold or "all"] = f"{key}.npy"
                maps[key] = open_map(key, np.float32, width)
            maps["labels"] = open_map("labels", np.float32, len(targets))
            maps["valid"] = open_map("valid", np.bool_, len(targets))
            maps["present"] = open_map("present", np.bool_, len(modalities))
        _check_widths(clip, brought, maps, modalities)
        rows = slice(start, start + clip.frames)
        for key, array in brought.features.items():
            maps[key][rows] = array
        maps["labels"][rows] = brought.labels
        maps["valid"][rows] = brought.labels > UNLABELLED + 0.5
        for column, modality in enumerate(modalities):
            maps["present"][rows, column] = brought.present[modality]
        spans += [{"clip": clip.name, **asdict(span)} for span in brought.spans]
        start += clip.frames
    for array in maps.values():
        assert isinstance(array, np.memmap)
        array.flush()
    columns = ["clip", *(field for field in Span.__dataclass_fields__)]
    pd.DataFrame(spans, columns=columns).to_parquet(folder / "spans.parquet", index=False)
    return {"modalities": modalities, "frames": total}


def _modality_rank(key: str) -> tuple[int, str]:
    modality = key.partition("@")[0]
    return (MODALITY_ORDER.index(modality) if modality in MODALITY_ORDER else len(MODALITY_ORDER), key)


def _check_rows(clip: ClipInfo, brought: ClipArrays) -> None:
    """Every array of a clip has one row a frame and finite values, or nothing is written."""
    named = [*brought.features.items(), ("labels", brought.labels)]
    named += [(f"presence of {modality}", present) for modality, present in brought.present.items()]
    for name, array in named:
        if len(array) != clip.frames:
            raise DataError(
                f"clip {clip.name}: {name} has {len(array)} rows for {clip.frames} frames", "extract the clip again"
            )
        if not np.isfinite(array).all():
            raise DataError(f"clip {clip.name}: {name} has values that are not finite", "extract the clip again")


def _check_widths(
    clip: ClipInfo, brought: ClipArrays, maps: Mapping[str, np.ndarray], modalities: Iterable[str]
) -> None:
    """A clip brings what the first one brought, as wide; numpy would stretch a single column without a word."""
    wanted = {name: array.shape[1] for name, array in maps.items() if name not in ("valid", "present")}
    widths = {name: array.shape[1] for name, array in {**brought.features, "labels": brought.labels}.items()}
    if widths != wanted or set(brought.present) != set(modalities):
        raise DataError(
            f"clip {clip.name} brings {_widths(widths)}, with presence of {', '.join(sorted(brought.present))}; "
            f"the first clip brought {_widths(wanted)}",
            "extract all clips alike",
        )


def _widths(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width} wide" for name, width in sorted(widths.items()))


def _normalisation(
    folder: Path, manifest: Mapping[str, Any], clips: Sequence[ClipInfo], folds: Sequence[Fold]
) -> dict[str, Any]:
    """Per fold and modality: mean and std over the training frames where the modality is present."""
    starts = dict(zip((c.name for c in clips), np.cumsum([0, *(c.frames for c in clips)])[:-1], strict=True))
    frames = {clip.name: clip.frames for clip in clips}
    present = np.load(folder / "present.npy", mmap_mode="r")
    stats: dict[str, Any] = {}
    for fold in folds:
        stats[str(fold.index)] = {}
        for column, (modality, entry) in enumerate(manifest["modalities"].items()):
            files = entry["files"]
            array = np.load(folder / files.get(str(fold.index), files.get("all")), mmap_mode="r")
            count, total, squares = 0, np.zeros(entry["width"]), np.zeros(entry["width"])
            for name in fold.train:
                rows = slice(int(starts[name]), int(starts[name]) + frames[name])
                seen = np.asarray(array[rows], np.float64)[np.asarray(present[rows, column])]
                count += len(seen)
                total += seen.sum(0)
                squares += (seen**2).sum(0)
            mean = total / max(count, 1)
            std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
            std[std < 1e-6] = 1.0
            stats[str(fold.index)][modality] = {
                "mean": mean.astype(np.float32).tolist(),
                "std": std.astype(np.float32).tolist(),
            }
    return stats


def _content_hash(folder: Path, manifest: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        if path.suffix == ".parquet":
            # The file also tells which library wrote it; equal tables are equal whoever wrote them.
            digest.update(json.dumps(pd.read_parquet(path).to_dict("list"), sort_keys=True).encode())
            continue
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()[:16]
