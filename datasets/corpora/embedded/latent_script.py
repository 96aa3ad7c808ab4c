"""The latent script of one clip of the embedded corpora: what is felt, what each modality shows of it, what is rated.

A puppet feels a smooth valence and arousal. Face and voice each express them with an error of their own, the face
better at valence and the voice better at arousal, so two modalities say more than one. In *spans* this changes:

    complementary   the emotion is the sum of two parts; the face shows one part, the voice the other
    conflict        one modality shows the opposite of the emotion, or one that has nothing to do with it
    missing         one modality is not there: no face in the picture, silence in the sound
    corrupted       one modality is there but damaged
    unlabelled      the annotators left a gap (-5)

A modality that lies betrays it (averted gaze and a crooked mouth, a trembling voice; the arrays `*_tell`), so that
trust can be learnt from what is seen and heard. Spans are half-open frame ranges [start, end), disjoint and in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from crossfold.datasets.corpora.clips import UNLABELLED, Span
from crossfold.datasets.corpora.embedded.dose import PuppetDose

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Kind = Literal["complementary", "missing", "corrupted", "conflict", "unlabelled"]
Modality = Literal["audio", "visual", "both"]

RATING_DELAY_S = 0.4
"""By how much annotators lag behind what they rate, in seconds."""

# Clips take successive cards, so any five in a row hold every kind and ten in a row damage both modalities alike.
_DECK: tuple[tuple[Kind, Modality], ...] = (
    ("complementary", "both"),
    ("missing", "audio"),
    ("conflict", "visual"),
    ("unlabelled", "both"),
    ("corrupted", "audio"),
    ("complementary", "both"),
    ("missing", "visual"),
    ("conflict", "audio"),
    ("unlabelled", "both"),
    ("corrupted", "visual"),
)
_DETAILS: dict[tuple[Kind, Modality], tuple[str, ...]] = {
    ("missing", "audio"): ("silence",),
    ("missing", "visual"): ("no face",),
    ("corrupted", "audio"): ("noise", "hum", "clipping"),
    ("corrupted", "visual"): ("blur", "occluder", "darkness"),
    ("conflict", "audio"): ("opposite", "unrelated"),
    ("conflict", "visual"): ("opposite", "unrelated"),
    ("complementary", "both"): ("sum",),
    ("unlabelled", "both"): ("gap",),
}
OTHER_SPEAKER = "other speaker"
"""Detail of a missing voice while another person in the picture talks: there is sound, but not this subject's."""

_MIN_SPAN_S, _MAX_SPAN_S, _MIN_GAP_S = 1.5, 4.0, 0.4  # of spans, and between two of them
_RAMP_S = 0.24  # in which a span fades in and out
# Spread of each modality's own error; the latents spread by about 0.55.
_FACE_ERROR = (0.52, 0.62)
_VOICE_ERROR = (0.60, 0.48)


@dataclass(frozen=True)
class LatentScript:
    """One clip's script. Every array is float32 [frames], in [-1, 1] unless said otherwise.

    `face_*` and `voice_*` are what the puppet does, before damage: in a missing span the face still moves, unseen.
    """

    fps: float
    valence: Array
    arousal: Array
    label_valence: Array
    """What annotators wrote, late by `RATING_DELAY_S`; -5 where they wrote nothing."""
    label_arousal: Array
    face_valence: Array
    face_arousal: Array
    voice_valence: Array
    voice_arousal: Array
    face_tell: Array
    """0 sincere .. 1 lying."""
    voice_tell: Array
    spans: tuple[Span, ...]

    @property
    def frames(self) -> int:
        """Length of the clip in video frames."""
        return int(self.valence.size)

    @property
    def labels(self) -> Array:
        """Ratings, float32 [frames, 2]: valence, arousal; -5 where not rated."""
        return np.stack([self.label_valence, self.label_arousal], axis=1)

    def damaged(self, modality: Modality, kind: Kind) -> npt.NDArray[np.bool_]:
        """Frames [frames] in which `kind` befalls `modality`."""
        hit = np.zeros(self.frames, dtype=bool)
        for span in self.spans:
            if span.kind == kind and span.modality == modality:
                hit[span.start : span.end] = True
        return hit


