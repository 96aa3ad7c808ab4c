"""Small media files and corpora, and harm done to them.

`write_corpus` writes a corpus in Aff-Wild2's layout. `plant` writes one in the layout of any corpus and with any timing
of the pictures, in which one thing happens once: a flash, a beep and a step of the labels, together. `find_in_clip` and
`find_in_store` say at which frame each modality and the labels show that event. Where they differ from `Planted.event`,
something is shifted.
"""

import csv
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CLIPS = {"alma": "Train_Set", "bert": "Train_Set", "cleo": "Train_Set", "dora": "Validation_Set"}

LABEL_RATE = 25
"""Labels a second, where a layout has labels at a rate of its own."""
SOUND_RATE = 16_000
CALM, STIRRED = (-0.3, -0.2), (0.6, 0.7)
"""Valence and arousal before and after."""
TIMINGS = ("23.976", "25", "29.97", "30", "variable", "dropped")
"""`variable`: pictures 20 to 66 ms apart; `dropped`: 25 a second, of which some are not there."""
PARTS = {"train": ("Train_Set", "train_1"), "validation": ("Validation_Set", "dev_1")}


def write_wav(path: Path, sound: np.ndarray, rate: int = SOUND_RATE) -> None:
    """Writes mono sound of 16 bits; `sound` is in [-1, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def write_video(
    path: Path,
    shades: Sequence[int],
    rate: Fraction = Fraction(25),
    sound: np.ndarray | None = None,
    sound_rate: int = 48_000,
    *,
    times: Sequence[Fraction] | None = None,
    **options: str,
) -> None:
    """Writes one grey picture a shade, `rate` a second or at exactly `times`, and AAC sound where some is given.

    options: of the container. Skips the test where PyAV is not installed.
    """
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        pictures = container.add_stream("mpeg4", rate=rate)
        pictures.width = pictures.height = 32
        tick = Fraction(1, 30_000)
        if times is not None:
            if any((time / tick).denominator != 1 for time in times):
                tick = Fraction(1, 24_000)
            pictures.codec_context.time_base = tick
            pictures.codec_context.gop_size = 1
        track = container.add_stream("aac", rate=sound_rate, layout="mono") if sound is not None else None
        for number, shade in enumerate(shades):
            noise = np.random.default_rng(int(shade)).integers(0, 9, (32, 32, 3))
            frame = av.VideoFrame.from_ndarray((shade + noise).astype(np.uint8))
            if times is not None:
                frame.pts, frame.time_base = int(times[number] / tick), tick
            container.mux(pictures.encode(frame))
        if track is not None:
            heard = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            heard.sample_rate, heard.pts = sound_rate, 0
            container.mux(track.encode(heard))
        for stream in filter(None, (pictures, track)):
            container.mux(stream.encode())


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Writes valence and arousal [F, 2] as Aff-Wild2 has them."""
    _write(path, ["valence,arousal", *(f"{v:g},{a:g}" for v, a in labels)])


def write_corpus(
    root: Path,
    *,
    clips: Mapping[str, str] = CLIPS,
    frames: int = 40,
    rate: Fraction = Fraction(25),
    event: int | None = None,
    sound: str = "wav",
    sound_rate: int = 16_000,
) -> Path:
    """A corpus whose clips have `frames` frames; at frame `event` there is a flash, a beep and a step of the labels.

    sound: `wav`, `video` or `none`: where it is.
    """
    for number, (clip, partition) in enumerate(clips.items()):
        rng = np.random.default_rng(number)
        at = frames if event is None else event
        flash = np.arange(frames) >= at
        calm = np.zeros(frames) if event is not None else np.linspace(-0.5, 0.5, frames)
        labels = np.where(flash[:, None], 0.8, np.stack([calm, -calm], axis=1))
        write_labels(root / "annotations" / "VA_Estimation_Challenge" / partition / f"{clip}.txt", labels)
        samples = round(float(frames / rate) * sound_rate)
        voice = 0.001 * rng.standard_normal(samples)
        beep = round(float(at / rate) * sound_rate)
        voice[beep:] += 0.6 * np.sin(2 * np.pi * 1000 / sound_rate * np.arange(samples - beep))
        video = clip.removesuffix("_left").removesuffix("_right")
        if sound == "wav":
            write_wav(root / "audio" / f"{video}.wav", voice, sound_rate)
        in_video = voice if sound == "video" else None
        write_video(root / "videos" / f"{video}.mp4", np.where(flash, 220, 20), rate, in_video, sound_rate)
        folder = root / "cropped_aligned" / clip
        folder.mkdir(parents=True)
        for frame in range(frames):
            face = rng.integers(0, 60, (112, 112, 3)) + 20 * number + (150 if flash[frame] else 0)
            Image.fromarray(np.clip(face, 0, 255).astype(np.uint8)).resize((56, 56)).save(
                folder / f"{frame + 1:05d}.jpg"
            )
    return root


