"""The three kinds of figures: learning curves, gains over the base, and one clip against its truth.

A figure is plain plotly JSON. It has no background and no legend of its own: the page draws one legend for all
figures, and sets the colours of text and grid with its theme.
"""

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.cells import Results, Setting
from crossfold.reports.leaderboard import setting_variants
from crossfold.reports.palette import DCA, Style, system_style, translucent
from crossfold.reports.statistics import Gain

MAX_POINTS = 400
"""Points of one line; more cannot be told apart on a page."""
TRUTH = "#7a7f87"


@dataclass(frozen=True)
class Figure:
    """One chart with the words around it."""

    id: str
    title: str
    caption: str
    spec: Mapping[str, Any]
    """Plotly's data and layout."""
    wide: bool = False
    spans: tuple[str, ...] = ()
    """What is shaded, in words, in the order of the numbers in the chart."""
    key: tuple[tuple[str, str], ...] = ()
    """Name and colour of each line, where the legend of the page does not say it; no colour means that of text."""


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


def learning_curve(results: Results, setting: Setting, target: str) -> Figure | None:
    """CCC on the selection split by epoch: mean over folds and seeds, band of one standard deviation over seeds."""
    traces: list[go.Scatter] = []
    for variant, style in variant_styles(results, setting).items():
        curves = _curves(results, setting, variant, target)
        if curves is None:
            continue
        name = results.variants[variant]
        summary = _by_epoch(curves)
        x, mean, sd = (_listed(summary[column]) for column in ("epoch", "mean", "sd"))
        low, high = ([m + side * s for m, s in zip(mean, sd, strict=True)] for side in (-1, 1))
        if any(sd):
            band = {"fill": "toself", "fillcolor": translucent(style.colour, 0.13), "line": {"width": 0}}
            traces.append(
                go.Scatter(
                    x=[*x, *x[::-1]], y=rounded([*high, *low[::-1]]), mode="lines", hoverinfo="skip", meta=name, **band
                )
            )
        traces.append(line_of(x, rounded(mean), name, style))
    if not traces:
        return None
    figure = figure_of(traces, x="Epoch", y=f"{target.capitalize()} CCC")
    return Figure(
        id=f"curve-{target}",
        title=f"Learning curves, {target}",
        caption="CCC on the split that picks the epoch; mean over folds and seeds, band one standard deviation over "
        "seeds. A line ends where fewer than half of its runs still train.",
        spec=figure,
    )


def gain_bars(gains: Sequence[tuple[str, str, str, Gain]], target: str) -> Figure | None:
    """Gain of the gate over its base as bars with paired intervals.

    gains: variant name, system, target, gain of each comparison; those of other targets are left out.
    """
    chosen = [(name, system, gain) for name, system, of, gain in gains if of == target]
    if not chosen:
        return None
    # One range for all targets, so that their charts can be compared.
    ends = [0.0, *(end for *_, gain in gains for end in (gain.mean, gain.low, gain.high) if end is not None)]
    margin = 0.08 * (max(ends) - min(ends))
    # Plotly draws the first bar at the bottom.
    chosen.reverse()
    means = [gain.mean for *_, gain in chosen]
    bars = go.Bar(
        x=rounded(means),
        y=[plain(name) for name, *_ in chosen],
        orientation="h",
        marker={"color": [translucent(system_style(system).colour, 0.75) for _, system, _ in chosen]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": rounded([(g.high if g.high is not None else g.mean) - g.mean for *_, g in chosen]),
            "arrayminus": rounded([g.mean - (g.low if g.low is not None else g.mean) for *_, g in chosen]),
            "thickness": 1.4,
            "width": 4,
            "color": TRUTH,
        },
        hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
    )
    figure = figure_of([bars], x=f"Gain in {target} CCC", y="", height=120 + 46 * len(chosen))
    figure["layout"]["yaxis"] |= {"ticks": "", "showgrid": False}
    figure["layout"]["xaxis"] |= {
        "zeroline": True,
        "zerolinewidth": 1.5,
        "range": rounded([min(ends) - margin, max(ends) + margin]),
    }
    return Figure(
        id=f"gain-{target}",
        title=f"Gain of dynamic cross-attention over its base, {target}",
        caption="Mean over folds and seeds of the difference in CCC; whiskers are the 95% paired interval over videos.",
        spec=figure,
    )


def gate_pairs(results: Results, setting: Setting) -> list[tuple[str, str]]:
    """(base, gated) variants that differ by the gate alone: equal in every parameter that the base has."""
    systems = setting_variants(results, setting)
    params = {row["variant"]: row["params"] for row in results.cells[["variant", "params"]].to_dict("records")}
    parsed = {variant: json.loads(params[variant]) for variant in systems}
    return [
        (base, gated)
        for gated, system in systems.items()
        if system.endswith(DCA)
        for base, name in systems.items()
        if name == system.removesuffix(DCA) and parsed[base].items() <= parsed[gated].items()
    ]


def _curves(results: Results, setting: Setting, variant: str, target: str) -> pd.DataFrame | None:
    """Columns fold, seed, epoch (counted from 1), ccc of the finished cells of one variant."""
    cells = results.cells
    chosen = (cells["setting"] == setting.key) & (cells["variant"] == variant) & (cells["target"] == target)
    frames = [
        pd.DataFrame({"epoch": curve["epoch"] + 1, "ccc": curve[f"ccc_{target}"], "fold": fold, "seed": seed})
        for cell_id, fold, seed in cells.loc[chosen & (cells["status"] == "done"), ["cell_id", "fold", "seed"]].values
        for curve in [results.records[cell_id].curve]
    ]
    return pd.concat(frames, ignore_index=True) if frames else None


def _by_epoch(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean over runs and spread over seeds per epoch, as long as half of the runs still train."""
    runs = curves.groupby(["fold", "seed"]).ngroups
    counts = curves.groupby("epoch")["ccc"].count().to_numpy()
    mean = curves.groupby("epoch")["ccc"].mean()
    variance = curves.groupby(["epoch", "fold"])["ccc"].var(ddof=1).groupby("epoch").mean()
    table = pd.DataFrame({"epoch": mean.index, "mean": mean.to_numpy(), "sd": variance.fillna(0).to_numpy() ** 0.5})
    return table[counts * 2 >= runs].reset_index(drop=True)


def line_of(x: list[float], y: list[float | None], name: str, style: Style, width: float = 1.8) -> go.Scatter:
    """One line in the colours of its system; `meta` lets the page find it again."""
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=plain(name),
        meta=name,
        line={"color": style.colour, "dash": style.dash, "width": width},
        connectgaps=False,
        hovertemplate="%{y:.3f}<extra>" + plain(name) + "</extra>",
    )


def figure_of(traces: Sequence[Any], *, x: str, y: str, height: int = 360) -> dict[str, Any]:
    """Plain plotly JSON of the traces, without background, legend or theme."""
    axis = {"zeroline": False, "ticks": "outside", "ticklen": 4, "automargin": True}
    layout = {
        "template": "none",
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
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


def _listed(values: "Sequence[float] | pd.Series[Any] | npt.NDArray[Any]") -> list[float]:
    return [float(value) for value in values]


def rounded(values: "Sequence[float] | pd.Series[Any] | npt.NDArray[Any]") -> list[float | None]:
    """Four decimals; what is not a number becomes a gap."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
