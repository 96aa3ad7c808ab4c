"""A few faces of a clip and the outline of its sound, small enough for a page.

Pages are shared, and most corpora must not be: a page holds pictures of people only where `--media` asked for them.
Those of an embedded corpus show no person, and are shown wherever its folder is found.
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from crossfold.datasets.corpora.clips import ClipInfo, MediaClip
from crossfold.datasets.corpora.registry import EMBEDDED as PUPPETS
from crossfold.datasets.corpora.registry import find_reader
from crossfold.datasets.media.crops import crop_files
from crossfold.datasets.media.sound import read_sound
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.results.model import EMBEDDED, RANDOM_WEIGHTS

FACES, PIXELS, QUALITY = 8, 56, 60
COLUMNS = 240
"""Columns of the outline of the sound."""
RATE = 8000


@dataclass(frozen=True)
class Media:
    """The pictures of a clip, in order of time, and its sound."""

    faces: tuple[tuple[str, str], ...] = ()
    """Time, such as `1.2 s`, and a data URI."""
    outline: str = ""
    """An SVG path in a box of `COLUMNS` x 2; empty without sound."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Album:
    """Where the media of a corpus lie, clip by clip; empty where they are not shown."""

    clips: Mapping[str, MediaClip] = field(default_factory=dict)
    note: str = ""
    """Whose pictures the page holds, or why it holds none."""
    private: bool = False
    """Whether it holds pictures of people, which `note` then warns of."""

    def of(self, clip: ClipInfo) -> Media | None:
        """The faces and the sound of one clip; None where there is neither."""
        found = self.clips.get(clip.name)
        if found is None:
            return None
        faces, outline = _faces(found.crops, clip), _outline(found.audio, clip)
        return Media(faces, outline, clip.frames / clip.fps) if faces or outline else None


def open_album(workspace: Workspace, store: FeatureStore, asked: Path | None = None) -> Album:
    """The media of a store's corpus: from `asked`; without it, those of an embedded corpus from where it was prepared.

    asked: the folder of the corpus, as `crossfold prepare --root` had it.
    """
    known = list(dict.fromkeys(_roots(workspace, store)))
    here = [root for root in known if root.is_dir()]
    embedded = store.corpus.startswith(EMBEDDED)
    if asked is None and not embedded:
        where = f" {here[0]}" if here else " DIR"
        return Album(
            note=f"Faces and sound are left out: crossfold report --media{where} embeds them, people included."
        )
    roots = [asked] if asked is not None else here
    for root in roots:
        if clips := _read(store, root):
            warning = f"Faces and sound come from {root}, as --media asked: this page shows people, so share it only "
            warning += "where the licence of the corpus allows it."
            return Album(clips, "" if embedded else warning, private=not embedded)
    if asked is not None:
        return Album(note=f"No media of these clips were found in {asked}, so no face and no sound is shown.")
    if len(here) < len(known):
        gone = next(root for root in known if root not in here)
        return Album(
            note=f"{gone}, where the media were, is not on this machine: crossfold report --media DIR names it."
        )
    return Album()


def _roots(workspace: Workspace, store: FeatureStore) -> Iterator[Path]:
    """Folders that the store was prepared from, by the notes of `crossfold prepare`, then those of the workspace."""
    for path in sorted((workspace.paths.stores / ".prepared").glob("*.json")):
        try:
            prepared = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if prepared.get("store") == store.path.name and prepared.get("root"):
            yield Path(prepared["root"])
    if store.corpus.startswith(EMBEDDED):
        yield from sorted(path for path in workspace.paths.corpora.glob("*") if path.is_dir())


def _read(store: FeatureStore, root: Path) -> dict[str, MediaClip]:
    """The media of the store's clips in a folder; a folder that cannot be read as its corpus has none."""
    embedded = store.corpus.startswith(EMBEDDED)
    wanted = {clip.name for clip in store.clips}
    # A manifest may give its corpus any name.
    for name in (PUPPETS,) if embedded else (store.corpus.removesuffix(RANDOM_WEIGHTS), "manifest"):
        try:
            found = find_reader(name, root).read(root, deep=False)
        except (UserError, DataError, OSError):
            continue
        clips = [clip for clip in found.clips if isinstance(clip, MediaClip) and clip.info.name in wanted]
        # Another corpus may have clips of the same names, and show people.
        if clips and embedded == found.corpus.startswith(EMBEDDED):
            return {clip.info.name: clip for clip in clips}
    return {}


def _faces(folder: Path | None, clip: ClipInfo) -> tuple[tuple[str, str], ...]:
    try:
        files = crop_files(folder) if folder is not None else {}
    except (DataError, OSError):
        return ()
    frames = sorted(files)
    found = []
    for index in np.unique(np.linspace(0, len(frames) - 1, FACES).astype(int)) if frames else ():
        try:
            with Image.open(files[frames[index]]) as picture:
                small = picture.convert("RGB").resize((PIXELS, PIXELS))
        except OSError:
            # A broken picture is no reason to have no report.
            continue
        data = io.BytesIO()
        small.save(data, "JPEG", quality=QUALITY)
        text = base64.b64encode(data.getvalue()).decode()
        found.append((f"{(frames[index] - 1) / clip.fps:.1f} s", f"data:image/jpeg;base64,{text}"))
    return tuple(found)


def _outline(path: Path | None, clip: ClipInfo) -> str:
    """The largest and smallest sample of each column; empty where the file cannot be read."""
    try:
        sound = read_sound(path, RATE) if path is not None else None
    except (DataError, UserError, OSError):
        return ""
    samples = (np.zeros(0) if sound is None else sound.astype(float))[: round(clip.frames / clip.fps * RATE)]
    if len(samples) < COLUMNS:
        return ""
    columns = np.array_split(samples, COLUMNS)
    loudest = max(1e-6, float(np.abs(samples).max()))  # silence would be a division by zero
    ends = [(float(column.max()) / loudest, float(column.min()) / loudest) for column in columns]
    # The 0.02 keeps a line where a column is silent.
    return "".join(f"M{at} {1 - high:.2f}V{1 - low + 0.02:.2f}" for at, (high, low) in enumerate(ends))
