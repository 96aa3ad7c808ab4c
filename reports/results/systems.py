"""What each system is called and how it is drawn, in one place, for tables and figures alike.

The hue shows the family, the line shows the gate: dashed without, solid with DCA; baselines without attention are
dotted. The hues differ under the common kinds of colour blindness and stand out on white and on near-black.
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
_STROKES = {"solid": "none", "dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 4"}


@dataclass(frozen=True)
class Style:
    """How one system is drawn."""

    colour: str
    dash: str
    """A plotly dash name."""

    @property
    def stroke(self) -> str:
        """The dash as SVG writes it."""
        return _STROKES.get(self.dash, "10 3 2 3")


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
    return Style(colour, (first, "dashdot", "longdash", "longdashdot")[min(nth, 3)])


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
