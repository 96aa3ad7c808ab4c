"""The face of a puppet: drawn with polygons, twice as large as needed, then reduced.

Valence lifts the corners of the mouth, the cheeks and the lower lids, and tilts the brows. Arousal opens the eyes,
raises the brows, widens the mouth's movement while speaking and speeds up the head. Lies avert the gaze and skew the
mouth.
Identity (colours, proportions, hair, glasses), light, pose and blinks are nuisance.

Face coordinates: the origin is the middle of the head, y points down, 1 is half the head's height.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from crossfold.datasets.corpora.embedded.latent_script import Array, Floats, LatentScript, smooth_noise

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

SCENE = 192
"""Width and height of the picture of one subject, in pixels."""
CROP = 112
"""Width and height of a face crop, in pixels."""

_CANVAS = 2 * SCENE
_UNIT = 112.0  # canvas pixels in 1 of face coordinates
_CIRCLE = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 28, endpoint=False)), np.sin(t)])
_SKINS: tuple[Colour, ...] = (
    (255, 224, 196), (241, 194, 150), (224, 172, 122), (198, 134, 86), (170, 116, 78), (146, 98, 68),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (32, 24, 22), (74, 46, 28), (122, 78, 40), (196, 150, 76), (160, 70, 36), (150, 150, 152),
)  # fmt: skip
_EYES: tuple[Colour, ...] = ((76, 120, 168), (84, 130, 84), (110, 74, 42), (60, 44, 34), (120, 130, 138))


@dataclass(frozen=True)
class Looks:
    """Who it is: colours in RGB 0..255, lengths in face coordinates."""

    skin: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    wall: Colour
    width: float
    jaw: float
    eye_gap: float
    eye_size: float
    eye_line: float
    brow_weight: float
    nose: float
    mouth_line: float
    mouth_width: float
    lip: float
    style: int
    """Hair: 0 short, 1 parted, 2 long, 3 curly, 4 bald."""
    glasses: bool
    beard: bool
    light: float
    """Side from which the light comes, -1 left .. 1 right."""


class Shot(NamedTuple):
    """One video frame of one subject."""

    scene: Pixels
    """uint8 [SCENE, SCENE, 3], black where the face is missing."""
    crop: Pixels | None
    """uint8 [CROP, CROP, 3], the aligned face; None where the face is missing."""


def cast_looks(rng: np.random.Generator) -> Looks:
    """Draw the looks of one subject."""
    between = rng.uniform
    return Looks(
        skin=_SKINS[int(rng.integers(len(_SKINS)))],
        hair=_HAIRS[int(rng.integers(len(_HAIRS)))],
        iris=_EYES[int(rng.integers(len(_EYES)))],
        shirt=_rgb(between(40, 210, size=3)),
        wall=_rgb(between(90, 210, size=3)),
        width=between(0.70, 0.82),
        jaw=between(0.10, 0.30),
        eye_gap=between(0.315, 0.345),
        eye_size=between(0.17, 0.185),
        eye_line=between(-0.12, -0.08),
        brow_weight=between(0.035, 0.065),
        nose=between(0.07, 0.12),
        mouth_line=between(0.485, 0.515),
        mouth_width=between(0.27, 0.34),
        lip=between(0.035, 0.06),
        style=int(rng.integers(5)),
        glasses=bool(rng.random() < 0.15),
        beard=bool(rng.random() < 0.12),
        light=between(-1, 1),
    )


def film(looks: Looks, script: LatentScript, loudness: Array, rng: np.random.Generator) -> Iterator[Shot]:
    """Draw every frame of a clip; `loudness` [frames] in 0..1 is the puppet's own speech and moves the mouth."""
    tracks = _move(script, loudness, rng)
    light = _light(looks)
    wall = Image.new("RGB", (_CANVAS, _CANVAS), looks.wall)
    grain = _grain(rng)
    hidden = script.damaged("visual", "missing")
    details = {
        frame: span.detail
        for span in script.spans
        if span.kind == "corrupted" and span.modality == "visual"
        for frame in range(span.start, span.end)
    }
    for frame in range(script.frames):
        if hidden[frame]:
            yield Shot(np.zeros((SCENE, SCENE, 3), dtype=np.uint8), None)
            continue
        track = {name: float(values[frame]) for name, values in tracks.items()}
        canvas = wall.copy()
        _Pen(canvas, looks, track).everything()
        canvas = ImageChops.multiply(canvas, light)
        if frame in details:
            canvas = _damage(canvas, details[frame], track)
        half = _UNIT * 0.98 * track["zoom"]
        x, y = _aligned(looks, track)
        crop = canvas.resize((CROP, CROP), Image.Resampling.BILINEAR, box=(x - half, y - half, x + half, y + half))
        crop = ImageChops.add(crop, grain[int(rng.integers(len(grain)))], 1.0, -128)
        yield Shot(np.asarray(canvas.reduce(2)), np.asarray(crop))


