"""Corpus -> feature store: checked first, then read clip by clip in parallel, encoded, and written once.

What was read of a clip is kept under `stores/.preparing-<corpus>-<plan>-<key>/` until the store is there, so that a run
that was stopped goes on where it was. The key stands for the files (names, sizes, times) and for all that shapes the
numbers; a run that finds nothing changed returns the store of the last one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo, MediaClip
from crossfold.datasets.corpora.findings import Finding, refuse_errors
from crossfold.datasets.corpora.partitions import Fold, make_folds, read_fold_file
from crossfold.datasets.corpora.registry import EMBEDDED, Corpus, FeatureClip, Inspection, find_reader, is_asked
from crossfold.datasets.media.face_tracking import available, side_of_clip
from crossfold.datasets.store.feature_store import FORMAT, StoreSpec, write_store
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.core.process_pool import LocalWorkers, Workers
from crossfold.platform.features.extractors import Extractor, FeaturePlan, Origin, face_constants
from crossfold.platform.features.fold_fitting import (
    FoldTask,
    encode_folds,
    fit_light,
    fit_standards,
    fold_files,
    stored,
)
from crossfold.platform.features.pca_faces import LightEncoder, fitting_stride, measure
from crossfold.platform.features.read_clip import ClipTask, clip_folder, read_clip
from crossfold.platform.features.scratch import claim, clear, me
from crossfold.platform.workspace.workspace import Workspace

Progress = Callable[[str, int, int], None]
"""Called with the stage (check, read, fit, encode, write), how many of its steps are done, and how many there are."""

OpenWorkers = Callable[[Sequence[Path], str], Workers]
"""Brings workers for a device (`cpu` or `cuda`), who must all see some paths."""

RANDOM = "random-weights"
"""Ends the name of a store, and so of its corpus in every result, whose encoders know nothing."""
_FRAMES_A_PROCESS = 10_000


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Reports to nobody."""


