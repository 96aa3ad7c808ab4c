"""Any data, with no code: a folder with `manifest.csv`, one row per clip.

    clip                     its name
    subject                  who is in it: a subject is never on both sides of a split
    partition, fold          train, validation or test; or the number of the fold that reports the clip
    video, audio, crops      media, by paths from the folder; crops: a folder of 00001.jpg ..., one per frame
    transcript               words with times
    audio_features, visual_features, text_features      extracted features instead of media: .npy, .npz, .parquet
    features                 an .npz of several modalities; else features/<modality>/<clip>.npy are found by name
    labels                   a table or array of labels (see `labels.py`)
    label:<target>           one value for the whole clip or session
    rate                     frames per second, where no video says it

`manifest.yaml` may give the corpus a name, and its targets their ranges. Only `clip`, a partition or fold, media or
features, and labels are needed. With `fold` alone, fold k reports the clips marked k and trains on all others; with
`partition` too, fold 0 is the partition and fold k >= 1 reports the training clips marked k (E13).
"""

import functools
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import ClipInfo, MediaClip, Span, Target
from crossfold.datasets.corpora.discovery import composed, existing
from crossfold.datasets.corpora.embedded_truth import read_spans
from crossfold.datasets.corpora.findings import Finding, Report, has_errors, relative
from crossfold.datasets.corpora.manifest.features import (
    NAMED_SUFFIXES,
    SUFFIXES,
    FeatureFiles,
    FeatureRow,
    check_shapes,
    check_width,
    modalities_of_file,
)
from crossfold.datasets.corpora.manifest.labels import (
    Declaration,
    Labels,
    read_declared,
    read_label_file,
    settle_targets,
)
from crossfold.datasets.corpora.manifest.media import MediaFiles, inspect_media
from crossfold.datasets.corpora.manifest.paths import MANIFEST, hint_of, in_either_form, locate, unknown_columns
from crossfold.datasets.corpora.manifest.placing import place_labels
from crossfold.datasets.corpora.manifest.splits import Side, check_sides, folds_of
from crossfold.datasets.corpora.media_checks import check_transcript
from crossfold.datasets.corpora.registry import CORPORA, EMBEDDED, Corpus, FeatureClip, Inspection
from crossfold.datasets.corpora.table_places import Places, note_meanings
from crossfold.datasets.corpora.tables import Row, Table, read_number, read_table
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.platform.core.cell import MODALITIES

_FEATURES = {f"{modality}_features": modality for modality in MODALITIES}
_MEDIA = ("video", "audio", "crops")
_COLUMNS = (*("clip", "subject", "partition", "fold", *_MEDIA, "transcript", *_FEATURES, "features", "labels", "rate"),)
_NAME = re.compile(r"[^./\\\0][^/\\\0]{0,199}")  # clips name files, so no hidden ones and no folders
_CORPUS = re.compile(r"[a-z0-9][a-z0-9_-]*")  # corpora name folders of stores


@dataclass
class _Entry:
    """One row of the manifest: its files as they were found, and what is wrong with them."""

    side: Side
    media: MediaFiles
    transcript: Path | None
    features: dict[str, Path]
    labels: Labels
    findings: list[Finding] = field(default_factory=list)
    spans: tuple[Span, ...] = ()
    """What an embedded corpus planted."""


def inspect_manifest(root: Path, *, deep: bool) -> Inspection:
    """Clips and findings of a folder with a manifest; `deep` also reads every crop."""
    root = root.resolve()
    findings: list[Finding] = []
    declared = read_declared(root, findings)
    corpus = _corpus_name(declared.name, root, findings)
    table = _read_manifest(root, Report(MANIFEST, findings))
    if table is None:
        return Inspection(corpus, [], tuple(findings))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        entries = list(pool.map(lambda row: _read_entry(row, table, root, declared.targets), table.rows))
        spans = read_spans(root, findings)
        for entry in entries:
            entry.spans = tuple(spans.get(entry.side.clip, ()))
        targets = settle_targets(declared.targets, [entry.labels for entry in entries], findings)
        check_sides([entry.side for entry in entries], table.columns, Report(MANIFEST, findings))
        _check_kinds(entries, Report(MANIFEST, findings))
        _note_tables(entries, findings)
        first = _first_frame(entries, declared)
        clips: list[MediaClip] | list[FeatureClip]
        if any(entry.features for entry in entries):
            clips = _feature_clips(entries, root, targets, declared)
        else:
            found = pool.map(lambda entry: _media_clip(entry, root, targets, first, deep=deep), entries)
            clips = sorted((clip for clip in found if clip is not None), key=lambda clip: clip.info.name)
            _check_modalities(clips, Report(MANIFEST, findings))
    findings += [finding for entry in entries for finding in entry.findings]
    folds = None if has_errors(findings) else folds_of([entry.side for entry in entries])
    # A file that two rows name is checked twice.
    return Inspection(corpus, clips, tuple(dict.fromkeys(findings)), targets, folds)