def _aligned(looks: Looks, track: dict[str, float]) -> tuple[float, float]:
    """Middle of the crop on the canvas: as face aligners do, the eyes come to one place, give or take a few pixels."""
    below = (looks.eye_line + 0.14 + 0.09 * track["pitch"]) * _UNIT
    x = track["x"] + 0.10 * track["yaw"] * _UNIT - np.sin(track["roll"]) * below
    return float(x + track["slip_x"]), float(track["y"] + np.cos(track["roll"]) * below + track["slip_y"])


def _move(script: LatentScript, loudness: Array, rng: np.random.Generator) -> dict[str, Floats]:
    """Every quantity that changes from frame to frame, as named tracks [frames]."""
    n, fps = script.frames, script.fps
    arousal = script.face_arousal.astype(np.float64)
    energy = 0.55 + 0.35 * arousal

    def sway(seconds: float, size: float) -> Floats:
        return size * smooth_noise(rng, n, fps, seconds)

    blink = np.zeros(n)
    frame = rng.uniform(0.5, 3.0) * fps
    while frame < n:
        blink[int(frame) : int(frame) + max(2, round(0.12 * fps))] = 1.0
        frame += rng.uniform(2.0, 5.0) * fps
    yaw = sway(1.2, 0.35) + energy * sway(0.35, 0.18)
    return {
        "valence": script.face_valence.astype(np.float64),
        "arousal": arousal,
        "tell": script.face_tell.astype(np.float64),
        # A mouth does not follow every sample of sound: effort scales how wide it opens.
        "speech": np.clip(np.convolve(loudness, (0.25, 0.5, 0.25), mode="same")[:n] * (1.2 + 0.6 * arousal), 0, 1),
        "blink": blink,
        "yaw": yaw,
        "pitch": sway(1.2, 0.25) + energy * sway(0.3, 0.15) - 0.25 * arousal,
        "roll": sway(1.5, 0.04) + energy * sway(0.4, 0.025),
        "x": _CANVAS / 2 + sway(2.0, 9.0) + 10 * yaw,
        "y": 0.53 * _CANVAS + sway(2.0, 6.0),
        "gaze": sway(0.6, 0.2),
        "slip_x": sway(0.5, 2.5),
        "slip_y": sway(0.5, 2.5),
        "zoom": 1.0 + sway(1.5, 0.02),
        "bright": 1.0 + sway(2.0, 0.04),
    }