def write_script(
    rng: np.random.Generator,
    frames: int,
    fps: float,
    *,
    deal: int | None = None,
    silent: tuple[int, int] | None = None,
    dose: PuppetDose | None = None,
) -> LatentScript:
    """Write the script of one clip of `frames` video frames at `fps` frames per second.

    `deal` is the clip's number within its partition and decides which kinds of span it gets; None draws it.
    Successive numbers go round all kinds. In frames `silent` another person talks: one long missing-voice span.
    `dose` says instead how much of each kind there is, and how strong conflicts are.
    """
    if frames < 1 or not fps > 0:
        raise ValueError(f"frames={frames}, fps={fps}: need frames >= 1 and fps > 0")
    delay = round(RATING_DELAY_S * fps)
    felt = _felt(rng, frames + delay, fps)
    total = felt[delay:]
    if dose is None:
        spans = _spans(rng, frames, fps, int(rng.integers(len(_DECK))) if deal is None else deal, silent)
    else:
        spans = _dosed_spans(rng, frames, fps, dose)
    severity, cue = (1.0, 1.0) if dose is None else (dose.severity, dose.cue)
    face = total + _error(rng, frames, fps, _FACE_ERROR)
    voice = total + _error(rng, frames, fps, _VOICE_ERROR)
    lying = {"visual": np.zeros(frames), "audio": np.zeros(frames)}
    for span in spans:
        at = slice(span.start, span.end)
        ramp = _ramp(span.end - span.start, fps)[:, None]
        if span.kind == "complementary":
            part = _split(rng, span.end - span.start, fps)
            # The errors shrink here: what matters is that neither part is the whole.
            face[at] += ramp * (0.5 * total[at] + part + 0.4 * (face[at] - total[at]) - face[at])
            voice[at] += ramp * (0.5 * total[at] - part + 0.4 * (voice[at] - total[at]) - voice[at])
        elif span.kind == "conflict":
            lie = _lie(rng, total[at], span.detail)
            liar = face if span.modality == "visual" else voice
            liar[at] += severity * ramp * (lie - liar[at])
            lying[span.modality][at] = cue * ramp[:, 0]
    labels = _rate(rng, felt, delay, fps, spans)
    columns = [np.clip(x, -1.0, 1.0).astype(np.float32) for x in (*total.T, *face.T, *voice.T)]
    valence, arousal, face_v, face_a, voice_v, voice_a = columns
    return LatentScript(
        fps=fps,
        valence=valence,
        arousal=arousal,
        label_valence=labels[:, 0],
        label_arousal=labels[:, 1],
        face_valence=face_v,
        face_arousal=face_a,
        voice_valence=voice_v,
        voice_arousal=voice_a,
        face_tell=lying["visual"].astype(np.float32),
        voice_tell=lying["audio"].astype(np.float32),
        spans=spans,
    )


def smooth_noise(rng: np.random.Generator, frames: int, fps: float, seconds: float) -> Floats:
    """Gaussian noise [frames] of unit variance, smoothed by a Gaussian kernel of `seconds` standard deviation."""
    width = max(seconds * fps, 1e-3)
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= np.linalg.norm(kernel)
    return np.convolve(rng.standard_normal(frames + 2 * reach), kernel, mode="valid")


def partition_plan(singles: int, pairs: int) -> list[str]:
    """Partition of each single clip, spread evenly, so that about a quarter of singles + 2 pairs is validation.

    Pairs share a video and train, so nothing leaks; a corpus of one clip has no validation.
    """
    clips = singles + 2 * pairs
    wanted = min(singles, max(1, round(clips / 4))) if clips > 1 else 0
    chosen = {int((k + 0.5) * singles / wanted) for k in range(wanted)}
    return ["validation" if i in chosen else "train" for i in range(singles)]


def _felt(rng: np.random.Generator, frames: int, fps: float) -> Floats:
    """Latent valence and arousal [frames, 2], spread almost evenly over [-1, 1]."""
    # A strong mood a clip would let a model read the label from who it is: every clip has a subject of its own.
    mood = 0.2 * rng.standard_normal(2)
    waves = np.stack([smooth_noise(rng, frames, fps, 1.3) for _ in range(2)], axis=1)
    felt: Floats = np.tanh(1.15 * (mood + 1.0 * waves))
    return felt


def _error(rng: np.random.Generator, frames: int, fps: float, size: tuple[float, float]) -> Floats:
    """By how much one modality misses valence and arousal, [frames, 2]."""
    return np.stack([s * smooth_noise(rng, frames, fps, 0.7) for s in size], axis=1)


def _split(rng: np.random.Generator, frames: int, fps: float) -> Floats:
    """What the face takes from the voice in a complementary span, [frames, 2]: about +-0.5, slowly changing."""
    side = rng.choice([-1.0, 1.0], size=2) * rng.uniform(0.3, 0.6, size=2)
    return np.stack([s + 0.1 * smooth_noise(rng, frames, fps, 0.7) for s in side], axis=1)


def _lie(rng: np.random.Generator, total: Floats, detail: str) -> Floats:
    """The false emotion [frames, 2]; far from the true one even where that is near zero."""
    if detail == "unrelated":
        return np.broadcast_to(rng.uniform(-0.9, 0.9, size=2), total.shape)
    push = np.where(total.mean(axis=0) >= 0, -0.35, 0.35)
    lie: Floats = push - 0.8 * total
    return lie


def _ramp(frames: int, fps: float) -> Floats:
    """0 outside, 1 inside a span, in `_RAMP_S` seconds at both ends, so that faces do not jump."""
    edge = max(1.0, _RAMP_S * fps)
    steps = np.arange(frames)
    return np.clip(np.minimum(steps + 1, frames - steps) / edge, 0.0, 1.0)


