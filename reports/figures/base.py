"""What every figure is made of.

A chart is plain plotly JSON. It has no background and no legend of its own: the page draws the keys, and sets the
colours of text and grid with its theme.
"""

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from crossfold.reports.figures.clip_media import Media
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style, system_style

NEUTRAL = "#7a7f87"
"""A grey that stands out on a light and on a dark page."""
TRUTH, MUTED = "truth", "muted"
"""`meta` of a line to which the page gives the colour of text, or a grey that recedes."""


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    name: str
    colour: str
    """Empty for the colour of text."""
    dashes: str = "none"
    """As SVG writes them; `fill` for an area."""


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


def plain(name: str) -> str:
    """A name as plotly text, which would otherwise read a few HTML tags."""
    return html.escape(name, quote=False)


def variant_styles(results: Results, setting: Setting) -> dict[str, Style]:
    """How each variant of a setting is drawn."""
    seen: Counter[str] = Counter()
    styles = {}
    for variant, system in setting_variants(results, setting).items():
        styles[variant] = system_style(system, seen[system])
        seen[system] += 1
    return styles


def line_of(x: list[float], y: list[float | None], name: str, style: Style, width: float = 1.8) -> go.Scatter:
    """One line in the colours of its system."""
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=plain(name),
        line={"color": style.colour, "dash": style.dash, "width": width},
        connectgaps=False,
        hovertemplate="%{y:.3f}<extra>" + plain(name) + "</extra>",
    )


def row_dots(x: Iterable[Any], names: Sequence[str], colours: Sequence[str], hover: str, **more: Any) -> go.Scatter:
    """One dot a row, from row 0 on. hover: what the pointer shows after the name; more: of `go.Scatter`."""
    return go.Scatter(
        x=rounded(x),
        # Rows by index, because two variants may share a name.
        y=list(range(len(names))),
        mode="markers",
        marker={"color": list(colours), "size": 10} | more.pop("marker", {}),
        text=[plain(name) for name in names],
        hovertemplate="%{text}" + hover + "<extra></extra>",
        **more,
    )


def muted_line(x: list[float], y: list[float | None]) -> go.Scatter:
    """A line that only shows where the others are."""
    return go.Scatter(x=x, y=y, mode="lines", hoverinfo="skip", meta=MUTED, line={"width": 1}, connectgaps=False)


def heat_of(values: npt.NDArray[Any], texts: list[list[str]] | None, hover: list[list[str]], **more: Any) -> go.Heatmap:
    """A matrix of shares from 0 to 1 with a number in each square, row 0 at the top."""
    return go.Heatmap(
        z=[rounded(row) for row in values],
        x=list(range(values.shape[1])),
        y=list(range(values.shape[0])),
        zmin=0,
        zmax=1,
        colorscale=[[0, "#b5651d"], [0.5, "#e9e9e6"], [1, "#2f6fb3"]],
        text=texts,
        texttemplate="%{text}" if texts else None,
        customdata=hover,
        xgap=1,
        ygap=1,
        **more,
    )


def figure_of(traces: Sequence[Any], *, x: str, y: str = "", height: int = 360) -> dict[str, Any]:
    """Plain plotly JSON of the traces, without background, legend or theme."""
    axis = {"zeroline": False, "ticks": "outside", "ticklen": 4, "automargin": True}
    layout = {
        "template": "none",
        "height": height,
        "margin": {"l": 44, "r": 10, "t": 10, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
    }
    figure: dict[str, Any] = go.Figure(data=list(traces), layout=layout).to_plotly_json()
    figure["layout"].pop("template", None)
    return {"data": [dict(trace) for trace in figure["data"]], "layout": dict(figure["layout"])}


def label_rows(spec: dict[str, Any], names: Sequence[str], *, first: int = 0) -> None:
    """Writes names at the rows `first`, `first + 1`, ... of the y axis, from the top."""
    rows = list(range(first, first + len(names)))
    spec["layout"]["yaxis"] |= {
        "tickvals": rows, "ticktext": [plain(name) for name in names], "ticks": "", "ticksuffix": " ",
        "range": [rows[-1] + 0.6, first - 0.6],
    }  # fmt: skip


def as_floats(values: Iterable[Any]) -> list[float]:
    """The values as plain floats, which plotly writes the same everywhere."""
    return [float(value) for value in values]


def rounded(values: Iterable[Any]) -> list[float | None]:
    """Four decimals; what is not a number becomes a gap."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
