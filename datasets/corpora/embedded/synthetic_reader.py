"""A folder of extracted features, as the corpus `synthetic` is written: nothing to decode, nothing to encode.

    clips.csv           clip,subject,partition,fps,frames
    <clip>.npz          float32 [frames, width] a modality, and `labels` [frames, 2]: valence, arousal; -5 unlabelled
    truth/spans.csv     optional: clip,start,end,kind,modality,detail

A row of nothing but zeros means that the modality has nothing there.
"""

import functools
import zipfile
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import VALENCE_AROUSAL, ClipArrays, ClipInfo, Span
from crossfold.datasets.corpora.embedded_truth import read_rows, read_spans
from crossfold.datasets.corpora.findings import Finding, check_targets
from crossfold.datasets.corpora.frame_labels import label_in_range
from crossfold.datasets.corpora.registry import CORPORA, Corpus, FeatureClip, Inspection
from crossfold.platform.core.errors import DataError
from crossfold.platform.core.files import path_inside

_COLUMNS = ("clip", "subject", "partition", "fps", "frames")
_REMEDY = "write the file again; `crossfold corpus synthetic OUT` shows the layout"


def inspect_features(root: Path, *, deep: bool) -> Inspection:
    """Clips and findings of a folder of features; `deep` also reads the arrays."""
    root = root.resolve()
    findings: list[Finding] = []
    spans = read_spans(root, findings)
    clips = []
    labels = []
    for info in _read_infos(root, findings):
        path = path_inside(root, f"{info.name}.npz")
        clip = FeatureClip(info, functools.partial(_read, path, info, tuple(spans.get(info.name, ()))))
        try:
            if deep or not path.is_file():
                labels.append(clip.read().labels)
            clips.append(clip)
        except DataError as error:
            findings.append(Finding(path.name, "features-readable", error.problem, error.remedy))
    findings += check_targets(labels, VALENCE_AROUSAL)
    return Inspection("synthetic", clips, tuple(findings))


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order."""
    root = root.resolve()
    return sorted([*root.glob("*.npz"), *root.glob("clips.csv"), *root.glob("truth/spans.csv")])


def _read_infos(root: Path, findings: list[Finding]) -> list[ClipInfo]:
    try:
        rows = read_rows(root / "clips.csv", _COLUMNS)
        infos = []
        for row in rows:
            name, subject, partition = row["clip"], row["subject"], row["partition"]
            # ValueError is caught below.
            video, fps, frames = row.get("video") or name, float(row["fps"]), int(row["frames"])
            infos.append(ClipInfo(name=name, video=video, subject=subject, partition=partition, fps=fps, frames=frames))
    except ValueError as error:
        findings.append(Finding("clips.csv", "clips-readable", f"is not the table it should be: {error}", _REMEDY))
        return []
    if not infos:
        findings.append(Finding("clips.csv", "clips-there", "is not there, or names no clip", _REMEDY))
    return infos


def _read(path: Path, info: ClipInfo, spans: tuple[Span, ...]) -> ClipArrays:
    try:
        with np.load(path) as data:
            arrays = {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        raise DataError(f"{path.name} is not there, or is damaged", _REMEDY) from None
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    labels = arrays.pop("labels", np.empty(0))
    wrong = [name for name, array in arrays.items() if array.ndim != 2 or len(array) != info.frames]
    if labels.shape != (info.frames, 2) or wrong or not arrays:
        needs = f"`labels` and every modality need {info.frames} rows"
        raise DataError(f"{path.name} holds {shapes or 'nothing'}; {needs}", _REMEDY)
    if not label_in_range(labels).all():
        raise DataError(f"{path.name} has labels outside [-1, 1] that are not -5", _REMEDY)
    present = {name: array.any(1) for name, array in arrays.items()}  # a row of zeros is none
    return ClipArrays({name: np.asarray(a, np.float32) for name, a in arrays.items()}, present, labels, spans)


CORPORA.register("synthetic", origin=__name__)(
    Corpus(
        description="features only, with planted complementary, conflicting, missing and corrupted spans; for tests",
        layout="clips.csv, <clip>.npz of arrays [frames, width] and `labels`, truth/spans.csv",
        needs="nothing: `crossfold corpus synthetic OUT` makes it",
        inspect=inspect_features,
        sources=source_files,
    )
)
