"""Corpus -> feature store: checked first, then read clip by clip in parallel, encoded, and written once.

What was read of a clip is kept under `stores/.preparing-<corpus>-<plan>-<key>/` until the store is there, so that a run
that was stopped goes on where it was. The key stands for the files (names, sizes, times) and for all that shapes the
numbers; a run that finds nothing changed returns the store of the last one.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo, MediaClip
from crossfold.datasets.corpora.findings import Finding, refuse_errors
from crossfold.datasets.corpora.partitions import Fold, FoldTable, choose_folds, read_fold_file
from crossfold.datasets.corpora.registry import EMBEDDED, Corpus, FeatureClip, Inspection, find_reader, is_asked
from crossfold.datasets.store.feature_store import FORMAT, FeatureStore, StoreSpec, write_store
from crossfold.platform.core.cell import AS_RELEASED, EARLIER_FOLDS
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import remove_drafts, remove_folder, write_json
from crossfold.platform.core.process_pool import LocalWorkers, Workers
from crossfold.platform.features.feature_settings import FeatureSettings, Preparation
from crossfold.platform.features.fitted_encoders import lacks_fitted, light_arrays, standard_arrays
from crossfold.platform.features.fold_fitting import FoldTask, encode_folds, fit_light, fit_standards, measured, stored
from crossfold.platform.features.pca_faces import LightEncoder, fitting_stride
from crossfold.platform.features.read_clip import ClipTask, clip_folder, read_clip
from crossfold.platform.features.scratch import acquire, prune
from crossfold.platform.workspace.workspace import Workspace

Progress = Callable[[str, int, int], None]
"""Called with the stage (check, read, fit, encode, write), how many of its steps are done, and how many there are."""

OpenWorkers = Callable[[Sequence[Path], str], Workers]
"""Brings workers for a device (`cpu` or `cuda`), who must all see some paths."""

RANDOM = "random-weights"
"""Ends the name of a store, and so of its corpus in every result, whose encoders have random weights."""
_FRAMES_A_PROCESS = 10_000


def prepare(
    workspace: Workspace,
    corpus: str,
    root: Path,
    asked: Preparation | None = None,
    *,
    processes: int | None = None,
    open_workers: OpenWorkers | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """Builds the feature store of a corpus and returns its folder; the same bytes however it was interrupted.

    processes: how many read clips at a time; None: as many as have work enough. 1 starts no other process.
    open_workers: who works instead of processes of this machine, such as Ray tasks.
    Raises `UserError` for a wrong name or missing weights, and `DataError` that lists what is wrong with the data,
    before any work is done.
    """
    root, asked = root.resolve(), asked or Preparation()
    entry = find_reader(corpus, root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")
    settings = FeatureSettings.of(asked, workspace)
    key = _key(entry.sources(root), root, settings, asked)
    memo = workspace.paths.stores / ".prepared" / f"{corpus}-{key}.json"
    if (done := _remembered(memo, asked)) is not None:
        # A run that was killed after its last step has left what it read.
        prune(workspace.paths.stores, corpus, settings.digest)
        return done
    remove_drafts(workspace.paths.stores)
    _check_writable(workspace)
    progress("check", 0, 1)
    inspection = entry.read(root, deep=True, options=asked.options)
    _check_name(corpus, inspection, entry, root)
    refuse_errors(inspection.findings, root)
    if not inspection.clips:
        raise UserError(f"{root} holds no clip that {corpus} reads", f"`crossfold validate {corpus} --root {root}`")
    # Before any clip is read, which takes hours.
    settings.check(inspection, root)
    clips = [clip.info for clip in inspection.clips]
    folds = _folds(inspection, asked)
    progress("check", 1, 1)
    scratch = workspace.paths.stores / f".preparing-{corpus}-{settings.digest}-{key}"
    if (owner := acquire(scratch)) is not None:
        raise UserError(f"process {owner.rpartition('-')[2]} prepares the same here", "wait until it is done")
    remove_drafts(scratch, recursive=True)
    if open_workers is not None:
        workers = open_workers([root, scratch, *settings.files()], settings.device)
    else:
        workers = LocalWorkers(processes or (1 if settings.device == "cuda" else _worthwhile(clips, settings)))
    job = _Job(
        workspace.paths.stores, entry, inspection, folds, root, scratch, settings, workers, asked.plugins, progress
    )
    store = job.build()
    write_json(memo, {"store": store.name, "root": str(root), "fold_rule": folds.rule})
    # After the memo: a run that is killed in between finds its store.
    remove_folder(scratch)
    prune(workspace.paths.stores, corpus, settings.digest)
    return store


@dataclass(frozen=True)
class _Job:
    """One corpus on its way to a store."""

    stores: Path
    entry: Corpus
    inspection: Inspection
    table: FoldTable
    root: Path
    scratch: Path
    settings: FeatureSettings
    workers: Workers
    plugins: tuple[Path, ...]
    progress: Progress

    def build(self) -> Path:
        """Reads, fits, encodes, writes."""
        infos = [clip.info for clip in self.inspection.clips]
        folds = self.table.folds
        media = [clip for clip in self.inspection.clips if isinstance(clip, MediaClip)]
        read = {clip.info.name: clip.read for clip in self.inspection.clips if isinstance(clip, FeatureClip)}
        fitted: dict[str, np.ndarray] = {}
        if media:
            missing = [task for task in self._tasks(media) if not clip_folder(self.scratch, task.clip).is_dir()]
            self._work("read", read_clip, missing, len(media))
            light, standards = self._fit(media, folds)
            read = {clip.info.name: partial(self._arrays, clip, folds, light) for clip in media}
            fitted = light_arrays(light) | standards
        written = 0

        def arrays(info: ClipInfo) -> ClipArrays:
            nonlocal written
            brought = read[info.name]()
            written += 1
            self.progress("write", written, len(infos))
            return brought

        random = bool(media) and self.settings.random
        # One thread, because the number of threads decides the last bit of a matrix product.
        with threadpool_limits(1):
            return write_store(
                self.stores,
                StoreSpec(
                    corpus=f"{self.inspection.corpus}-{RANDOM}" if random else self.inspection.corpus,
                    layout=self.entry.layout,
                    targets=self.inspection.targets,
                    clips=infos,
                    origin=(self.settings.origin_of(media) if media else {"features": "as given"})
                    | dict(self.inspection.origin),
                    folds=folds,
                    fold_rule=self.table.rule,
                    inputs={m: e.reads for m, e in self.settings.extractors.items() if e.raw} if media else {},
                    fitted=fitted,
                ),
                arrays,
            )

    def _tasks(self, clips: Sequence[MediaClip]) -> list[ClipTask]:
        settings, extractors = self.settings, tuple(self.settings.extractors.values())
        return [
            ClipTask(
                clip, extractors, self.scratch, settings.plan.faces, settings.weights, settings.device, self.plugins
            )
            for clip in clips
        ]

    def _work(
        self, stage: str, work: Callable[[Any], UserError | None], tasks: Sequence[ClipTask | FoldTask], total: int
    ) -> None:
        """Carries out what is left of a stage; files that turn out to be damaged are reported together, at the end."""
        done = total - len(tasks)
        findings: list[Finding] = []
        self.progress(stage, done, total)
        for index, error in self.workers(work, tasks) if tasks else ():
            if error is not None:
                findings.append(Finding(tasks[index].clip.info.name, "media-readable", error.problem, error.remedy))
            done += 1
            self.progress(stage, done, total)
        refuse_errors(sorted(findings, key=lambda finding: finding.file), self.root)

    def _fit(
        self, clips: Sequence[MediaClip], folds: Sequence[Fold]
    ) -> tuple[dict[int, LightEncoder], dict[str, np.ndarray]]:
        """Light encoders of all folds, and the statistics of standardised backbones, whose features go to the scratch
        folder.
        """
        light: dict[int, LightEncoder] = {}
        kept: dict[str, np.ndarray] = {}
        for modality, extractor in self.settings.extractors.items():
            if extractor.name == "light":
                stride = fitting_stride([clip.info.frames for clip in clips])
                with threadpool_limits(1):
                    light = fit_light(clips, folds, self.scratch, stride, self._fitted)
            elif extractor.per_fold:
                standards = fit_standards(clips, folds, self.scratch, modality, self._fitted)
                kept |= standard_arrays(modality, standards)
                tasks = [FoldTask(task, extractor, standards) for task in self._tasks(clips)]
                missing = [task for task in tasks if not all(map(Path.is_file, task.files.values()))]
                self._work("encode", encode_folds, missing, len(tasks))
        return light, kept

    def _fitted(self, done: int, total: int) -> None:
        self.progress("fit", done, total)

    def _arrays(self, clip: MediaClip, folds: Sequence[Fold], light: Mapping[int, LightEncoder]) -> ClipArrays:
        """A clip that was read, ready for the store; large arrays stay on disk."""
        features: dict[str, np.ndarray] = {}
        presence: dict[str, np.ndarray] = {}
        for modality, extractor in self.settings.extractors.items():
            array, present = stored(self.scratch, clip, modality)
            presence[modality] = present
            if extractor.name == "light":
                measures = measured(array)
                features |= {f"{modality}@{fold}": encoder.encode(measures, present) for fold, encoder in light.items()}
            elif extractor.per_fold:
                names = [f"{modality}@{fold.index}" for fold in folds]
                folder = clip_folder(self.scratch, clip)
                features |= {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
            else:
                features[modality] = array
        return ClipArrays(features, presence, clip.labels, clip.spans)


def _key(files: Sequence[Path], root: Path, settings: FeatureSettings, asked: Preparation) -> str:
    """Stands for the files by name, size and time, and for everything of ours that shapes the numbers."""
    digest = hashlib.sha256(json.dumps([settings.digest, settings.face_finder, FORMAT]).encode())
    if asked.options:
        digest.update(json.dumps(dict(asked.options), sort_keys=True, default=str).encode())
    if asked.folds is not None and asked.folds.is_file():
        digest.update(asked.folds.read_bytes())
    if asked.fold_rule == AS_RELEASED:
        digest.update(AS_RELEASED.encode())
    for path in files:
        # Not the content: videos of a corpus take an hour to read.
        stat = path.stat()
        digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _folds(inspection: Inspection, asked: Preparation) -> FoldTable:
    """The folds to train on: those of a file, those that the corpus lists, or those of a rule."""
    clips = [clip.info for clip in inspection.clips]
    if asked.folds is None:
        return choose_folds(clips, inspection.folds, asked.fold_rule)
    if asked.fold_rule is not None:
        raise UserError(f"fold rule {asked.fold_rule} and the folds of {asked.folds}", "give one of them")
    return read_fold_file(asked.folds, clips)


def _remembered(memo: Path, asked: Preparation) -> Path | None:
    """The store that the last run on the same files wrote, if it is still there and holds its fitted encoders.

    None for the store of an earlier version whose folds are numbered otherwise than today's.
    """
    try:
        known = json.loads(memo.read_text())
        store = memo.parent.parent / str(known["store"])
        manifest = json.loads((store / "manifest.json").read_text())
    except (OSError, ValueError, KeyError):
        return None
    if (
        not {"fold_rule"} & {*known, *manifest}
        and asked.folds is None
        and FeatureStore(store).fold_rule == EARLIER_FOLDS
    ):
        return None
    return None if lacks_fitted(manifest) else store


def _check_writable(workspace: Workspace) -> None:
    """Raises `UserError` where nothing can be written, before hours go by."""
    there = next(path for path in (workspace.paths.stores, *workspace.paths.stores.parents) if path.exists())
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


def _worthwhile(clips: Sequence[ClipInfo], settings: FeatureSettings) -> int:
    """Processes that pay: one takes seconds to start, in which this one reads thousands of frames."""
    networks = any(extractor.needs_weights for extractor in settings.extractors.values())
    a_process = _FRAMES_A_PROCESS // 10 if networks else _FRAMES_A_PROCESS
    return max(1, min(os.cpu_count() or 1, sum(clip.frames for clip in clips) // a_process))
