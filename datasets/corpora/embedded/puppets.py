"""The embedded corpus `puppets`: real mp4, wav and jpg files made on the spot, with known valence and arousal.

Layout of Aff-Wild2 as users of the ABAW valence-arousal track have it, and what no real corpus has: truth.
Other layouts (`layouts.py`) place the videos and write the labels differently; all else is the same.

    videos/<video>.mp4   audio/<video>.wav   transcripts/<video>.json
    cropped_aligned/<clip>/00001.jpg ...                      no file where there is no face
    annotations/VA_Estimation_Challenge/{Train_Set,Validation_Set}/<clip>.txt
    truth/clips.csv   truth/spans.csv   truth/latents.npz     puppets.json

One video shows two people (`<video>_left`, `<video>_right`): the left one talks in the first half, the right one in
the second. While one is silent the sound is the other's, so their voice is a `missing` span with the detail
`other speaker`.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossfold.datasets.corpora.embedded.dose import PuppetDose
from crossfold.datasets.corpora.embedded.face import SCENE, Pixels, Shot, cast_looks, film
from crossfold.datasets.corpora.embedded.latent_script import Array, LatentScript, partition_plan, write_script
from crossfold.datasets.corpora.embedded.layouts import Role, find_layout
from crossfold.datasets.corpora.embedded.voice import SAMPLE_RATE, Speech, speak
from crossfold.datasets.corpora.embedded.writing import write_rows, write_spans
from crossfold.datasets.media.container import import_av
from crossfold.datasets.media.transcripts import Word, write_transcript
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import whole_folder
from crossfold.platform.core.process_pool import LocalWorkers

VERSION = 2
"""Raised whenever the same arguments give other files."""

DEFAULT_LAYOUT = "affwild2"
"""Not written into `puppets.json`, so that corpora made before there were others stay what they are."""
_ARRAYS = [field.name for field in fields(LatentScript) if field.name not in ("fps", "spans")]


@dataclass(frozen=True)
class PuppetSummary:
    """What lies in a finished corpus folder."""

    root: Path
    clips: int
    videos: int
    frames: int
    """Video frames of all clips together."""
    seconds: float
    """Length of each clip."""
    train: int
    validation: int
    spans: Mapping[str, int]
    """Number of spans of each kind."""
    reused: bool
    """True if the corpus was there already and nothing was written."""


@dataclass(frozen=True)
class _Job:
    """One video to make."""

    root: Path
    video: str
    roles: tuple[Role, ...]
    frames: int
    fps: float
    seed: int
    layout: str
    dose: PuppetDose | None = None


def write_puppets(
    out: Path,
    *,
    clips: int = 24,
    seconds: float = 20.0,
    seed: int = 0,
    fps: float = 25.0,
    layout: str | PuppetDose = DEFAULT_LAYOUT,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PuppetSummary:
    """Make the corpus in folder `out`: `clips` annotated clips of `seconds` seconds, a quarter of them for validation.

    The same arguments give the same bytes, whatever `processes` (None: one for each usable processor; 1: this one).
    layout: of the files; or a dose, of what is planted instead of a little of everything. With a dose the layout is
    the default one, and each clip is a video of its own.
    `progress(done, total)` counts clips. `out` appears whole or not at all; a finished one is left as it is.
    """
    dose, layout = (None, layout) if isinstance(layout, str) else (layout, DEFAULT_LAYOUT)
    frames = round(seconds * fps)
    if clips < 1 or not math.isfinite(fps) or fps <= 0 or frames < 1:
        raise ValueError(f"clips={clips}, seconds={seconds}, fps={fps}: need clips >= 1, fps > 0 and a frame or more")
    if seed < 0 or (processes is not None and processes < 1):
        raise ValueError(f"seed={seed}, processes={processes}: need seed >= 0 and processes >= 1")
    plan = find_layout(layout)
    if plan.fps is not None and fps != plan.fps:
        raise ValueError(
            f"fps={fps}: layout {layout} has {plan.fps:g} labels per second, so videos need fps={plan.fps:g}"
        )
    out = Path(out)
    settings: dict[str, Any] = {"version": VERSION, "seed": seed, "fps": float(fps)}
    settings |= {"clips": clips, "seconds": float(seconds)}
    if layout != DEFAULT_LAYOUT:
        settings["layout"] = layout
    if dose is not None:
        settings["corpus"] = dose.corpus  # from which the dose can be read again
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _reuse(out, settings)
    with whole_folder(out) as root:
        jobs = _plan(root, clips, frames, fps, seed, layout)
        if dose is not None:
            jobs = [replace(job, dose=dose) for job in _plan(root, clips, frames, fps, seed, layout, pairs=False)]
        done: dict[str, list[LatentScript]] = {}
        count = 0
        for job, scripts in _make_all(jobs, processes):
            done[job.video] = scripts
            count += len(job.roles)
            if progress is not None:
                progress(count, clips)
        plan.finish(root, [role for job in jobs for role in job.roles])
        _write_truth(root, jobs, done)
        (root / "puppets.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return _summarise(out, settings, reused=False)


def layout_or_dose(layout: str, dose: Mapping[str, Any]) -> str | PuppetDose:
    """What `--layout` and `--dose` of a command ask for. Raises `UserError` for both, and for a wrong dose."""
    if not dose:
        return layout
    if layout != DEFAULT_LAYOUT:
        raise UserError(f"--layout {layout} with --dose", "leave one of them out: puppets with a dose have one layout")
    return PuppetDose.parse(dict(dose), "--dose")


def _plan(root: Path, clips: int, frames: int, fps: float, seed: int, layout: str, *, pairs: bool = True) -> list[_Job]:
    """Videos in order; from three clips on, the last two share one, where the layout has such videos."""
    plan = find_layout(layout)
    shared = 1 if pairs and plan.pairs and clips >= 3 and frames >= 2 else 0
    singles = clips - 2 * shared
    digits = max(2, len(str(clips)))
    jobs = []
    dealt: Counter[str] = Counter()
    for i, partition in enumerate(partition_plan(singles, shared), start=1):
        clip = plan.name_clip(f"puppet-{i:0{digits}}", partition, dealt[partition] + 1)
        role = Role(clip, clip, f"subject-{i:0{digits}}", partition, dealt[partition])
        dealt[partition] += 1
        jobs.append(_Job(root, clip, (role,), frames, fps, seed, layout))
    if shared:
        video, half = f"puppet-{singles + 1:0{digits}}", frames // 2
        silences = {"left": (half, frames), "right": (0, half)}
        roles = tuple(
            Role(f"{video}_{side}", video, f"subject-{singles + 1 + k:0{digits}}", "train", dealt["train"] + k, silent)
            for k, (side, silent) in enumerate(silences.items())
        )
        jobs.append(_Job(root, video, roles, frames, fps, seed, layout))
    return jobs


def _make_all(jobs: Sequence[_Job], processes: int | None) -> Iterator[tuple[_Job, list[LatentScript]]]:
    """Make every video, here or in fresh processes, and give each back as it is finished."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The video with two faces takes twice as long: it starts first.
    ordered = sorted(jobs, key=lambda job: -len(job.roles))
    for index, scripts in LocalWorkers(processes or usable)(_make_video, ordered):
        yield ordered[index], scripts