def _corpus_name(name: str | None, root: Path, findings: list[Finding]) -> str:
    """The name that the folder gives itself, unless it is that of another corpus; embedded data keep theirs."""
    if (root / "puppets.json").is_file():
        return f"{EMBEDDED}-manifest"
    if name is None:
        return "manifest"
    if name.startswith(EMBEDDED) or not _CORPUS.fullmatch(name) or (name in CORPORA and name != "manifest"):
        problem = f"name {name!r} is taken, or cannot name a folder"
        remedy = "choose another, of lower-case letters, digits, - and _"
        Report("manifest.yaml", findings).error("name", problem, remedy)
        return "manifest"
    return name


def _read_manifest(root: Path, report: Report) -> Table | None:
    path = root / MANIFEST
    if not path.is_file():
        tables = [entry.name for entry in root.iterdir() if entry.suffix.lower() in (".csv", ".txt")]
        remedy = "write one row per clip; `crossfold corpus puppets OUT --layout manifest` shows how"
        report.error("manifest-there", f"is not there{hint_of(MANIFEST, tables)}", remedy)
        return None
    table = read_table(path, root, report.findings, _COLUMNS, gaps=True)
    if table is None:
        return None
    unknown_columns(table.columns, _COLUMNS, report)
    if "clip" not in table.columns:
        report.error("column-clip", "has no column `clip`", "give each row a name of its own")
        return None
    return table


def _read_entry(row: Row, table: Table, root: Path, declared: Sequence[Target] | None) -> _Entry:
    """A row, its paths and its labels. What is wrong is kept with it."""
    findings: list[Finding] = []
    report = Report(MANIFEST, findings)
    cells = row.cells

    def path(column: str, *, folder: bool = False) -> Path | None:
        cell = cells.get(column, "")
        return locate(cell, column, row.line, root, findings, folder=folder) if cell else None

    name = composed(cells["clip"])
    if not _NAME.fullmatch(name):
        report.error("clip-name", f"line {row.line}: {name!r} cannot name a clip", "use letters, digits, - and _")
    rate = _number(cells.get("rate", ""), "rate", row, table, report)
    if rate is not None and not 0 < rate <= 1000:
        remedy = "give frames per second, above 0, at most 1000"
        report.error("rate", f"line {row.line}: rate {rate:g}", remedy)
        rate = None
    media = MediaFiles(row.line, path("video"), path("audio"), path("crops", folder=True), rate)
    features = _feature_files(name, {c: path(c) for c in (*_FEATURES, "features")}, row, root, findings)
    if not any(cells.get(column) for column in (*_MEDIA, *_FEATURES, "features")) and not features:
        problem = f"line {row.line}: clip {name!r} has no video, audio, crops or features"
        report.error("media-there", problem, "name at least one of them, or take the row out")
    source = media.video or media.audio
    video = composed(source.relative_to(root).with_suffix("").as_posix()) if source is not None else name
    subject, partition, fold = (composed(cells.get(column, "")) for column in ("subject", "partition", "fold"))
    side = Side(line=row.line, clip=name, video=video, subject=subject, partition=partition, fold=fold)
    file = path("labels")
    columns, places = read_label_file(file, root, declared, findings) if file is not None else ({}, Places())
    whole = _whole_values(row, table, columns, report)
    labels = Labels(relative(file, root) if file is not None else MANIFEST, columns, places, whole)
    return _Entry(side, media, path("transcript"), features, labels, findings)


def _number(cell: str, column: str, row: Row, table: Table, report: Report) -> float | None:
    """A number of the manifest; nothing where the cell is empty or, with a finding, no number."""
    try:
        value = read_number(cell, table.decimal_comma)
    except ValueError:
        problem = f"line {row.line}: {column} is {cell[:40]!r}, not a number"
        report.error("number", problem, "correct it, or leave the cell empty")
        return None
    return None if np.isnan(value) else value


