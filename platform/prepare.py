"""Corpus -> feature store: checked first, then read clip by clip in parallel, encoded per fold, and written once.

What was read of a clip is kept under `stores/.preparing-<corpus>-<key>/` until the store is there, so that a run that
was stopped goes on where it was. The key stands for the files (names, sizes, times) and the front ends; a run that
finds nothing changed returns the store of the last one.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from crossfold.datasets.clips import UNLABELLED, ClipArrays, ClipInfo, MediaClip
from crossfold.datasets.corpora import CORPORA, Corpus, FeatureClip, Inspection
from crossfold.datasets.media import AUDIO_FRONT_END, log_mel, read_crops, read_sound
from crossfold.datasets.partitions import Fold, make_folds
from crossfold.datasets.store import FORMAT, write_store
from crossfold.datasets.validation import Finding, refuse_errors
from crossfold.platform.errors import UserError
from crossfold.platform.light_encoder import VISUAL_FRONT_END, LightEncoder, Moments, fitting_stride, measure
from crossfold.platform.results import Workspace, write_json

Progress = Callable[[str, int, int], None]
"""Called with the stage (check, read, fit, write), how many of its steps are done, and how many there are."""

_FRAMES_A_PROCESS = 10_000
_FRONT_ENDS = {"audio": AUDIO_FRONT_END, "visual": VISUAL_FRONT_END}


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Reports to nobody."""


def prepare(
    workspace: Workspace,
    corpus: str,
    root: Path,
    *,
    processes: int | None = None,
    progress: Progress = _silent,
) -> Path:
    """Builds the feature store of a corpus and returns its folder; the same bytes however it was interrupted.

    processes: how many read clips at a time; None: as many as have work enough. 1 starts no other process.
    Raises `DataError` that lists what is wrong with the data, before any work is done.
    """
    entry = CORPORA.get(corpus)
    root = root.resolve()
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")
    key = _key(entry.sources(root), root)
    memo = workspace.stores / ".prepared" / f"{corpus}-{key}.json"
    if (done := _remembered(memo)) is not None:
        return done
    progress("check", 0, 1)
    inspection = entry.inspect(root, deep=True)
    _check_name(corpus, inspection, root)
    refuse_errors(inspection.findings, root)
    progress("check", 1, 1)
    scratch = workspace.stores / f".preparing-{corpus}-{key}"
    store = _build(workspace.stores, entry, inspection, root, scratch, processes, progress)
    write_json(memo, {"store": store.name, "root": str(root)})
    shutil.rmtree(scratch, ignore_errors=True)
    return store


def _build(
    stores: Path,
    entry: Corpus,
    inspection: Inspection,
    root: Path,
    scratch: Path,
    processes: int | None,
    progress: Progress,
) -> Path:
    infos = [clip.info for clip in inspection.clips]
    folds = make_folds(infos)
    media = [clip for clip in inspection.clips if isinstance(clip, MediaClip)]
    if media:
        _read_all(media, root, scratch, processes, progress)
        with threadpool_limits(1):
            encoders = _fit_encoders(media, folds, scratch, progress)
        sources = {clip.info.name: _Encoded(clip, scratch, encoders).arrays for clip in media}
    else:
        sources = {clip.info.name: clip.read for clip in inspection.clips if isinstance(clip, FeatureClip)}
    written = 0

    def arrays(info: ClipInfo) -> ClipArrays:
        nonlocal written
        brought = sources[info.name]()
        written += 1
        progress("write", written, len(infos))
        return brought

    # One thread, because the number of threads decides the last bit of a matrix product.
    with threadpool_limits(1):
        return write_store(
            stores,
            corpus=inspection.corpus,
            layout=entry.layout,
            targets=entry.targets,
            clips=infos,
            arrays=arrays,
            origin=_FRONT_ENDS if media else {"features": "as given"},
            folds=folds,
        )


def _key(files: Sequence[Path], root: Path) -> str:
    """Stands for the files by name, size and time, and for everything of ours that shapes the numbers."""
    digest = hashlib.sha256(json.dumps([_FRONT_ENDS, FORMAT], sort_keys=True).encode())
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


def _check_name(asked: str, inspection: Inspection, root: Path) -> None:
    """Embedded data are prepared under their own name only, and nothing else under theirs."""
    if inspection.corpus == asked:
        return
    raise UserError(
        f"{root} holds {inspection.corpus}, not {asked}", f"run `crossfold prepare {inspection.corpus} --root {root}`"
    )


