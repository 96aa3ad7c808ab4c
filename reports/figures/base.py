"""A figure: charts of one kind, with the words around them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfold.reports.figures.clip_media import Media
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style, system_style


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    name: str
    colour: str
    """Empty for the colour of text."""
    dashes: str = "none"
    """As SVG writes them; `fill` for an area."""
    symbol: str = ""
    """The mark of a system instead of a line, one of `systems.MARKS`."""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure."""

    spec: Mapping[str, Any]
    """Plotly's data and layout."""
    alt: str
    """What the chart shows, in words and numbers, for those who cannot see it."""
    title: str = ""
    key: tuple[Key, ...] = ()
    breaks: bool = False
    """Whether it begins a new row."""


@dataclass(frozen=True)
class Figure:
    """One or several charts on the same axes, with the words around them."""

    id: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    key: tuple[Key, ...] = ()
    """The keys that hold for every panel."""
    wide: bool = False
    """Whether it takes the width of the page, for it has several panels."""
    media: Media | None = None
    """Faces and sound of the clip that it shows."""
    choice: str = ""
    """The entry of the menu that shows it, where the page shows one of several figures."""
    note: str = ""
    """Where its numbers come from: store, recipe, protocol, selection, seeds, versions."""


def variant_styles(results: Results, setting: Setting) -> dict[str, Style]:
    """How each variant of a setting is drawn."""
    seen: Counter[str] = Counter()
    styles = {}
    for variant, system in setting_variants(results, setting).items():
        styles[variant] = system_style(system, seen[system])
        seen[system] += 1
    return styles
