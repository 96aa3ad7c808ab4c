"""What each system is called and how it is drawn, in one place, for tables and figures alike.

The hue and the shape of the mark show the family, the line shows the gate: dashed without, solid with DCA; baselines
without attention are dotted. Marks are open without a gate and filled with one. The hues differ under the common kinds
of colour blindness and stand out on white and on near-black.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DCA = "+dca"
UNIMODAL = {"audio": "unimodal_audio", "visual": "unimodal_visual"}
"""The system of a column that names one modality."""
GATED = {"grjca": ("rjca",), "hgrjca": ("grjca", "rjca")}
"""Systems with a gate of their own, and the systems that they are without it, the nearest first."""

LOADED_TITLES: dict[str, str] = {}
"""Titles of the systems of plug-ins that this process has loaded; finished cells record theirs, and go before."""

_CORPUS_NAMES = {"affwild2": "Aff-Wild2", "recola": "RECOLA", "fatigue": "Fatigue"}
_BASES: dict[str, tuple[str, str]] = {
    "unimodal_audio": ("Audio only", "#8c8c8c"),
    "unimodal_visual": ("Visual only", "#8d6fc0"),
    "concat": ("Concatenation", "#c2a400"),
    "lstm": ("LSTM", "#a3a847"),
    "self_attention": ("Self-attention", "#7f9c3b"),
    "leader_follower": ("Leader-follower", "#5f8f8f"),
    "ca": ("CA", "#3b82c4"),
    "tca": ("TCA", "#3aa6c9"),
    "jca": ("JCA", "#1b9e77"),
    "rjca": ("RJCA", "#d5602b"),
    "grjca": ("GRJCA", "#d1559b"),
    "hgrjca": ("HGRJCA", "#b04fc8"),
    "rjcma": ("RJCMA", "#c94f6d"),
}
_ORDER = list(_BASES)
_BASELINES = _ORDER[:6]
_UNATTENDED = _ORDER[:3]
_SPARE = ("#5b8c5a", "#b0654f", "#5f7fbf", "#a0699c", "#8a8a3c", "#4c9a9a")
_SYMBOLS = (
    "circle", "square", "diamond", "cross", "x", "hexagon", "triangle-up", "triangle-right", "triangle-down", "star",
    "pentagon", "hourglass", "bowtie",
)  # fmt: skip
_SPARE_SYMBOL = "triangle-left"
_STROKES = {"solid": "none", "dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 4"}
_OUTLINES = {
    "circle": "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
    "square": "M-4.5-4.5H4.5V4.5H-4.5Z",
    "diamond": "M0-6L6 0L0 6L-6 0Z",
    "cross": "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
    "x": "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0Z",
    "hexagon": "M0-5.6L4.9-2.8V2.8L0 5.6L-4.9 2.8V-2.8Z",
    "triangle-up": "M0-5.5L5.5 4H-5.5Z",
    "triangle-right": "M5.5 0L-4 5.5V-5.5Z",
    "triangle-down": "M0 5.5L-5.5-4H5.5Z",
    "triangle-left": "M-5.5 0L4-5.5V5.5Z",
    "star": "M0-6L1.5-2L5.7-1.9L2.4.8L3.5 4.9L0 2.5L-3.5 4.9L-2.4.8L-5.7-1.9L-1.5-2Z",
    "pentagon": "M0-5.7L5.4-1.8L3.4 4.6H-3.4L-5.4-1.8Z",
    "hourglass": "M-4.5-5H4.5L-4.5 5H4.5Z",
    "bowtie": "M-5-4.5V4.5L5-4.5V4.5Z",
}
MARKS = {name + end: outline for name, outline in _OUTLINES.items() for end in ("", "-open")}
"""The symbols as SVG paths around the origin, as wide as a letter; the page fills those that are not open."""


@dataclass(frozen=True)
class Style:
    """How one system is drawn."""

    colour: str
    dash: str
    """A plotly dash name."""
    symbol: str = "circle"
    """A plotly symbol: its shape shows the family, `-open` that there is no gate."""

    @property
    def stroke(self) -> str:
        """The dash as SVG writes it."""
        return _STROKES.get(self.dash, "10 3 2 3")


def published(corpus: str) -> bool:
    """Whether the papers report numbers of a corpus."""
    return corpus in _CORPUS_NAMES


def corpus_name(corpus: str) -> str:
    """The name of a corpus as papers write it."""
    return _CORPUS_NAMES.get(corpus, corpus)


def system_label(system: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """A system's name as papers write it; one of a plug-in has its title, any other one its registered name.

    titles: of plug-ins, by registered name.
    """
    base, gate, rest = system.partition(DCA)
    label, _ = _BASES.get(base, (titles.get(base, base), ""))
    return f"{label} + DCA{rest}" if gate else label


def system_style(system: str, nth: int = 0) -> Style:
    """Colour and dash of a system, the same in every figure and every report.

    nth: 0 for the first variant of a system; further ones share its colour and get other dashes.
    """
    base, gate, _ = system.partition(DCA)
    # A checksum, because the built-in hash of a string changes from run to run.
    spare = _SPARE[zlib.crc32(base.encode()) % len(_SPARE)]
    _, colour = _BASES.get(base, ("", spare))
    first = "dot" if base in _UNATTENDED else "solid" if gate else "dash"
    shape = _SYMBOLS[_ORDER.index(base)] if base in _BASES else _SPARE_SYMBOL
    symbol = shape if system_kind(system) == "gated" else f"{shape}-open"
    return Style(colour, (first, "dashdot", "longdash", "longdashdot")[min(nth, 3)], symbol)


def system_family(system: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """The systems that one is drawn with: its base with and without the gate, or the baselines without attention."""
    base, _, _ = system.partition(DCA)
    return "Baselines" if base in _BASELINES else system_label(base, titles)


def system_rank(system: str) -> tuple[int, int, str]:
    """Sort key: baselines first, then families in the order of their papers, the gate after its base."""
    base, gate, _ = system.partition(DCA)
    return (_ORDER.index(base) if base in _BASES else len(_ORDER), int(bool(gate)), system)


def system_kind(system: str) -> str:
    """`unimodal`, `fusion`, or `gated` where the system chooses between attended and unattended features."""
    if system.startswith("unimodal_"):
        return "unimodal"
    return "gated" if DCA in system or "grjca" in system else "fusion"


def translucent(colour: str, alpha: float) -> str:
    """A `#rrggbb` colour as `rgba(...)`."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
