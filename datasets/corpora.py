"""The table of corpora: which layouts of files Crossfold reads, and what each reader must offer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossfold.datasets.clips import ClipArrays, ClipInfo, MediaClip
from crossfold.datasets.validation import Finding
from crossfold.platform.registry import Registry


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
    """Every file that the store depends on, cheaply: from a listing, no file opened."""
    targets: tuple[str, ...] = ("valence", "arousal")


CORPORA: Registry[Corpus] = Registry("corpus", "crossfold.datasets", plural="corpora")
"""Filled by the modules of this folder, one corpus a file, and by plug-ins."""
