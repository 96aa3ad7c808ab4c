"""How much of what is planted in a corpus: the parameters of `corpus: {name: synthetic, conflict: 0.2}` in a sweep.

A corpus with a dose has a name of its own, `synthetic-dose-conflict=0.2`, from which the dose can be read again. Its
clips are those of `episodes`, another generator than that of the plain corpus `synthetic`, because the best possible
estimate of its labels can be computed (`ceilings`).
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from crossfold.platform.core.base_model import MOST_COUNT, FrozenModel
from crossfold.platform.core.errors import UserError

EPISODE = 40
"""Frames of one episode: an emotion that rises from neutral and falls back (1.6 s)."""
MOST_DAMAGED = 0.9
"""The largest share of time in which a modality may be damaged."""
MOST_PLANTED = 0.7
"""The largest share of time with spans in a clip of puppets, so that there is room between them."""
_MOST_FRAMES = 20_000_000
"""Of a whole corpus: about 2 GiB."""


class SyntheticDose(FrozenModel):
    """What is planted in the clips of a synthetic corpus with a dose. At most one modality is damaged at a time."""

    missing: float = Field(0.0, ge=0, le=MOST_DAMAGED)
    """Share of time in which one modality is not there; half of it the audio."""
    corrupted: float = Field(0.0, ge=0, le=MOST_DAMAGED)
    """Share of time in which one modality carries loud noise."""
    conflict: float = Field(0.0, ge=0, le=MOST_DAMAGED)
    """Share of time in which one modality shows an emotion that has nothing to do with the true one."""
    severity: float = Field(1.0, ge=0, le=1)
    """Of corruption and conflict: 0 changes nothing, 1 leaves nothing of the true emotion."""
    complementary: float = Field(0.0, ge=0, le=1)
    """Share of the variance of the emotion of which each modality shows one half, and the other does not."""
    shared: float = Field(0.0, ge=0, lt=1)
    """Share of the variance of its error that a modality has in common with the other."""
    cue: float = Field(2.0, ge=0, le=100)
    """By how many standard deviations the cue of a modality rises while it is corrupted or in conflict."""
    clips: int = Field(48, ge=2, le=100_000)
    """Training clips; fewer are the first of more."""
    validation: int = Field(40, ge=3, le=100_000)
    """Validation clips; they do not depend on `clips`."""
    frames: int = Field(400, ge=EPISODE, le=MOST_COUNT)
    """Frames of each clip, a multiple of 40, the frames of an episode."""
    truth: Literal["none", "oracle", "shuffled"] = "none"
    """`oracle`: a third modality, `text`, says which modality is damaged and how. `shuffled`: it says what happens in
    another clip. Both exist to test systems."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Another seed makes other clips."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (damaged := self.missing + self.corrupted + self.conflict) > MOST_DAMAGED:
            raise ValueError(f"missing + corrupted + conflict is {damaged:g}: give at most {MOST_DAMAGED} in all")
        if self.frames % EPISODE:
            raise ValueError(f"frames = {self.frames}: give a multiple of {EPISODE}, the frames of an episode")
        if (total := (self.clips + self.validation) * self.frames) > _MOST_FRAMES:
            raise ValueError(f"{total:,} frames in all: give fewer clips or frames, at most {_MOST_FRAMES:,}")
        return self

    @property
    def corpus(self) -> str:
        """The name of the corpus with this dose: it lists what differs from the defaults."""
        given = self.model_dump(exclude_defaults=True)
        return "".join(["synthetic-dose", *(f"-{name}={value}" for name, value in given.items())])


class PuppetDose(FrozenModel):
    """What is planted in the clips of a corpus of puppets, on average; `crossfold corpus puppets --dose`."""

    missing: float = Field(0.0, ge=0, le=MOST_PLANTED)
    """Share of time in which there is no face in the picture, or silence in the sound."""
    corrupted: float = Field(0.0, ge=0, le=MOST_PLANTED)
    """Share of time in which the picture or the sound is damaged."""
    conflict: float = Field(0.0, ge=0, le=MOST_PLANTED)
    """Share of time in which face or voice shows another emotion."""
    complementary: float = Field(0.0, ge=0, le=MOST_PLANTED)
    """Share of time in which the emotion is the sum of what face and voice show."""
    severity: float = Field(1.0, ge=0, le=1)
    """Of conflict: 0 shows the true emotion, 1 another one."""
    cue: float = Field(1.0, ge=0, le=1)
    """How visible and audible it is that a modality is in conflict (gaze, mouth, a trembling voice); 0: not at all."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (planted := self.missing + self.corrupted + self.conflict + self.complementary) > MOST_PLANTED:
            raise ValueError(f"missing + corrupted + conflict + complementary is {planted:g}: at most {MOST_PLANTED}")
        return self

    @property
    def corpus(self) -> str:
        """The name of the corpus with this dose: it lists what differs from the defaults."""
        given = self.model_dump(exclude_defaults=True)
        return "".join(["puppets-dose", *(f"-{name}={value}" for name, value in given.items())])


Dose = SyntheticDose | PuppetDose
DOSES: Mapping[str, type[SyntheticDose] | type[PuppetDose]] = {"synthetic": SyntheticDose, "puppets": PuppetDose}
"""The corpora that take a dose."""


def dose_of(corpus: str) -> Dose | None:
    """The dose of the corpus of this name; None for a corpus without one."""
    name, dash, rest = corpus.partition("-dose")
    if name not in DOSES or not dash or rest[:1] not in ("", "-"):
        return None
    # A minus sign may stand in an exponent, as in 1e-05, but no name has a digit behind its minus.
    parts = rest.replace("e-0", "e~0").split("-")[1:]
    pairs = [part.replace("~", "-").partition("=")[::2] for part in parts]
    try:
        dose = DOSES[name].model_validate_strings(dict(pairs))
    except ValidationError:
        return None
    return dose if dose.corpus == corpus else None


def expand_doses(given: Mapping[str, Any]) -> Iterator[Dose]:
    """Every combination of the listed values of a mapping such as `{name: synthetic, conflict: [0, 0.2]}`.

    Raises `UserError` for another corpus, for an unknown parameter, an empty list and a value outside its range.
    """
    values = {key: value for key, value in given.items() if key != "name"}
    if given.get("name") not in DOSES:
        raise UserError(
            f"corpus: {{name: {given.get('name')!r}}} takes no dose",
            f"{' and '.join(DOSES)} do: write corpus: {{name: synthetic, conflict: [0, 0.2]}}, or the name alone",
        )
    kind = DOSES[given["name"]]
    lists = {key: value if isinstance(value, list | tuple) else [value] for key, value in values.items()}
    if empty := [key for key, value in lists.items() if not value]:
        raise UserError(f"corpus: {empty[0]} = [] names no value", "give at least one, or leave it out")
    for combination in itertools.product(*lists.values()):
        yield kind.parse(dict(zip(lists, combination, strict=True)), "corpus")
