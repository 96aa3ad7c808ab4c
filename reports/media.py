"""What a clip looks and sounds like, small enough for a page: a few faces and the outline of the sound.

Media are looked for in the workspace's `corpora` folder; a report does without where there are none.
"""

import base64
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from crossfold.datasets.clips import ClipInfo
from crossfold.platform.results import Workspace

FACES, PIXELS, QUALITY = 8, 56, 60
COLUMNS = 240
"""Columns of the outline of the sound."""


@dataclass(frozen=True)
class Media:
    """The pictures of a clip, in order of time, and its sound."""

    faces: Sequence[tuple[str, str]] = ()
    """Second, as people write it, and a data URI."""
    outline: str = ""
    """An SVG path in a box of `COLUMNS` x 2; empty without sound."""
    seconds: float = 0.0


def clip_media(workspace: Workspace, clip: ClipInfo) -> Media | None:
    """The faces and the sound of one clip, from folders laid out as Aff-Wild2; None where there is neither."""
    faces = _faces(workspace.root / "corpora", clip)
    outline = _outline(workspace.root / "corpora", clip)
    return Media(faces, outline, clip.frames / clip.fps) if faces or outline else None


def _faces(corpora: Path, clip: ClipInfo) -> list[tuple[str, str]]:
    folder = next((path for path in _named(corpora, "*/cropped_aligned*", clip.name) if path.is_dir()), None)
    if folder is None:
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    if not files:
        return []
    chosen = np.unique(np.linspace(0, len(files) - 1, FACES).astype(int))
    found = []
    for index in chosen:
        try:
            with Image.open(files[index]) as picture:
                small = picture.convert("RGB").resize((PIXELS, PIXELS))
        except OSError:
            # A broken picture is no reason to have no report.
            continue
        data = io.BytesIO()
        small.save(data, "JPEG", quality=QUALITY)
        # Crops are numbered by the frame that they show, from 1.
        frame = int(files[index].stem) - 1 if files[index].stem.isdigit() else int(index)
        text = base64.b64encode(data.getvalue()).decode()
        found.append((f"{frame / clip.fps:.1f} s", f"data:image/jpeg;base64,{text}"))
    return found


def _outline(corpora: Path, clip: ClipInfo) -> str:
    """The largest and smallest sample of each column, of 16-bit sound; empty where the file cannot be read so."""
    path = next((path for path in _named(corpora, "*/audio", f"{clip.video}.wav") if path.is_file()), None)
    if path is None:
        return ""
    try:
        with wave.open(str(path), "rb") as sound:
            if sound.getsampwidth() != 2:
                return ""
            wanted = round(clip.frames / clip.fps * sound.getframerate())
            samples = np.frombuffer(sound.readframes(wanted), "<i2").reshape(-1, sound.getnchannels())
    except (OSError, EOFError, wave.Error):
        return ""
    if len(samples) < COLUMNS:
        return ""
    columns = np.array_split(samples.astype(float).mean(axis=1), COLUMNS)
    loudest = max(1.0, max(float(np.abs(column).max()) for column in columns))
    ends = [(float(column.max()) / loudest, float(column.min()) / loudest) for column in columns]
    return "".join(f"M{at} {1 - high:.2f}V{1 - low + 0.02:.2f}" for at, (high, low) in enumerate(ends))


def _named(corpora: Path, folders: str, name: str) -> list[Path]:
    """Every `<folder>/<name>`; a name from data never leaves the folder it is looked for in."""
    if Path(name).name != name:
        return []
    return [path for folder in sorted(corpora.glob(folders)) if (path := folder / name).exists()]