def prepare(
    workspace: Workspace,
    corpus: str,
    root: Path,
    *,
    plan: FeaturePlan | None = None,
    weights: Path | None = None,
    device: str = "auto",
    processes: int | None = None,
    plugins: Sequence[Path] = (),
    open_workers: OpenWorkers | None = None,
    folds: Path | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = _silent,
) -> Path:
    """Builds the feature store of a corpus and returns its folder; the same bytes however it was interrupted.

    plan: which extractor makes each modality; None: those that need no weights.
    weights: folder of the pretrained weights, else as `weights.weights_folder` says.
    device: `cpu`, `cuda`, or `auto`, which is a GPU where a network is to be run and there is one.
    processes: how many read clips at a time; None: as many as have work enough. 1 starts no other process.
    plugins: files that register backbones, loaded by every worker.
    open_workers: who works instead of processes of this machine, such as Ray tasks.
    folds: a file of folds to use instead of those that follow from the corpus (`partitions.read_fold_file`).
    options: settings of the corpus's reader, such as a shift of the labels (`Corpus.options`).
    Raises `UserError` for a wrong name or missing weights, and `DataError` that lists what is wrong with the data,
    before any work is done.
    """
    root = root.resolve()
    entry = find_reader(corpus, root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")
    making = FeatureSettings.of(plan or FeaturePlan(), workspace, weights, device)
    key = _key(entry.sources(root), root, making, folds, options)
    memo = workspace.stores / ".prepared" / f"{corpus}-{key}.json"
    if (done := _remembered(memo)) is not None:
        return done
    _check_place(workspace)
    progress("check", 0, 1)
    inspection = entry.read(root, deep=True, options=options)
    _check_name(corpus, inspection, entry, root)
    refuse_errors(inspection.findings, root)
    if not inspection.clips:
        raise UserError(f"{root} holds no clip that {corpus} reads", f"`crossfold validate {corpus} --root {root}`")
    _check_plan(inspection, making, root)
    if folds is not None:
        inspection = replace(inspection, folds=read_fold_file(folds, [clip.info for clip in inspection.clips]))
    progress("check", 1, 1)
    scratch = workspace.stores / f".preparing-{corpus}-{making.digest}-{key}"
    if (owner := claim(scratch)) is not None:
        raise UserError(f"process {owner.rpartition('-')[2]} prepares the same here", "wait until it is done")
    if open_workers is not None:
        shared = [root, scratch, *making.files()]
        workers = open_workers(shared, making.device)
    else:
        clips = [clip.info for clip in inspection.clips]
        workers = LocalWorkers(processes or (1 if making.device == "cuda" else _worthwhile(clips, making)))
    job = _Job(workspace.stores, entry, inspection, root, scratch, making, workers, tuple(plugins), progress)
    store = job.build()
    write_json(memo, {"store": store.name, "root": str(root)})
    shutil.rmtree(scratch, ignore_errors=True)
    clear(workspace.stores, corpus, store.name.rpartition("-")[0], making.digest)
    return store


@dataclass(frozen=True)
class FeatureSettings:
    """A plan with all that shapes its numbers: where weights come from, and on what it is computed."""

    plan: FeaturePlan
    extractors: Mapping[str, Extractor]
    weights: Origin | None
    device: str
    origin: Mapping[str, Any]
    """How each modality is made, for the manifest of the store."""

    @classmethod
    def of(cls, plan: FeaturePlan, workspace: Workspace, weights: Path | None, device: str) -> "FeatureSettings":
        """Raises `UserError` for a wrong name or device, and where weights are missing."""
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device {device!r} is none of auto, cpu, cuda", "choose one")
        extractors = plan.chosen()
        if not extractors:
            raise UserError("the plan makes no modality", "name at least one of --audio, --visual, --text")
        networks = [extractor for extractor in extractors.values() if extractor.needs_weights]
        if not networks:
            return cls(plan, extractors, None, "cpu", {m: dict(e.front_end) for m, e in extractors.items()})
        # Torch takes seconds to import, and what follows needs it.
        from crossfold.platform.features.provenance import extractor_facts, weights_origin
        from crossfold.platform.modeling.determinism import pick_device

        device = pick_device(device)
        place = weights_origin(plan, workspace, weights)
        origin = {m: extractor_facts(extractor, place, device) for m, extractor in extractors.items()}
        return cls(plan, extractors, place, device, origin)

    def files(self) -> list[Path]:
        """Folders that workers read weights from."""
        read = [e for e in self.extractors.values() if e.needs_weights and (e.backbone is None or not self.random)]
        return [Path(self.weights.folder)] if self.weights is not None and read else []

    @property
    def random(self) -> bool:
        """Whether a backbone starts from random weights; the words of BERT are never random."""
        seeded = self.weights is not None and self.weights.seed is not None
        return seeded and any(extractor.backbone is not None for extractor in self.extractors.values())

    @property
    def digest(self) -> str:
        """Stands for the plan in file names."""
        text = json.dumps([self.plan.model_dump(), self.origin], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class _Job:
    """One corpus on its way to a store."""

    stores: Path
    entry: Corpus
    inspection: Inspection
    root: Path
    scratch: Path
    making: FeatureSettings
    workers: Workers
    plugins: tuple[Path, ...]
    progress: Progress

    def build(self) -> Path:
        """Reads, fits, encodes, writes."""
        infos = [clip.info for clip in self.inspection.clips]
        folds = self.inspection.folds or make_folds(infos)
        media = [clip for clip in self.inspection.clips if isinstance(clip, MediaClip)]
        sources: dict[str, Callable[[], ClipArrays]]
        if media:
            self._read(media)
            encoders = self._fit(media, folds)
            sources = {clip.info.name: _Encoded(clip, self, folds, encoders).arrays for clip in media}
        else:
            sources = {clip.info.name: clip.read for clip in self.inspection.clips if isinstance(clip, FeatureClip)}
        written = 0

        def arrays(info: ClipInfo) -> ClipArrays:
            nonlocal written
            brought = sources[info.name]()
            written += 1
            self.progress("write", written, len(infos))
            return brought

        random = bool(media) and self.making.random
        # One thread, because the number of threads decides the last bit of a matrix product.
        with threadpool_limits(1):
            return write_store(
                self.stores,
                StoreSpec(
                    corpus=f"{self.inspection.corpus}-{RANDOM}" if random else self.inspection.corpus,
                    layout=self.entry.layout,
                    targets=self.inspection.targets,
                    clips=infos,
                    origin=self._origin(media) | dict(self.inspection.origin),
                    folds=folds,
                    inputs={m: e.reads for m, e in self.making.extractors.items() if e.raw} if media else {},
                ),
                arrays,
                me(),
            )

    def _origin(self, media: Sequence[MediaClip]) -> dict[str, Any]:
        if not media:
            return {"features": "as given"}
        origin = {modality: dict(way) for modality, way in self.making.origin.items()}
        if "visual" in origin and self.making.plan.faces == "find" and _faceless(media):
            origin["visual"]["faces"] = face_constants(available() or "")
        return origin

    def _tasks(self, clips: Sequence[MediaClip]) -> list[ClipTask]:
        extractors = tuple(self.making.extractors.values())
        making = self.making
        return [
            ClipTask(clip, extractors, self.scratch, making.plan.faces, making.weights, making.device, self.plugins)
            for clip in clips
        ]

    def _read(self, clips: Sequence[MediaClip]) -> None:
        """Reads what is not in the scratch folder yet."""
        missing = [clip for clip in clips if not clip_folder(self.scratch, clip).is_dir()]
        self._work("read", read_clip, self._tasks(missing), missing, len(clips) - len(missing))

    def _work(
        self,
        stage: str,
        work: Callable[[Any], UserError | None],
        tasks: Sequence[Any],
        clips: Sequence[MediaClip],
        done: int,
    ) -> None:
        """Carries out a stage; files that turn out to be damaged are reported together, at the end."""
        total = done + len(tasks)
        findings: list[Finding] = []
        self.progress(stage, done, total)
        for index, error in self.workers(work, tasks) if tasks else ():
            if error is not None:
                findings.append(Finding(clips[index].info.name, "media-readable", error.problem, error.remedy))
            done += 1
            self.progress(stage, done, total)
        refuse_errors(sorted(findings, key=lambda finding: finding.file), self.root)

    def _fit(self, clips: Sequence[MediaClip], folds: Sequence[Fold]) -> dict[int, LightEncoder]:
        """Light encoders of all folds; features of standardised backbones go to the scratch folder."""
        light: dict[int, LightEncoder] = {}
        for modality, extractor in self.making.extractors.items():
            if extractor.name == "light":
                stride = fitting_stride([clip.info.frames for clip in clips])
                with threadpool_limits(1):
                    light = fit_light(clips, folds, self.scratch, stride, self._fitted)
            elif extractor.per_fold:
                standards = fit_standards(clips, folds, self.scratch, modality, self._fitted)
                tasks = [FoldTask(task, extractor, standards) for task in self._tasks(clips)]
                missing = [
                    index for index, task in enumerate(tasks) if not all(map(Path.is_file, fold_files(task).values()))
                ]
                left, owners = [tasks[index] for index in missing], [clips[index] for index in missing]
                self._work("encode", encode_folds, left, owners, len(tasks) - len(left))
        return light

    def _fitted(self, done: int, total: int) -> None:
        self.progress("fit", done, total)


@dataclass(frozen=True)
class _Encoded:
    """A clip that was read, ready for the store; large arrays stay on disk."""

    clip: MediaClip
    job: _Job
    folds: Sequence[Fold]
    light: Mapping[int, LightEncoder]

    def arrays(self) -> ClipArrays:
        features: dict[str, np.ndarray] = {}
        presence: dict[str, np.ndarray] = {}
        for modality, extractor in self.job.making.extractors.items():
            array, present = stored(self.job.scratch, self.clip, modality)
            presence[modality] = present
            if extractor.name == "light":
                measures = measure(array)
                encoded = {index: encoder.encode(measures, present) for index, encoder in self.light.items()}
                features |= {f"{modality}@{index}": codes for index, codes in encoded.items()}
            elif extractor.per_fold:
                folder = clip_folder(self.job.scratch, self.clip)
                names = [f"{modality}@{fold.index}" for fold in self.folds]
                features |= {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
            else:
                features[modality] = array
        return ClipArrays(features, presence, self.clip.labels, self.clip.spans)


def _key(
    files: Sequence[Path], root: Path, making: FeatureSettings, folds: Path | None, options: Mapping[str, Any] | None
) -> str:
    """Stands for the files by name, size and time, and for everything of ours that shapes the numbers."""
    shaped = [making.digest, available() if making.plan.faces == "find" else None, FORMAT]
    digest = hashlib.sha256(json.dumps(shaped).encode())
    if options:
        digest.update(json.dumps(dict(options), sort_keys=True, default=str).encode())
    if folds is not None and folds.is_file():
        digest.update(folds.read_bytes())
    for path in files:
        stat = path.stat()
        digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _remembered(memo: Path) -> Path | None:
    """The store that the last run on the same files wrote, if it is still there."""
    try:
        store = memo.parent.parent / str(json.loads(memo.read_text())["store"])
    except (OSError, ValueError, KeyError):
        return None
    return store if (store / "manifest.json").is_file() else None


def _check_place(workspace: Workspace) -> None:
    """Raises `UserError` where nothing can be written, before hours go by."""
    there = next(path for path in (workspace.stores, *workspace.stores.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        problem = f"the workspace {workspace.root} cannot be written: {there}: {error.strerror}"
        raise UserError(problem, "give a folder that you may write as --workspace") from None


def _check_name(asked: str, inspection: Inspection, entry: Corpus, root: Path) -> None:
    """Embedded data are prepared under their own name only, and nothing else under theirs."""
    found = inspection.corpus
    if is_asked(asked, found) or entry.names_itself:
        return
    name = EMBEDDED if is_asked(EMBEDDED, found) else found
    raise UserError(f"{root} holds {found}, not {asked}", f"run `crossfold prepare {name} --root {root}`")


def _check_plan(inspection: Inspection, making: FeatureSettings, root: Path) -> None:
    """Refuses a plan that these data cannot follow."""
    media = [clip for clip in inspection.clips if isinstance(clip, MediaClip)]
    if not media:
        if making.plan != FeaturePlan():
            raise UserError(
                f"{root} brings ready features; no extractor can be chosen for them",
                "leave out --audio, --visual and --text",
            )
        return
    words = making.extractors["text"].name if "text" in making.extractors else ""
    if words and "vosk" not in words and not any(clip.transcript is not None for clip in media):
        raise UserError(
            f"{root} has no transcript", "leave out --text, put transcripts beside the sound, or take --text vosk+bert"
        )
    faceless = _faceless(media) if "visual" in making.extractors and making.plan.faces == "find" else []
    if faceless and available() is None:
        raise UserError(
            f"{len(faceless)} of {len(media)} clips have no face crops, such as {faceless[0].info.name}",
            "pip install 'crossfold[faces]' to cut faces out of their videos, or pass --no-faces to do without",
        )
    subjects = Counter((clip.video, side_of_clip(clip.info.name, clip.info.video)) for clip in faceless)
    for clip in faceless:
        place = (clip.video, side_of_clip(clip.info.name, clip.info.video))
        others = [other.info.name for other in faceless if other.video == clip.video]
        if subjects[place] > 1 or (len(others) > 1 and not place[1]):
            raise UserError(
                f"clips {', '.join(others)} show subjects of one video, {clip.video}, and have no crops",
                "give crops, name two clips <video>_left and <video>_right after their halves, or pass --no-faces",
            )


def _faceless(clips: Sequence[MediaClip]) -> list[MediaClip]:
    """Clips whose faces must be found in the video."""
    return [clip for clip in clips if clip.crops is None and clip.video is not None]


def _worthwhile(clips: Sequence[ClipInfo], making: FeatureSettings) -> int:
    """Processes that pay: one takes seconds to start, in which this one reads thousands of frames."""
    networks = any(extractor.needs_weights for extractor in making.extractors.values())
    a_process = _FRAMES_A_PROCESS // 10 if networks else _FRAMES_A_PROCESS
    return max(1, min(os.cpu_count() or 1, sum(clip.frames for clip in clips) // a_process))