def _feature_files(
    clip: str, given: Mapping[str, Path | None], row: Row, root: Path, findings: list[Finding]
) -> dict[str, Path]:
    """Feature files by modality: those that the row names, else those that lie in `features/<modality>/`."""
    report = Report(MANIFEST, findings)
    files: dict[str, Path] = {}
    for column, path in given.items():
        if path is None:
            continue
        if path.suffix.lower() not in NAMED_SUFFIXES:
            problem = f"line {row.line}: {column} {row.cells[column]!r} is no {', '.join(NAMED_SUFFIXES)} file"
            report.error("features-kind", problem, "write the features as one of these")
        elif column != "features":
            files[_FEATURES[column]] = path
        elif inside := modalities_of_file(path):
            files |= {modality: path for modality in inside if modality not in files}
        else:
            problem = f"holds no array named {', '.join(MODALITIES)}"
            Report(relative(path, root), findings).error("features-readable", problem, "write it with numpy.savez")
    if _NAME.fullmatch(clip) and not any(row.cells.get(column) for column in (*given, *_MEDIA)):
        for modality in MODALITIES:
            folder = Path("features", modality)
            paths = [in_either_form(root / folder / f"{clip}{suffix}", root) for suffix in SUFFIXES]
            found = [path for path in paths if path.is_file()]
            if len(found) > 1:
                names = " and ".join(relative(path, root) for path in found)
                report.error("features-once", f"clip {clip} has {names}", "keep one")
            if found:
                files[modality] = found[0]
    return {modality: files[modality] for modality in MODALITIES if modality in files}


def _whole_values(row: Row, table: Table, columns: Mapping[str, np.ndarray], report: Report) -> dict[str, float]:
    """The values of `label:<target>`, which hold for the whole clip, of targets that have no column in its file."""
    whole = {}
    for column in table.columns:
        name = column.removeprefix("label:")
        if name == column:
            continue
        value = _number(row.cells[column], column, row, table, report)
        if name not in columns:
            whole[name] = np.nan if value is None else value
        elif value is not None:
            problem = f"line {row.line}: {name} has a value for the whole clip, and a column in its file of labels"
            report.error("label-once", problem, "keep one of the two")
    return whole


def _check_kinds(entries: Sequence[_Entry], report: Report) -> None:
    """A corpus is media or features: the two cannot be compared."""
    media = [e.media.line for e in entries if e.media.video or e.media.audio or e.media.crops]
    features = [e.media.line for e in entries if e.features]
    if media and features:
        remedy = "give features for every clip, or for none: then they are made from the media"
        report.error("media-or-features", f"line {media[0]} names media and line {features[0]} features", remedy)


def _check_modalities(clips: Sequence[MediaClip], report: Report) -> None:
    """A modality that no clip has would be zeros in every frame."""
    pictures = any(clip.crops is not None or clip.video is not None for clip in clips)
    sound = any(clip.audio is not None for clip in clips)
    for there, what, modality in ((pictures, "video or crops", "visual"), (sound, "sound", "audio")):
        if clips and not there:
            remedy = f"prepare with `--{modality} none`: then `plan` skips systems that need it"
            report.warning("modality-there", f"no clip has {what}", remedy)


def _info(side: Side, axis: TimeAxis) -> ClipInfo:
    name, video, subject, part = side.clip, side.video, side.who, side.part or "train"
    return ClipInfo(name=name, video=video, subject=subject, partition=part, fps=axis.fps, frames=axis.frames)


def _note_tables(entries: Sequence[_Entry], findings: list[Finding]) -> None:
    """What the columns of tables of labels were taken for, once for each way in which they are written."""
    taken = [
        (entry.labels.file, "; ".join((*entry.labels.places.said, f"targets: {', '.join(entry.labels.columns)}")))
        for entry in entries
        if entry.labels.places.said
    ]
    note_meanings("labels", taken, findings)


def _first_frame(entries: Sequence[_Entry], declared: Declaration) -> int | None:
    """The number of the first frame in tables of labels: as declared, or 0 where any of them has a frame 0."""
    places = [entry.labels.places for entry in entries]
    zero = any(place.way == "frame" and place.first.size and place.first.min() == 0 for place in places)
    return 0 if declared.first_frame is None and zero else declared.first_frame


