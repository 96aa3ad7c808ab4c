"""The corpus `synthetic`: features only, made in milliseconds, with spans of `latent_script`.

What a modality expresses, its `tell` and some nuisance (subject, drift) are mixed into its columns of features by one
random matrix for the whole corpus, and noise is added. A missing modality is zeros, a corrupted one noise of its size.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from crossfold.datasets.corpora.clips import Span
from crossfold.datasets.corpora.embedded.latent_script import (
    Array,
    Floats,
    LatentScript,
    partition_plan,
    smooth_noise,
    write_script,
)
from crossfold.datasets.corpora.embedded.writing import write_rows, write_spans
from crossfold.platform.core.cell import MODALITIES
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import whole_folder

DEFAULT_WIDTHS: Mapping[str, int] = MappingProxyType({"audio": 16, "visual": 24})

_NUISANCE = 5  # two columns for the subject, three that drift
_NOISE = 0.4


@dataclass(frozen=True)
class SyntheticClip:
    """One clip: features and labels at the same frame rate."""

    name: str
    subject: str
    partition: str
    """train or validation."""
    fps: float
    features: Mapping[str, Array]
    """Modality -> float32 [frames, width]."""
    labels: Array
    """float32 [frames, 2]: valence, arousal; -5 where not rated."""
    spans: tuple[Span, ...]


def synthetic_clips(
    *, clips: int = 12, frames: int = 400, widths: Mapping[str, int] = DEFAULT_WIDTHS, fps: float = 25.0, seed: int = 0
) -> list[SyntheticClip]:
    """Make `clips` clips of `frames` frames; `widths` gives the feature columns of each modality (text is optional)."""
    _check(clips, frames, widths, fps, seed)
    mixing = {name: _mixing(seed, name, width) for name, width in widths.items()}
    made = []
    dealt: Counter[str] = Counter()
    digits = max(2, len(str(clips)))
    for i, partition in enumerate(partition_plan(clips, 0), start=1):
        name = f"synthetic-{i:0{digits}}"
        # A stream for each modality: asking for text leaves the other two as they are.
        plot, *streams = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).spawn(1 + len(MODALITIES))
        script = write_script(np.random.default_rng(plot), frames, fps, deal=dealt[partition])
        dealt[partition] += 1
        rngs = {m: np.random.default_rng(stream) for m, stream in zip(MODALITIES, streams, strict=True)}
        features = {m: _features(script, m, mixing[m], rngs[m]) for m in MODALITIES if m in widths}
        subject = f"subject-{i:0{digits}}"
        made.append(SyntheticClip(name, subject, partition, fps, features, script.labels, script.spans))
    return made


def write_synthetic(
    out: Path,
    *,
    clips: int = 12,
    frames: int = 400,
    widths: Mapping[str, int] = DEFAULT_WIDTHS,
    fps: float = 25.0,
    seed: int = 0,
) -> list[SyntheticClip]:
    """Write `<clip>.npz` (one array per modality, and `labels`), clips.csv, truth/spans.csv; return what was written.

    `out` must be new or empty, and appears whole or not at all.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty", "choose an empty or new folder for the synthetic corpus")
    made = synthetic_clips(clips=clips, frames=frames, widths=widths, fps=fps, seed=seed)
    with whole_folder(out) as root:
        for clip in made:
            arrays: dict[str, Array] = {**clip.features, "labels": clip.labels}
            np.savez(root / f"{clip.name}.npz", **arrays)  # type: ignore[arg-type]
        rows = [(c.name, c.subject, c.partition, f"{c.fps:g}", len(c.labels)) for c in made]
        write_rows(root / "clips.csv", ("clip", "subject", "partition", "fps", "frames"), rows)
        write_spans(root / "truth" / "spans.csv", ((c.name, c.spans) for c in made))
    return made


def _check(clips: int, frames: int, widths: Mapping[str, int], fps: float, seed: int) -> None:
    if clips < 1 or frames < 1 or not fps > 0 or seed < 0:
        given = f"clips={clips}, frames={frames}, fps={fps}, seed={seed}"
        raise ValueError(f"{given}: need clips >= 1, frames >= 1, fps > 0 and seed >= 0")
    for name, width in widths.items():
        if name not in MODALITIES:
            raise ValueError(f"widths: no modality {name!r}; choose from {', '.join(MODALITIES)}")
        if width < 1:
            raise ValueError(f"widths[{name!r}]={width}: need at least one column")
    if not widths:
        raise ValueError(f"widths is empty: name at least one of {', '.join(MODALITIES)}")


def _mixing(seed: int, modality: str, width: int) -> Floats:
    """Matrix [3 + nuisance, width] that depends on seed and modality only: the corpus's own 'backbone'."""
    rng = np.random.default_rng([seed, zlib.crc32(modality.encode())])
    mixing: Floats = rng.standard_normal((3 + _NUISANCE, width)) / np.sqrt(3 + _NUISANCE)
    return mixing


def _features(script: LatentScript, modality: str, mixing: Floats, rng: np.random.Generator) -> Array:
    """Feature columns, float32 [frames, width], of one modality of one clip."""
    n, fps = script.frames, script.fps
    if modality == "text":
        return _text(script, mixing, rng)
    prefix = "face" if modality == "visual" else "voice"
    shown = [getattr(script, f"{prefix}_{part}") for part in ("valence", "arousal", "tell")]
    subject = [np.full(n, 0.4 * rng.standard_normal()) for _ in range(2)]
    drift = [0.4 * smooth_noise(rng, n, fps, 1.0) for _ in range(_NUISANCE - 2)]
    latent = np.stack([*shown, *subject, *drift], axis=1)
    columns = latent @ mixing + _NOISE * rng.standard_normal((n, mixing.shape[1]))
    scale = float(columns.std())
    for span in script.spans:
        at = slice(span.start, span.end)
        if span.modality == modality and span.kind == "missing":
            columns[at] = 0.0
        elif span.modality == modality and span.kind == "corrupted":
            columns[at] = scale * rng.standard_normal(columns[at].shape)
    return columns.astype(np.float32)


def _text(script: LatentScript, mixing: Floats, rng: np.random.Generator) -> Array:
    """Word features: constant over each word, zero between words and where there is no voice."""
    columns = np.zeros((script.frames, mixing.shape[1]))
    mute = script.damaged("audio", "missing")
    frame = int(rng.integers(1, 6))
    while frame < script.frames:
        end = frame + max(2, round(rng.uniform(0.15, 0.5) * script.fps))
        middle = min((frame + end) // 2, script.frames - 1)
        # Words say little of arousal, and each one is a rough witness.
        meant = (script.voice_valence[middle], 0.3 * script.voice_arousal[middle], 0.0)
        latent = np.concatenate([meant, np.zeros(_NUISANCE)]) + 0.5 * rng.standard_normal(3 + _NUISANCE)
        if not mute[middle]:
            columns[frame:end] = latent @ mixing
        frame = end + int(rng.integers(1, max(2, round(0.25 * script.fps))))
    return columns.astype(np.float32)