def _make_video(job: _Job) -> list[LatentScript]:
    """Write one video with its sound, words, crops and annotations; return the script of each role."""
    from scipy.io import wavfile

    layout = find_layout(job.layout)
    scripts, speeches, films = [], [], []
    for role in job.roles:
        # One stream for each part, so that a change to the face leaves the script and the voice as they are.
        entropy = np.random.SeedSequence([job.seed, zlib.crc32(role.clip.encode())])
        plot, looks, voice, camera, ratings = (np.random.default_rng(child) for child in entropy.spawn(5))
        script = write_script(plot, job.frames, job.fps, deal=role.deal, silent=role.silent, dose=job.dose)
        speech = speak(script, voice)
        scripts.append(script)
        speeches.append(speech)
        films.append(film(cast_looks(looks), script, speech.loudness, camera))
        layout.annotate(job.root, role, script, ratings)
    samples, words = _mix(job, speeches)
    sound = job.root / layout.sound.format(job.video)
    sound.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(sound, SAMPLE_RATE, np.rint(samples * 32767).astype("<i2"))
    write_transcript(job.root / "transcripts" / f"{job.video}.json", words)
    _write_pictures(job, films, samples)
    return scripts


def _mix(job: _Job, speeches: Sequence[Speech]) -> tuple[Array, list[Word]]:
    """One sound track, float32 [samples], and its words: each voice in the frames in which its subject talks."""
    samples, words = speeches[0].samples.copy(), []
    for role, speech in zip(job.roles, speeches, strict=True):
        # Silence is one half of the video, so speech is the other.
        first, last = role.silent or (0, 0)
        begin, end = (last, job.frames) if first == 0 else (0, first)
        start, stop = (round(f / job.fps * SAMPLE_RATE) for f in (begin, end))
        samples[start:stop] = speech.samples[start:stop]
        words += [word for word in speech.words if begin / job.fps <= word.start and word.end <= end / job.fps]
    return samples, words


