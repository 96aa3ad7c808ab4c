"""How a trained cell is evaluated: chains of post-processing and stress suites. Outside the cell's identity."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.hashing import canonical_json

Seconds = Annotated[float, Field(ge=0)]
Searched = Seconds | tuple[Seconds, Seconds]
"""A fixed number of seconds, or the two ends of a range in which fitting searches."""


def _rising(value: Searched) -> Searched:
    if isinstance(value, tuple) and not 0 < value[0] < value[1]:
        raise ValueError(f"[{value[0]:g}, {value[1]:g}]: a range needs 0 < low < high")
    return value


class Median(FrozenModel):
    """A centred median filter."""

    kind: Literal["median"] = "median"
    seconds: Searched = (0.4, 20.0)
    """Width of the window; the range is that of 004."""

    _check = field_validator("seconds")(_rising)


class Centre(FrozenModel):
    """Adds mean(label) - mean(prediction) of the split it is fitted on."""

    kind: Literal["centre"] = "centre"


class Scale(FrozenModel):
    """Stretches about the mean by std(label) / std(prediction) of the split it is fitted on."""

    kind: Literal["scale"] = "scale"


class Shift(FrozenModel):
    """Delays the prediction, as annotators are late."""

    kind: Literal["shift"] = "shift"
    seconds: Searched = (0.04, 10.0)
    """The range is that of 004."""

    _check = field_validator("seconds")(_rising)


class Smooth(FrozenModel):
    """A centred moving mean."""

    kind: Literal["smooth"] = "smooth"
    frames: Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=1)]]
    """Width of the window; by target, those not named stay as they are."""
    ends: Literal["held", "zero"] = "held"
    """What counts beyond the ends of a run: its first and last value, or zeros, as released with 000 (F2)."""

    @model_serializer(mode="wrap")
    def _as_before(self, as_dict: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `ends` where they are held, so that evaluations from before there was a choice keep their key."""
        return {name: value for name, value in as_dict(self).items() if (name, value) != ("ends", "held")}


class Limit(FrozenModel):
    """Cuts values off at the ends of a range."""

    kind: Literal["clip"] = "clip"
    low: float = -1.0
    """The smallest value that is left."""
    high: float = 1.0
    """The largest one."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


Step = Annotated[Median | Centre | Scale | Shift | Smooth | Limit, Field(discriminator="kind")]


class Chain(FrozenModel):
    """Steps of post-processing, in order; none by default."""

    labels: bool = False
    """F1: in the oracle column, the labels go through the median filter and the moving mean too, as in 004."""
    steps: tuple[Step, ...] = ()
    """Each with its `kind`: `median`, `centre`, `scale`, `shift`, `smooth` or `clip`."""

    @property
    def fitted(self) -> bool:
        """Whether any step takes something from labels."""
        return any(
            step.kind in ("centre", "scale") or isinstance(getattr(step, "seconds", None), tuple) for step in self.steps
        )


CHAINS: Mapping[str, Chain] = {
    "none": Chain(),
    "ca2021": Chain(labels=True, steps=(Median(), Centre(), Scale(), Shift())),  # 004 (F1)
    # 000, as released (F2)
    "dca2024": Chain(steps=(Limit(), Smooth(frames={"valence": 20, "arousal": 50}, ends="zero"))),
}
"""The chains that have a name."""


class Stress(FrozenModel):
    """One kind of damage at several strengths; the unit of a strength depends on the kind (docs/results.md)."""

    kind: Literal["missing", "noisy", "frozen", "shifted"]
    """What happens to the features of the modality."""
    modality: Literal["audio", "visual", "text", "each"] = "each"
    """`each`: one modality of the store after the other."""
    strengths: tuple[float, ...] = Field(min_length=1)
    """Share of the time (missing), standard deviations (noisy), or seconds (frozen, shifted)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for strength in self.strengths:
            if (strength < 0 and self.kind != "shifted") or (strength > 1 and self.kind == "missing"):
                rule = {"missing": "a share of the time, 0-1", "noisy": "standard deviations, at least 0"}
                raise ValueError(f"strength {strength:g} of {self.kind}: {rule.get(self.kind, 'seconds, at least 0')}")
        return self


SUITES: Mapping[str, tuple[Stress, ...]] = {
    "none": (),
    "quick": (Stress(kind="missing", strengths=(1.0,)), Stress(kind="noisy", strengths=(1.0,))),
    "default": (
        Stress(kind="missing", strengths=(0.5, 1.0)),
        Stress(kind="noisy", strengths=(1.0, 3.0)),
        Stress(kind="frozen", strengths=(2.0,)),
        Stress(kind="shifted", strengths=(1.0,)),
    ),
    "full": (
        Stress(kind="missing", strengths=(0.1, 0.25, 0.5, 0.75, 1.0)),
        Stress(kind="noisy", strengths=(0.25, 0.5, 1.0, 2.0, 4.0)),
        Stress(kind="frozen", strengths=(0.5, 2.0, 8.0)),
        Stress(kind="shifted", strengths=(-2.0, -0.5, 0.5, 2.0, 8.0)),
    ),
}
"""The suites that have a name. One entry costs one prediction of the reported split."""


class Doses(FrozenModel):
    """A curve for each kind of damage: `stress: {doses: [0.25, 0.5, 0.75, 1]}`; becomes a list of `Stress`."""

    doses: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    """Shares of the strongest damage that a suite has of each kind."""
    suite: Literal["quick", "default", "full"] = "default"
    """Whose kinds."""

    def suite_of(self) -> tuple[Stress, ...]:
        """Each kind at these doses. Raises `UserError` for a dose that its kind cannot have."""
        strongest = ((stress, max(stress.strengths)) for stress in SUITES[self.suite])
        doses = sorted(set(self.doses))
        return tuple(
            Stress.parse(
                {"kind": stress.kind, "modality": stress.modality, "strengths": [round(d * most, 6) for d in doses]},
                f"doses {', '.join(f'{dose:g}' for dose in doses)} of suite {self.suite}",
            )
            for stress, most in strongest
        )


def _with_doses(value: Any) -> Any:
    try:
        return Doses.parse(value, "doses").suite_of() if isinstance(value, Mapping) else value
    except UserError as error:  # without its remedy, as whoever reads the whole value adds one
        raise ValueError(error.problem) from None


def _named(what: str, known: Mapping[str, Any]) -> BeforeValidator:
    def look_up(value: Any) -> Any:
        if not isinstance(value, str):
            return known["none"] if value is None else value
        if value not in known:
            raise ValueError(f"no {what} has this name{did_you_mean(value, known)}; known: {', '.join(known)}")
        return known[value]

    return BeforeValidator(look_up)


PostChain = Annotated[Chain, _named("chain", CHAINS)]
StressSuite = Annotated[tuple[Stress, ...], _named("stress suite", SUITES), BeforeValidator(_with_doses)]
"""A name, `Doses`, or a list."""


class Evaluation(FrozenModel):
    """How cells are evaluated: what `rescore` computes again."""

    post: PostChain = Chain()
    stress: StressSuite = ()

    @property
    def key(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON: the folder of what was scored this way."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()[:12]


def strengths_of(suite: Sequence[Stress], modalities: Sequence[str]) -> list[tuple[str, str, float]]:
    """(kind, modality, strength) of every entry, in the order of the suite, each once."""
    found = [
        (stress.kind, modality, strength)
        for stress in suite
        for modality in (modalities if stress.modality == "each" else (stress.modality,))
        for strength in stress.strengths
        if modality in modalities
    ]
    return list(dict.fromkeys(found))