class _Pen:
    """Draws one frame; a shape is a [2, points] array in face coordinates."""

    def __init__(self, canvas: Image.Image, looks: Looks, track: dict[str, float]) -> None:
        self.draw = ImageDraw.Draw(canvas)
        self.looks = looks
        self.t = track
        cos, sin = np.cos(track["roll"]), np.sin(track["roll"])
        self.turn = _UNIT * np.array([[cos, -sin], [sin, cos]])
        self.move = np.array([[track["x"]], [track["y"]]])
        # Parts nearer to the camera travel further when the head turns.
        self.depth = np.array([[0.10 * track["yaw"]], [0.09 * track["pitch"]]])
        self.skin = _scale(looks.skin, track["bright"])

    def fill(self, shape: Floats, colour: Colour, depth: float = 1.0) -> None:
        points = self.turn @ (shape + depth * self.depth) + self.move
        self.draw.polygon(points.T.ravel().tolist(), fill=colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, depth: float = 1.0) -> None:
        self.fill(_CIRCLE * np.array([[rx], [ry]]) + np.array([[x], [y]]), colour, depth)

    def everything(self) -> None:
        self.behind()
        self.head()
        for side in (-1.0, 1.0):
            self.cheek(side)
            self.eye(side)
            self.brow(side)
        self.middle()
        self.mouth()
        self.hair()

    def behind(self) -> None:
        looks = self.looks
        lift = -0.04 * self.t["arousal"]
        if looks.style in (2, 3):
            self.oval(0, -0.12 if looks.style == 3 else 0.1, looks.width * 1.28, 1.02, looks.hair, 0.0)
        self.fill(_pts((-0.3, 0.7), (0.3, 0.7), (0.36, 1.4), (-0.36, 1.4)), _scale(self.skin, 0.82), 0.0)
        shoulders = _pts((-1.7, 2.2), (-1.5, 1.35), (-0.4, 1.12), (0, 1.25), (0.4, 1.12), (1.5, 1.35), (1.7, 2.2))
        self.fill(shoulders + np.array([[0], [lift]]), looks.shirt, 0.0)
        for side in (-1.0, 1.0):
            self.oval(side * looks.width, 0.0, 0.11, 0.18, _scale(self.skin, 0.9), -0.5)

    def head(self) -> None:
        looks = self.looks
        x, y = _CIRCLE
        outline = np.stack([looks.width * x * (1 - looks.jaw * np.maximum(y, 0) ** 2), 0.98 * y])
        self.fill(outline, self.skin, 0.0)
        if looks.beard:
            lower = outline[:, y > 0.25]
            upper = _pts((-0.5, 0.32), (0.0, 0.36), (0.5, 0.32))
            self.fill(np.concatenate([lower, upper], axis=1), _mix(self.skin, looks.hair, 0.55), 0.0)

    def cheek(self, side: float) -> None:
        joy = max(0.0, self.t["valence"])
        blush = _mix(self.skin, (226, 84, 84), 0.12 + 0.22 * joy + 0.10 * max(0.0, self.t["arousal"]))
        self.oval(side * 0.44, 0.26 - 0.06 * joy, 0.15 + 0.03 * joy, 0.10 + 0.02 * joy, blush)

    def eye(self, side: float) -> None:
        looks, valence, arousal = self.looks, self.t["valence"], self.t["arousal"]
        x, y, size = side * looks.eye_gap, looks.eye_line, looks.eye_size
        shut = self.t["blink"]
        up = size * (0.74 + 0.58 * arousal) * (1 - 0.95 * shut)  # how far the upper lid stands above the middle
        down = size * (0.72 + 0.16 * arousal - 0.24 * valence) * (1 - 0.85 * shut)
        self.oval(x, y - 0.02, size * 1.22, max(up, 0.1) + 0.05, _scale(self.skin, 0.86))
        white = _CIRCLE * np.array([[size * 1.1], [1.0]])
        white[1] *= np.where(white[1] < 0, up, down)
        white += np.array([[x], [y]])
        self.fill(white, (250, 250, 248))
        if shut < 0.5:
            look = 0.3 * self.t["gaze"] * (1 - self.t["tell"]) + 0.85 * self.t["tell"]
            ix, iy = x + size * 0.5 * look, y + 0.25 * size * self.t["tell"]
            iris = _CIRCLE * (0.58 * size) + np.array([[ix], [iy]])
            pupil = _CIRCLE * (0.30 * size * (1 + 0.15 * arousal)) + np.array([[ix], [iy]])
            for shape, colour in ((iris, looks.iris), (pupil, (16, 14, 14))):
                # Lids cover the iris: squeeze it into the opening of the eye.
                shape[1] = np.clip(shape[1], y - 0.96 * up, y + 0.96 * down)
                self.fill(shape, colour)
            if up > 0.06:
                self.oval(ix - 0.04, iy - min(0.05, 0.5 * up), 0.025, 0.025, (255, 255, 255))
        lid = white[:, _CIRCLE[1] <= 1e-9]
        lid = lid[:, np.argsort(lid[0])]
        thick = np.stack([lid[0, ::-1], lid[1, ::-1] - 0.035])
        self.fill(np.concatenate([lid, thick], axis=1), (44, 30, 28))
        if looks.glasses:
            self.ring(x, y, 0.25, 0.22)

    def ring(self, x: float, y: float, rx: float, ry: float) -> None:
        outline = _CIRCLE * np.array([[rx], [ry]]) + np.array([[x], [y]])
        points = self.turn @ (outline + self.depth) + self.move
        self.draw.line([*points.T.ravel().tolist(), *points[:, 0].tolist()], fill=(40, 40, 48), width=3)

    def brow(self, side: float) -> None:
        looks, valence, arousal = self.looks, self.t["valence"], self.t["arousal"]
        height = looks.eye_line - 0.28 - 0.13 * arousal
        inner = height - 0.11 * valence + 0.02  # frowning pulls the inner end down
        outer = height + 0.045 * valence + 0.03
        weight = looks.brow_weight
        x0, x1 = side * (looks.eye_gap - 0.17), side * (looks.eye_gap + 0.19)
        middle = (x0 + x1) / 2, (inner + outer) / 2 - 0.035
        shape = _pts(
            (x0, inner - weight), (middle[0], middle[1] - weight), (x1, outer - 0.3 * weight),
            (x1, outer + 0.3 * weight), (middle[0], middle[1] + weight), (x0, inner + weight),
        )  # fmt: skip
        self.fill(shape, _mix(looks.hair, (30, 22, 20), 0.4))

    def middle(self) -> None:
        looks, valence = self.looks, self.t["valence"]
        shade = _scale(self.skin, 0.80)
        self.fill(_pts((0.0, 0.02), (looks.nose, 0.27), (0.0, 0.31), (-looks.nose, 0.27)), shade, 1.6)
        self.oval(0, 0.25, looks.nose * 0.9, 0.06, _scale(self.skin, 0.93), 1.8)
        if valence < 0:
            depth = min(1.0, -valence)
            for side in (-1.0, 1.0):
                fold = _pts((side * 0.05, -0.34), (side * 0.08, -0.34), (side * 0.06, -0.20), (side * 0.045, -0.20))
                self.fill(fold, _scale(self.skin, 1 - 0.35 * depth))

    def mouth(self) -> None:
        looks, valence, arousal, tell = self.looks, self.t["valence"], self.t["arousal"], self.t["tell"]
        s = np.linspace(-1, 1, 13)
        width = looks.mouth_width * (1 + 0.20 * valence - 0.10 * self.t["speech"])
        bow = 1 - s**2
        lift = 0.24 * valence * (1 + 0.6 * tell * s) + 0.10 * tell * s
        centre = looks.mouth_line - lift * (0.55 - bow)
        gap = 0.03 + 0.035 * max(0.0, arousal + 0.4) + 0.20 * self.t["speech"]
        upper, lower = centre - 0.35 * gap * bow, centre + gap * bow
        lip = looks.lip * (0.35 + 0.65 * np.sqrt(bow))
        lips = _mix(_scale(self.skin, 0.62), (150, 24, 44), 0.5)  # darker than any skin: the mouth reads alike on all
        x = width * s
        band = np.stack([np.r_[x, x[::-1]], np.r_[upper - lip, (lower + 1.2 * lip)[::-1]]])
        self.fill(band * np.array([[1.06], [1.0]]), lips)
        self.fill(np.stack([np.r_[x, x[::-1]], np.r_[upper, lower[::-1]]]), (58, 14, 20))
        if gap > 0.08:
            teeth = np.minimum(upper + 0.35 * gap * bow, lower)
            self.fill(np.stack([0.9 * np.r_[x, x[::-1]], np.r_[upper, teeth[::-1]]]), (246, 244, 236))

    def hair(self) -> None:
        looks = self.looks
        if looks.style == 4:
            return
        x, y = _CIRCLE
        line = {0: -0.62, 1: -0.58, 2: -0.55, 3: -0.50}[looks.style]
        cap = np.stack([looks.width * 1.06 * x, 1.06 * y])[:, y < 0.05 if looks.style in (2, 3) else y < -0.2]
        cap = cap[:, np.argsort(cap[0])]
        part = -0.25 if looks.style == 1 else 0.0
        edge = np.linspace(cap[0, -1], cap[0, 0], 9)
        reach = np.abs(edge - part) / np.where(edge > part, cap[0, -1] - part, part - cap[0, 0])
        fringe = line + (cap[1, -1] - line) * reach**3 + (0.03 * np.sin(26 * edge) if looks.style == 3 else 0)
        self.fill(np.concatenate([cap, np.stack([edge, fringe])], axis=1), looks.hair, 0.15)


