"""The pretrained weights that the papers use: what each is, where to get it, its file name and its digest.

The sets are listed in `pretrained.yaml`. None of them ships and none is downloaded: licences differ, and some were
trained on data that may not be used for every purpose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from crossfold.platform.core.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the publisher reports for a given input: mean and standard deviation of all outputs."""

    probe: str
    """Which input: `tone`, three seconds of a sine of 1 kHz as VGGish examples."""
    relu: bool
    """Whether the published numbers are of the outputs after a ReLU."""
    mean: float
    std: float
    tolerance: float
    """Relative, as published."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of pretrained weights: a file, or a folder with certain files."""

    name: str
    title: str
    page: str
    """Where a person finds it."""
    licence: str
    place: str
    """File or folder, below the weights folder."""
    holds: tuple[str, ...] = ()
    """For a folder: the files that must be in it."""
    sha256: str | None = None
    """The digest or its beginning, as published; None: recorded when first used, and compared from then on."""
    expected: Expected | None = None

    @property
    def is_folder(self) -> bool:
        """Whether `place` is a folder."""
        return bool(self.holds)


_PUBLISHED = Path(__file__).parent / "pretrained.yaml"


def _read(path: Path) -> Iterator[Weights]:
    for name, facts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        expected = Expected(**facts.pop("expected")) if "expected" in facts else None
        yield Weights(name=name, holds=tuple(facts.pop("holds", ())), expected=expected, **facts)


WEIGHTS = {entry.name: entry for entry in _read(_PUBLISHED)}
"""Every set of pretrained weights by name."""


def register_weights(entry: Weights) -> Weights:
    """Adds weights of your own, for a backbone of a plugin. A name that stands for other weights is an error."""
    if WEIGHTS.setdefault(entry.name, entry) != entry:
        raise UserError(f"weights {entry.name!r} are registered twice, with different facts", "rename one of them")
    return entry


def weights_entry(name: str) -> Weights:
    """An entry by name, or a `UserError` with the nearest right one."""
    if name not in WEIGHTS:
        raise UserError(
            f"unknown weights {name!r}{did_you_mean(name, WEIGHTS)}", "`crossfold list weights` shows all of them"
        )
    return WEIGHTS[name]