def assert_readable(findings: Sequence[Any], root: Path) -> None:
    """Checks that each finding is one line with a problem and a remedy, and names no path of this machine."""
    for finding in findings:
        assert finding.problem
        assert finding.remedy
        assert str(root) not in str(finding)
        assert "\n" not in str(finding)


def truncate(path: Path, keep: float = 0.6) -> None:
    """Cuts a file off after this share of its bytes."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Writes what `change` makes of the lines of a text."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def put(line: int, text: str) -> Callable[[list[str]], list[str]]:
    """A change that writes one line anew, counted from 0."""
    return lambda lines: [*lines[:line], text, *lines[line + 1 :]]


@dataclass(frozen=True)
class Planted:
    """One clip of a planted corpus."""

    name: str
    times: np.ndarray
    """float64 [pictures]: when each is shown, in seconds after the first."""
    event: int
    """The frame at which all of it happens."""
    gap: tuple[int, int]
    """Frames [begin, end) without label; equal where there is no gap."""


def picture_times(timing: str, pictures: int) -> list[Fraction]:
    """When each picture is shown, exactly."""
    if timing == "variable":
        steps = [Fraction(ms, 1000) for ms in (40, 33, 66, 20, 50, 40, 25, 33)]
        times = [Fraction(0)]
        while len(times) < pictures:
            times.append(times[-1] + steps[len(times) % len(steps)])
        return times
    if timing == "dropped":
        kept = [frame for frame in range(2 * pictures) if frame % 11 not in (4, 5) and frame % 17 != 3]
        return [Fraction(frame, 25) for frame in kept[:pictures]]
    rate = {"23.976": Fraction(24000, 1001), "29.97": Fraction(30000, 1001)}.get(timing) or Fraction(timing)
    return [frame / rate for frame in range(pictures)]


def plant(
    root: Path,
    layout: str,
    *,
    timing: str = "25",
    pictures: int = 120,
    sound: str = "wav",
    gap: bool = False,
    cut: str = "",
) -> list[Planted]:
    """Writes a training and a validation clip in `layout` (affwild2, recola or manifest) and says where the events are.

    sound: `wav` or `video`, where it is. gap: no labels for some frames before the event.
    cut: `video`, `labels` or `sound`: which of them ends 3 frames before the others.
    """
    times = picture_times(timing, pictures)
    planted = []
    for part, near in (("train", pictures // 2), ("validation", 2 * pictures // 3)):
        event = _on_the_grid(times, near)
        hole = (event - 22, event - 11) if gap else (0, 0)
        name = PARTS[part][1] if layout == "recola" else f"{part}-clip"
        _write_media(root, layout, name, times, event, sound, cut)
        _write_labels(root, layout, part, name, times, event, hole, len(times) - 3 * (cut == "labels"))
        shown = times[: pictures - 3 * (cut == "video")]
        if layout == "recola" and gap:
            # Labels hold for 40 ms, so the frames without are those that begin in the gap of the labels' own grid.
            first, last = (_row(times[frame]) for frame in hole)
            rows = [_row(time) for time in shown]
            hole = (_index(rows, first), _index(rows, last))
        planted.append(Planted(name, np.array([float(time) for time in shown]), event, hole))
    if layout == "manifest":
        _write_manifest(root, planted, sound)
    return planted


def find_in_clip(clip) -> dict[str, int]:
    """Frame at which pictures of the video, crops, sound and labels of a `MediaClip` show the event."""
    from crossfold.datasets.media.crops import crop_chunks
    from crossfold.datasets.media.sound import log_mel, read_sound

    crops, _ = next(crop_chunks(clip.crops, clip.info.frames, "L", 48, clip.info.frames))
    times = clip.times if clip.times is not None else np.arange(clip.info.frames) / clip.info.fps
    columns, _ = log_mel(read_sound(clip.audio), times, clip.info.fps)
    return {
        "video": _first_bright(_decode(clip.video)),
        "crops": _first_bright(crops.mean((1, 2))),
        "audio": _loudest_step(columns),
        "labels": _label_step(clip.labels),
    }


def find_in_store(store, clip: str) -> dict[str, int]:
    """Frame at which the features and the labels of a clip in a store show the event."""
    from crossfold.datasets.corpora.clips import UNLABELLED

    rows = store.rows(clip)
    visual = store.features("visual", 0)[rows]
    labels = np.where(np.asarray(store.valid[rows]), store.labels[rows], UNLABELLED)
    return {
        "visual": int(np.abs(np.diff(visual, axis=0)).sum(1).argmax()) + 1,
        "audio": _loudest_step(store.features("audio", 0)[rows]),
        "labels": _label_step(labels),
    }


def _row(time: Fraction) -> int:
    """The label that holds at `time`."""
    return int(time * LABEL_RATE + Fraction(1, 4))


def _on_the_grid(times: Sequence[Fraction], near: int) -> int:
    """A frame from `near` on that is shown when a label begins, so that no rule of rounding matters."""
    for frame in range(near, len(times) - 12):
        row = _row(times[frame])
        before = times[frame - 1] * LABEL_RATE
        if abs(times[frame] * LABEL_RATE - row) < Fraction(1, 8) and before < row - Fraction(1, 2):
            return frame
    raise ValueError("no picture begins with a label")


def _index(rows: Sequence[int], row: int) -> int:
    return next(index for index, there in enumerate(rows) if there >= row)


def _write_media(
    root: Path, layout: str, name: str, times: Sequence[Fraction], event: int, sound: str, cut: str
) -> None:
    rng = np.random.default_rng(len(name))
    end = times[-1] + Fraction(1, 25)
    heard = 0.001 * rng.standard_normal(int(end * SOUND_RATE))
    start = round(times[event] * SOUND_RATE)
    heard[start:] += 0.6 * np.sin(2 * np.pi * 1000 / SOUND_RATE * np.arange(len(heard) - start))
    if cut == "sound":
        heard = heard[: int(times[-3] * SOUND_RATE)]
    pictures = len(times) - 3 * (cut == "video")
    shades = [220 if frame >= event else 30 for frame in range(pictures)]
    video, audio = ("recordings_video", "recordings_audio") if layout == "recola" else ("videos", "audio")
    in_video = heard if sound == "video" else None
    write_video(root / video / f"{name}.mp4", shades, sound=in_video, sound_rate=SOUND_RATE, times=times)
    if sound == "wav":
        write_wav(root / audio / f"{name}.wav", heard)
    folder = root / "cropped_aligned" / name
    folder.mkdir(parents=True)
    for number, shade in enumerate(shades, start=1):
        face = np.clip(shade + rng.integers(-20, 20, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(face).save(folder / f"{number:05d}.jpg")


def _write_labels(
    root: Path,
    layout: str,
    part: str,
    name: str,
    times: Sequence[Fraction],
    event: int,
    hole: tuple[int, int],
    frames: int,
) -> None:
    if layout == "recola":
        begin, end = (_row(times[frame]) for frame in hole)
        rows = [k for k in range(_row(times[frames - 1]) + 1) if hole[0] == hole[1] or not begin <= k < end]
        for column, dimension in enumerate(("valence", "arousal")):
            values = [(STIRRED if k >= _row(times[event]) else CALM)[column] for k in rows]
            lines = [f"{k / LABEL_RATE:.2f};{value}" for k, value in zip(rows, values, strict=True)]
            _write(root / "ratings_gold_standard" / dimension / f"{name}.csv", ["frameTime;GoldStandard", *lines])
        return
    pairs = [STIRRED if frame >= event else CALM for frame in range(frames)]
    pairs = [(-5, -5) if hole[0] <= frame < hole[1] else pair for frame, pair in enumerate(pairs)]
    lines = ["valence,arousal", *(f"{v},{a}" for v, a in pairs)]
    if layout == "affwild2":
        _write(root / "annotations" / "VA_Estimation_Challenge" / PARTS[part][0] / f"{name}.txt", lines)
    else:
        _write(root / "labels" / f"{name}.csv", lines)


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_manifest(root: Path, planted: Sequence[Planted], sound: str) -> None:
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("clip", "subject", "partition", "video", "audio", "crops", "labels"))
        for clip in planted:
            name = clip.name
            audio = f"audio/{name}.wav" if sound == "wav" else ""
            place = (f"videos/{name}.mp4", audio, f"cropped_aligned/{name}", f"labels/{name}.csv")
            table.writerow((name, name, name.removesuffix("-clip"), *place))


def _decode(path: Path) -> np.ndarray:
    """float64 [pictures]: mean brightness of each."""
    import av

    with av.open(str(path)) as container:
        return np.array([frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)])


def _first_bright(shades: np.ndarray) -> int:
    return int(np.argmax(shades > 125))


def _loudest_step(columns: np.ndarray) -> int:
    return int(np.diff(columns.max(1)).argmax()) + 1


def _label_step(labels: np.ndarray) -> int:
    """The first frame whose labels are those of after the event."""
    return int(np.argmax(np.isclose(labels, STIRRED, atol=1e-6).all(1)))
