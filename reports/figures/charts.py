"""Traces and axes as plain plotly JSON.

A chart has no background and no legend of its own: the page draws the keys, and sets the colours of text and grid with
its theme.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from crossfold.reports.results.systems import Style
from crossfold.reports.stats.intervals import Interval

NEUTRAL = "#7a7f87"
"""A grey that is visible on a light and on a dark page."""
TRUTH, MUTED = "truth", "muted"
"""`meta` of a line to which the page gives the colour of text, or a grey that recedes."""


def plain(name: str) -> str:
    """A name as plotly text, which would otherwise read a few HTML tags."""
    return html.escape(name, quote=False)


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
    """One mark per row, from row 0 on. hover: what the pointer shows after the name; more: of `go.Scatter`."""
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


def whiskers(means: Iterable[float], intervals: Sequence[Interval | None]) -> dict[str, Any]:
    """Intervals as error bars; of length zero where there is none."""
    known = [(mean, interval or Interval(mean, mean)) for mean, interval in zip(means, intervals, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": rounded(interval.high - mean for mean, interval in known),
        "arrayminus": rounded(mean - interval.low for mean, interval in known),
        "thickness": 1.4,
        "width": 4,
        "color": NEUTRAL,
    }


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
    figure["layout"].pop("template", None)  # the page sets its own theme
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
    # All digits of thousands of points would make a page large.
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