def _spans(
    rng: np.random.Generator, frames: int, fps: float, deal: int, silent: tuple[int, int] | None
) -> tuple[Span, ...]:
    """Disjoint spans over 37-48% of the frames that are not silent."""
    if silent is None:
        return tuple(_place(rng, 0, frames, fps, deal))
    begin, end = silent
    if not 0 <= begin < end <= frames:
        raise ValueError(f"silent={silent}: need 0 <= start < end <= {frames}")
    pause = Span(begin, end, "missing", "audio", OTHER_SPEAKER)
    return (*_place(rng, 0, begin, fps, deal), pause, *_place(rng, end, frames, fps, deal + 1))


def _dosed_spans(rng: np.random.Generator, frames: int, fps: float, dose: PuppetDose) -> tuple[Span, ...]:
    """Disjoint spans of the kinds of a dose, each over its share of the frames on average."""
    kinds: list[Kind] = ["missing", "corrupted", "conflict", "complementary"]
    shares = np.array([getattr(dose, kind) for kind in kinds])
    if shares.sum() == 0 or frames < 8:
        return ()
    placed = _intervals(rng, frames, fps, float(shares.sum()) * frames)
    spans = []
    for start, end in placed:
        kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
        sides: tuple[Modality, ...] = ("both",) if kind == "complementary" else ("audio", "visual")
        modality = sides[int(rng.integers(len(sides)))]
        details = _DETAILS[kind, modality]
        spans.append(Span(start, end, kind, modality, details[int(rng.integers(len(details)))]))
    return tuple(spans)


def _intervals(rng: np.random.Generator, frames: int, fps: float, covered: float) -> list[tuple[int, int]]:
    """Disjoint intervals of frames, of `_MIN_SPAN_S` to `_MAX_SPAN_S`, that cover so many frames together.

    A clip that is shorter than its share of one span has the span with the probability that keeps the share.
    """
    least = _MIN_SPAN_S * fps
    count = int(covered // (2 * least)) or int(rng.random() < covered / least)
    if not count:
        return []
    size = max(2, round(max(covered / count, least)))
    spare = frames - count * size
    if spare < count + 1:
        return []
    gaps = np.floor((spare - count - 1) * rng.dirichlet(np.full(count + 1, 2.0))).astype(int) + 1
    starts = np.cumsum(gaps[:count]) + size * np.arange(count)
    return [(int(start), int(start) + size) for start in starts]


def _place(rng: np.random.Generator, begin: int, end: int, fps: float, deal: int) -> list[Span]:
    """Spans within frames [begin, end), from card 3 * deal on: 3 is what fits into 20 seconds."""
    length = end - begin
    if length < 8:
        return []
    covered = rng.uniform(0.37, 0.48) * length
    count = max(1, min(round(covered / (2.8 * fps)), int(covered // (_MIN_SPAN_S * fps))))
    share = covered / count
    swing = max(0.0, min(share - _MIN_SPAN_S * fps, _MAX_SPAN_S * fps - share))
    sizes = np.maximum(2, np.rint(share + swing * _centred(rng, count))).astype(int)
    spare = length - int(sizes.sum())
    gap = min(_MIN_GAP_S * fps, spare / (count + 1))
    gaps = gap + (spare - gap * (count + 1)) * rng.dirichlet(np.full(count + 1, 2.0))
    cards = [_DECK[(3 * deal + k) % len(_DECK)] for k in range(count)]
    spans = []
    for k, card in enumerate(rng.permutation(count)):
        start = begin + int(gaps[: k + 1].sum()) + int(sizes[:k].sum())
        kind, modality = cards[int(card)]
        details = _DETAILS[kind, modality]
        spans.append(Span(start, start + int(sizes[k]), kind, modality, details[int(rng.integers(len(details)))]))
    return spans


def _centred(rng: np.random.Generator, count: int) -> Floats:
    """Numbers in [-1, 1] that sum to zero."""
    draws = rng.uniform(-1, 1, size=count)
    draws -= draws.mean()
    return draws / max(1.0, float(np.abs(draws).max()))


def _rate(rng: np.random.Generator, felt: Floats, delay: int, fps: float, spans: Sequence[Span]) -> Array:
    """Ratings [frames, 2] of `felt` [frames + delay, 2]: late, smoothed, slightly uncertain, with gaps."""
    frames = len(felt) - delay
    reach = max(1, round(0.2 * fps))
    kernel = np.hanning(2 * reach + 1)
    kernel /= kernel.sum()
    padded = np.pad(felt, ((reach, reach), (0, 0)), mode="edge")
    rated = np.stack([np.convolve(column, kernel, mode="valid")[:frames] for column in padded.T], axis=1)
    rated += 0.03 * np.stack([smooth_noise(rng, frames, fps, 0.6) for _ in range(2)], axis=1)
    labels: Array = np.clip(rated, -1.0, 1.0).astype(np.float32)
    for span in spans:
        if span.kind == "unlabelled":
            # The two targets were rated separately: one rater stops and resumes a little earlier than the other.
            edge = min(3, (span.end - span.start) // 4)
            labels[span.start : span.end - edge, 0] = UNLABELLED
            labels[span.start + edge : span.end, 1] = UNLABELLED
    return labels