def _damage(canvas: Image.Image, detail: str, track: dict[str, float]) -> Image.Image:
    """One canvas as a bad camera or a passing object leaves it."""
    if detail == "blur":
        small = canvas.reduce(4).filter(ImageFilter.BoxBlur(6))
        return small.resize(canvas.size, Image.Resampling.BILINEAR)
    if detail == "darkness":
        return canvas.point([int(0.07 * v) for v in range(256)] * 3)
    draw = ImageDraw.Draw(canvas)
    x, y = track["x"] + 40 * track["yaw"], track["y"]
    draw.rounded_rectangle((x - 105, y - 62, x + 105, y + 110), 24, fill=(88, 92, 100))
    draw.rounded_rectangle((x - 88, y - 48, x + 88, y + 96), 16, fill=(52, 56, 66))
    return canvas


def _light(looks: Looks) -> Image.Image:
    """A soft gradient to multiply the canvas with: brighter on the side of the light and above."""
    ramp = np.linspace(-1, 1, _CANVAS)
    shade = 0.90 + 0.10 * looks.light * ramp[None, :] - 0.05 * ramp[:, None]
    grey = np.clip(255 * shade, 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))


def _grain(rng: np.random.Generator) -> list[Image.Image]:
    """A few sensor-noise pictures around grey 128, drawn once: fresh noise for each frame would double its cost."""
    noise = 128 + 3.0 * rng.standard_normal((8, CROP, CROP, 3))
    return [Image.fromarray(picture) for picture in noise.astype(np.uint8)]


def _pts(*points: tuple[float, float]) -> Floats:
    return np.array(points, dtype=np.float64).T


def _rgb(values: Floats) -> Colour:
    return cast(Colour, tuple(int(v) for v in values))


def _scale(colour: Colour, factor: float) -> Colour:
    return cast(Colour, tuple(max(0, min(255, int(c * factor))) for c in colour))


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return cast(Colour, tuple(int(x + share * (y - x)) for x, y in zip(a, b, strict=True)))
