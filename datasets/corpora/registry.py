"""The table of corpora: which layouts of files Crossfold reads, and what each reader must offer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from crossfold.datasets.corpora.clips import VALENCE_AROUSAL, ClipArrays, ClipInfo, MediaClip, Target
from crossfold.datasets.corpora.embedded_truth import embedded_layout
from crossfold.datasets.corpora.findings import Finding
from crossfold.datasets.corpora.partitions import Fold
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.registry import Registry


@dataclass(frozen=True)
class FeatureClip:
    """A clip whose features are there already: nothing is decoded."""

    info: ClipInfo
    read: Callable[[], ClipArrays]


@dataclass(frozen=True)
class Inspection:
    """A data folder as it was found."""

    corpus: str
    """Name of the store, which may differ from what was asked for: embedded data never passes for the real."""
    clips: Sequence[MediaClip] | Sequence[FeatureClip]
    """Those that can be used, in the order of the store."""
    findings: tuple[Finding, ...] = ()
    targets: tuple[Target, ...] = VALENCE_AROUSAL
    """The columns of the labels of every clip."""
    folds: tuple[Fold, ...] | None = None
    """Where the data name folds of their own; else they follow from the official split (`make_folds`)."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """What a reader of results should know about these files, such as which printed split they are."""


class Inspect(Protocol):
    """Reads a folder of a corpus's layout; problems are findings, never exceptions."""

    def __call__(self, root: Path, *, deep: bool) -> Inspection:
        """`deep` also decodes what can only be checked by decoding."""
        ...


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One layout of files on disk."""

    description: str
    layout: str
    """The files, in one line."""
    needs: str
    """Where the data come from and who may have them."""
    inspect: Inspect
    sources: Callable[[Path], list[Path]]
    """Every file that the store depends on, cheaply: from a listing, no media opened."""
    names_itself: bool = False
    """Whether a folder may give its store a name of its own."""
    options: type[FrozenModel] | None = None
    """Settings of the reader, such as a shift of the labels; `inspect` then takes them as `options`."""

    def read(self, root: Path, *, deep: bool, options: Mapping[str, Any] | None = None) -> Inspection:
        """Inspects a folder under `options` (`--set name=value`); refuses those that this corpus does not have."""
        if not options:
            return self.inspect(root, deep=deep)
        if self.options is None:
            raise UserError(f"this corpus has no options, {', '.join(options)} given", "leave --set out")
        # `Inspect` knows no options: most readers have none, and plug-ins need not take the argument.
        inspect: Callable[..., Inspection] = self.inspect
        return inspect(root, deep=deep, options=self.options.parse(options, "--set"))


CORPORA: Registry[Corpus] = Registry("corpus", "crossfold.datasets.corpora", plural="corpora")
"""Filled by the modules of this folder, one corpus per file, and by plug-ins."""

EMBEDDED = "puppets"


def find_reader(asked: str, root: Path) -> Corpus:
    """What reads `root` as corpus `asked`; `puppets` stands for the layout in which they were written there."""
    layout = embedded_layout(root) if asked == EMBEDDED else None  # a note that `write_puppets` leaves there
    return CORPORA.get(layout if layout and layout != "affwild2" else asked)


def is_asked(asked: str, found: str) -> bool:
    """Whether corpus `found` in a folder is what was asked for: puppets in any layout are `puppets`, and only they."""
    return found == asked or (asked == EMBEDDED and found.startswith(f"{EMBEDDED}-"))