def _read_all(clips: Sequence[MediaClip], root: Path, scratch: Path, processes: int | None, progress: Progress) -> None:
    """Reads what is not in `scratch` yet; files that turn out to be damaged are reported together, at the end."""
    scratch.mkdir(parents=True, exist_ok=True)
    missing = [clip for clip in clips if not _scratch_file(scratch, clip).is_file()]
    done = len(clips) - len(missing)
    findings: list[Finding] = []
    progress("read", done, len(clips))
    for clip, error in _in_parallel(missing, scratch, processes or _worthwhile(missing)):
        if error is not None:
            findings.append(Finding(clip.info.name, "media-readable", error.problem, error.remedy))
        done += 1
        progress("read", done, len(clips))
    refuse_errors(sorted(findings, key=lambda finding: finding.file), root)


def _worthwhile(clips: Sequence[MediaClip]) -> int:
    """Processes that pay: one takes seconds to start, in which this one reads thousands of frames."""
    return max(1, min(os.cpu_count() or 1, sum(clip.info.frames for clip in clips) // _FRAMES_A_PROCESS))


def _in_parallel(
    clips: Sequence[MediaClip], scratch: Path, processes: int
) -> Iterator[tuple[MediaClip, UserError | None]]:
    """Clips as they become ready, each with the error that its files raised."""
    if min(processes, len(clips)) <= 1:
        yield from ((clip, _read_clip(clip, scratch)) for clip in clips)
        return
    # Spawned, not forked: a fork of a process that has threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(clips)), mp_context=context, initializer=_die_with_parent)
    try:
        waiting = {pool.submit(_read_clip, clip, scratch): clip for clip in clips}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it is gone; a pool whose owner is killed waits for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read_clip(clip: MediaClip, scratch: Path) -> UserError | None:
    """Decodes one clip into `scratch`, whole or not at all."""
    frames = clip.info.frames
    times = clip.times if clip.times is not None else np.arange(frames) / clip.info.fps
    try:
        crops = read_crops(clip.crops, frames) if clip.crops is not None else None
        sound = read_sound(clip.audio) if clip.audio is not None else None
    except UserError as error:
        return error
    faces, seen = crops if crops is not None else (np.zeros((frames, 48, 48), np.uint8), np.zeros(frames, np.bool_))
    columns, heard = log_mel(sound, times, clip.info.fps)
    handle, beside = tempfile.mkstemp(prefix=".", suffix=".npz", dir=scratch)
    with os.fdopen(handle, "wb") as file:
        np.savez(file, faces=faces, seen=seen, mel=columns, heard=heard)
    Path(beside).replace(_scratch_file(scratch, clip))
    return None


def _fit_encoders(
    clips: Sequence[MediaClip], folds: Sequence[Fold], scratch: Path, progress: Progress
) -> dict[int, LightEncoder]:
    """One encoder a fold, of the labelled faces of its training clips and of nothing else."""
    stride = fitting_stride([clip.info.frames for clip in clips])
    trains = {fold.index: frozenset(fold.train) for fold in folds}
    # Clips that train in the same folds are summed up once: six folds need no more than seven sums.
    sums: dict[frozenset[int], Moments] = {}
    for done, clip in enumerate(clips, start=1):
        member = frozenset(index for index, train in trains.items() if clip.info.name in train)
        if member:
            sums[member] = sums.get(member, Moments.none()) + _moments(clip, scratch, stride)
        progress("fit", done, len(clips))
    return {index: LightEncoder.fit(moments for member, moments in sums.items() if index in member) for index in trains}


def _moments(clip: MediaClip, scratch: Path, stride: int) -> Moments:
    with np.load(_scratch_file(scratch, clip)) as read:
        use = np.flatnonzero(read["seen"] & (clip.labels != UNLABELLED).all(1))[::stride]
        return Moments.of(measure(read["faces"][use]))


@dataclass(frozen=True)
class _Encoded:
    """A clip that was read, ready to be encoded for the store."""

    clip: MediaClip
    scratch: Path
    encoders: Mapping[int, LightEncoder]

    def arrays(self) -> ClipArrays:
        with np.load(_scratch_file(self.scratch, self.clip)) as read:
            seen = read["seen"]
            measures = measure(read["faces"])
            features = {"audio": read["mel"]}
            present = {"audio": read["heard"], "visual": seen}
        features |= {f"visual@{index}": encoder.encode(measures, seen) for index, encoder in self.encoders.items()}
        return ClipArrays(features, present, self.clip.labels, self.clip.spans)


def _scratch_file(scratch: Path, clip: MediaClip) -> Path:
    return scratch / f"{clip.info.name}.npz"
