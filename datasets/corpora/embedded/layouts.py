"""How the embedded corpus lies on disk: one film, one sound, and the labels as each reader of ours wants them.

    affwild2   videos/<video>.mp4    audio/<video>.wav    annotations/VA_Estimation_Challenge/{Train,Validation}_Set/
    recola     recordings_video/     recordings_audio/    ratings_gold_standard/ and ratings_individual/, both
                                                          {arousal,valence}/, and a file of physiology to leave alone
    manifest   videos/               audio/               manifest.csv, manifest.yaml, labels/<clip>.csv

Crops, transcripts and truth are where `puppets.py` says in all of them. In `recola` six raters rate what Aff-Wild2's
annotators write: each with an offset, a gain, a slow error and a lag of their own. Its gold standard is made of these
raters by `recola/gold_standard.py`, as the owners' was. Where annotators left a gap, files of `recola` have no row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.embedded.latent_script import Array, Floats, LatentScript, smooth_noise
from crossfold.datasets.corpora.embedded.writing import write_rows
from crossfold.datasets.corpora.recola.gold_standard import gold_standard
from crossfold.datasets.corpora.recola.labels import RATERS
from crossfold.datasets.corpora.recola.rating_files import RATE
from crossfold.platform.core.errors import UserError, did_you_mean

_SETS = {"train": "Train_Set", "validation": "Validation_Set"}
_PARTS = {"train": "train", "validation": "dev"}
_ARFF = """@relation GOLDSTANDARD

@attribute Instance_name string
@attribute frameTime numeric
@attribute GoldStandard numeric

@data

"""
_MOST_LAG = 12  # frames by which the slowest rater lags behind the quickest


@dataclass(frozen=True)
class Role:
    """One annotated clip: who plays it, and in which frames another person talks."""

    clip: str
    video: str
    subject: str
    partition: str
    deal: int
    silent: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a layout has its media, how it names clips, and how it writes labels."""

    annotate: Callable[[Path, Role, LatentScript, np.random.Generator], None]
    """Writes the labels of one clip under the root. The generator is for what only this layout draws."""
    finish: Callable[[Path, Sequence[Role]], None] = lambda _root, _roles: None
    """Writes what is about all clips."""
    name_clip: Callable[[str, str, int], str] = lambda given, _partition, _number: given
    """Name of a clip from the name puppets give it, its partition, and its number there, from 1."""
    video: str = "videos/{}.mp4"
    """Path of a video, with {} for its name."""
    sound: str = "audio/{}.wav"
    pairs: bool = True
    """Whether a video may show two annotated people."""
    fps: float | None = None
    """The only frame rate whose frames its labels fit; None: any."""


def find_layout(name: str) -> Layout:
    """The layout of that name; raises `UserError` with the nearest one."""
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}{did_you_mean(name, LAYOUTS)}", f"choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 with Unix line ends, and the folder where there is none yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _lines(script: LatentScript) -> str:
    """One line per frame below the header, as Aff-Wild2 has it."""
    lines = [",".join("-5" if x == -5 else f"{x:.4f}" for x in row) for row in script.labels]
    return "\n".join(["valence,arousal", *lines]) + "\n"


def _annotate_affwild2(root: Path, role: Role, script: LatentScript, _rng: np.random.Generator) -> None:
    folder = root / "annotations" / "VA_Estimation_Challenge" / _SETS[role.partition]
    write_text(folder / f"{role.clip}.txt", _lines(script))


def _annotate_recola(root: Path, role: Role, script: LatentScript, rng: np.random.Generator) -> None:
    for dimension, column in (("valence", script.label_valence), ("arousal", script.label_arousal)):
        traces = np.round(_rate(rng, column, script.fps), 4)
        # Ratings go up to the very end: 7,501 of them for 7,500 frames.
        traces, column = np.append(traces, traces[-1:], axis=0), np.append(column, column[-1])
        rated = np.flatnonzero(column != UNLABELLED)  # no row where there is a gap
        gold = np.clip(gold_standard(traces[rated]).values, -1, 1) if len(rated) else np.zeros(0)
        rows = [(f"{frame / RATE:.2f}", traces[frame], value) for frame, value in zip(rated, gold, strict=True)]
        place = root / "ratings_gold_standard" / dimension / role.clip
        data = "".join(f"'{role.clip}',{time},{value:.6f}\n" for time, _, value in rows)
        write_text(place.with_suffix(".arff"), _ARFF + data)
        lines = "".join(f"{time};{value:.6f}\n" for time, _, value in rows)
        write_text(place.with_suffix(".csv"), "frameTime;GoldStandard\n" + lines)
        individual = "".join(f"{time};{';'.join(f'{x:.4f}' for x in ratings)}\n" for time, ratings, _ in rows)
        header = f"time;{';'.join(f'{name} ' for name in RATERS)}\n"
        write_text(root / "ratings_individual" / dimension / f"{role.clip}.csv", header + individual)
    physiology = "".join(f"{k / 250:.3f};{np.sin(k / 40):.4f};{0.5 + k / 5000:.4f}\n" for k in range(250))
    write_text(root / "recordings_physio" / f"{role.clip}.csv", "time;ECG;EDA\n" + physiology)


def _rate(rng: np.random.Generator, rated: Array, fps: float) -> Floats:
    """What six raters write, [frames, raters], of ratings [frames] with gaps."""
    frames = np.arange(len(rated))
    known = np.flatnonzero(rated != UNLABELLED)
    aim = np.interp(frames, known, rated[known]) if len(known) else np.zeros(len(rated))
    traces = np.empty((len(rated), len(RATERS)))
    for rater in range(len(RATERS)):
        late = np.interp(frames - int(rng.integers(0, _MOST_LAG + 1)), frames, aim)
        error = 0.06 * smooth_noise(rng, len(rated), fps, 0.8)
        traces[:, rater] = rng.uniform(0.75, 1.0) * late + rng.normal(0, 0.08) + error
    clipped: Floats = np.clip(traces, -1, 1)
    return clipped


def _annotate_manifest(root: Path, role: Role, script: LatentScript, _rng: np.random.Generator) -> None:
    write_text(root / "labels" / f"{role.clip}.csv", _lines(script))


def _finish_manifest(root: Path, roles: Sequence[Role]) -> None:
    columns = ("clip", "subject", "partition", "video", "audio", "crops", "transcript", "labels")
    places = "videos/{0}.mp4", "audio/{0}.wav", "cropped_aligned/{1}", "transcripts/{0}.json", "labels/{1}.csv"
    rows = [(r.clip, r.subject, r.partition, *(place.format(r.video, r.clip) for place in places)) for r in roles]
    write_rows(root / "manifest.csv", columns, rows)
    targets = "".join(f"  {name}: {{low: -1, high: 1}}\n" for name in ("valence", "arousal"))
    write_text(root / "manifest.yaml", f"name: puppets-manifest\ntargets:\n{targets}")


LAYOUTS = {
    "affwild2": Layout(annotate=_annotate_affwild2),
    "recola": Layout(
        annotate=_annotate_recola,
        name_clip=lambda _given, partition, number: f"{_PARTS[partition]}_{number}",
        video="recordings_video/{}.mp4",
        sound="recordings_audio/{}.wav",
        pairs=False,
        fps=RATE,
    ),
    "manifest": Layout(annotate=_annotate_manifest, finish=_finish_manifest),
}
"""By the name that `crossfold corpus puppets --layout` takes."""