def _write_pictures(job: _Job, films: Sequence[Iterator[Shot]], samples: Array) -> None:
    """Draw all frames; scenes go side by side into the mp4, crops into folders."""
    folders = [job.root / "cropped_aligned" / role.clip for role in job.roles]
    for folder in folders:
        folder.mkdir(parents=True)
    path = job.root / find_layout(job.layout).video.format(job.video)
    path.parent.mkdir(parents=True, exist_ok=True)
    scenes = _with_crops(films, folders)
    _encode(path, scenes, samples, job.fps, width=SCENE * len(films))


def _with_crops(films: Sequence[Iterator[Shot]], folders: Sequence[Path]) -> Iterator[Pixels]:
    """Save the crops of each frame and pass on the wide picture, uint8 [SCENE, subjects * SCENE, 3]."""
    for number, shots in enumerate(zip(*films, strict=True), start=1):
        for shot, folder in zip(shots, folders, strict=True):
            if shot.crop is not None:
                Image.fromarray(shot.crop).save(folder / f"{number:05}.jpg", quality=88)
        yield np.concatenate([shot.scene for shot in shots], axis=1)


# The macroblock tree of x264 (core 165) reads memory that it never wrote: the first film of a process then depends on
# what lay there.
_X264 = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}


def _encode(path: Path, pictures: Iterator[Pixels], samples: Array, fps: float, width: int) -> None:
    """Write an mp4 with one picture per frame and mono AAC sound of the same length."""
    av = import_av()
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # bitexact and one thread: the same pictures give the same file.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        video: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        video.width, video.height, video.pix_fmt = width, SCENE, "yuv420p"
        video.options = _X264 if codec == "libx264" else {"qscale": "3"}
        audio: Any = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for stream in (video, audio):
            stream.codec_context.thread_count = 1
            stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
        chunk, written = 1024, 0
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = index
            frame.time_base = 1 / video.codec_context.framerate
            container.mux(video.encode(frame))
            while written < len(samples) and written / SAMPLE_RATE < (index + 1) / fps:
                container.mux(audio.encode(_sound(av, samples[written : written + chunk], written)))
                written += chunk
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _sound(av: Any, samples: Array, offset: int) -> Any:
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = offset
    frame.time_base = Fraction(1, SAMPLE_RATE)
    return frame


def _write_truth(root: Path, jobs: Sequence[_Job], done: Mapping[str, Sequence[LatentScript]]) -> None:
    """Write what annotators would not know: subjects, spans, latents."""
    pairs = [(job, role, p) for job in jobs for role, p in zip(job.roles, done[job.video], strict=True)]
    rows = [(r.clip, job.video, r.subject, r.partition, f"{job.fps:g}", job.frames) for job, r, _ in pairs]
    write_rows(root / "truth" / "clips.csv", ("clip", "video", "subject", "partition", "fps", "frames"), rows)
    write_spans(root / "truth" / "spans.csv", ((role.clip, p.spans) for _, role, p in pairs))
    latents: dict[str, Array] = {f"{role.clip}/{name}": getattr(p, name) for _, role, p in pairs for name in _ARRAYS}
    np.savez(root / "truth" / "latents.npz", **latents)  # type: ignore[arg-type]


def _reuse(out: Path, settings: Mapping[str, Any]) -> PuppetSummary:
    """Accept a finished corpus with the same settings; refuse anything else that is in the way."""
    note = out / "puppets.json"
    if not note.is_file():
        raise UserError(f"{out} is not empty and is no puppets corpus", "choose an empty or new folder")
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{note} is not readable as JSON", "remove the folder or choose another") from error
    if found != settings:
        there = found if isinstance(found, dict) else {}
        wrong = [f"{k}={there.get(k)!r} there, {v!r} asked" for k, v in settings.items() if there.get(k) != v]
        raise UserError(f"{out} holds other puppets ({'; '.join(wrong)})", "remove it or choose another folder")
    return _summarise(out, settings, reused=True)


def _summarise(out: Path, settings: Mapping[str, Any], *, reused: bool) -> PuppetSummary:
    import pandas as pd

    clips = pd.read_csv(out / "truth" / "clips.csv")
    spans = pd.read_csv(out / "truth" / "spans.csv")
    partitions = Counter(clips["partition"])
    return PuppetSummary(
        root=out,
        clips=len(clips),
        videos=clips["video"].nunique(),
        frames=int(clips["frames"].sum()),
        seconds=float(settings["seconds"]),
        train=partitions["train"],
        validation=partitions["validation"],
        spans=dict(sorted(Counter(spans["kind"]).items())),
        reused=reused,
    )