def _place(entry: _Entry, axis: TimeAxis, targets: Sequence[Target], first: int | None) -> np.ndarray:
    found: list[Finding] = []
    labels = place_labels(entry.labels, axis, targets, found, first)
    # A test part has no labels where its owners keep them, and a file that cannot be read has none, of course.
    broken = any(f.file == entry.labels.file and f.severity == "error" for f in entry.findings)
    none = broken or entry.side.part == "test"
    entry.findings += [f for f in found if not (none and f.rule == "label-none")]
    return labels


def _media_clip(
    entry: _Entry, root: Path, targets: Sequence[Target], first: int | None, *, deep: bool
) -> MediaClip | None:
    files = entry.media
    if not (files.video or files.audio or files.crops):
        return None
    # Errors of its labels do not keep the media of a row from being inspected.
    found: list[Finding] = []
    media = inspect_media(files, root, found, deep=deep)
    entry.findings += found
    if media is None:
        return None
    labels = _place(entry, media.axis, targets, first)
    if entry.transcript is not None:
        entry.findings += check_transcript(entry.transcript, media.axis.seconds, root)
    if has_errors(entry.findings):
        return None
    info, spans, transcript = _info(entry.side, media.axis), entry.spans, entry.transcript
    crops, audio, video, times = files.crops, media.audio, files.video, media.times
    return MediaClip(
        info=info, labels=labels, crops=crops, audio=audio, video=video, spans=spans, times=times, transcript=transcript
    )


def _feature_clips(
    entries: Sequence[_Entry], root: Path, targets: Sequence[Target], declared: Declaration
) -> list[FeatureClip]:
    origin = _first_frame(entries, declared)
    first: dict[str, tuple[int, str]] = {}
    lengths: dict[str, int] = {}
    usable = [entry for entry in entries if entry.features]
    for entry in usable:
        clip = entry.side.clip
        row = FeatureRow(clip, entry.features, entry.media.line, entry.media.rate, declared.first_frame)
        shapes = check_shapes(row, root, entry.findings)
        for modality, (lengths[clip], width) in shapes.items():
            report = Report(relative(entry.features[modality], root), entry.findings)
            check_width(modality, width, first, clip, report)
    widths = {modality: first[modality][0] for modality in MODALITIES if modality in first}
    clips = []
    for entry in usable:
        if entry.side.clip not in lengths or has_errors(entry.findings):
            continue
        if entry.media.rate is None:
            remedy = "give the features' rows per second in column rate"
            Report(MANIFEST, entry.findings).error("rate", f"line {entry.media.line}: no rate", remedy)
            continue
        axis = TimeAxis(np.arange(lengths[entry.side.clip]) / entry.media.rate, entry.media.rate)
        labels = _place(entry, axis, targets, origin)
        if not has_errors(entry.findings):
            info = _info(entry.side, axis)
            brought = FeatureFiles(entry.features, widths, labels, entry.spans, entry.media.rate, declared.first_frame)
            clips.append(FeatureClip(info, functools.partial(brought.read, info)))
    return sorted(clips, key=lambda clip: clip.info.name)


def source_files(root: Path) -> list[Path]:
    """Every file that the clips depend on, in order: those that the manifest names, and those that may be found."""
    root = root.resolve()
    path = root / MANIFEST
    table = read_table(path, root, [], _COLUMNS, gaps=True) if path.is_file() else None
    files = {root / MANIFEST, root / "manifest.yaml"}
    for row in table.rows if table is not None else ():
        for column in (*_MEDIA, *_FEATURES, "features", "labels", "transcript"):
            cell, folder = row.cells.get(column), column == "crops"
            if cell and (found := locate(cell, column, row.line, root, [], folder=folder)):
                files |= {Path(entry) for entry in os.scandir(found)} if folder else {found}
    for suffix in SUFFIXES:
        files |= set(root.glob(f"features/*/*{suffix}"))  # found by the names of clips
    return existing(root, files)


CORPORA.register("manifest", origin=__name__)(
    Corpus(
        description="any folder: a table of clips with media or extracted features, any labels",
        layout="manifest.csv, manifest.yaml for names and ranges, and whatever files the table names",
        needs="nothing: `crossfold corpus puppets OUT --layout manifest` makes one to look at",
        inspect=inspect_manifest,
        sources=source_files,
        names_itself=True,
    )
)
