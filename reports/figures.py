"""Learning curves, gains over the base, and what every figure is made of.

A chart is plain plotly JSON. It has no background and no legend of its own: the page draws the keys, and sets the
colours of text and grid with its theme.
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

from crossfold.reports.media import Media
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import DCA, GATED, Style, system_family, system_label, system_style, translucent
from crossfold.reports.stats.bootstrap import Gain
from crossfold.reports.stats.formatting import gain_text, number

TRUTH = "#7a7f87"
MUTED = "muted"


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
    """What means the same in every panel."""
    wide: bool = False
    """Whether it takes the width of the page, for it has several panels."""
    media: Media | None = None
    """Faces and sound of the clip that it shows."""
    choice: str = ""
    """What a reader chooses it by, where several like it stand in one place."""
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


def learning_curve(results: Results, setting: Setting, target: str) -> Figure | None:
    """CCC on the selection split by epoch: mean over folds and seeds, band of one standard deviation over seeds.

    One panel a family, with all other systems in grey behind it: ten lines in one chart cannot be told apart.
    """
    styles, systems = variant_styles(results, setting), setting_variants(results, setting)
    found = {variant: by_epoch(results, setting, variant, target) for variant in systems}
    summaries = {variant: summary for variant, summary in found.items() if summary is not None}
    if not summaries:
        return None
    families: dict[str, list[str]] = {}
    for variant in summaries:
        families.setdefault(system_family(systems[variant]), []).append(variant)
    ends = pd.concat(summaries.values())
    low, high = float((ends["mean"] - ends["sd"]).min()), float((ends["mean"] + ends["sd"]).max())
    margin = 0.04 * (high - low) or 0.01
    ranges = {"xaxis": [1, max(2, int(ends["epoch"].max()))], "yaxis": rounded([low - margin, high + margin])}
    panels = []
    for family, members in families.items():
        others = [_muted(summary) for variant, summary in summaries.items() if variant not in members]
        named = {variant: results.variants[variant] for variant in members}
        traces = [trace for v in members for trace in _curve_traces(summaries[v], named[v], styles[v])]
        spec = figure_of([*others, *traces], x="Epoch", y="CCC", height=230)
        for axis, ends_of_axis in ranges.items():
            spec["layout"][axis] |= {"range": ends_of_axis, "nticks": 5}
        words = "; ".join(f"{named[v]} highest {_highest(summaries[v])}" for v in members)
        keys = tuple(Key(named[v], styles[v].colour, styles[v].stroke) for v in members)
        panels.append(Panel(spec, f"Learning curves, {target}, {family}: {words}.", family, keys))
    return Figure(
        id=f"curve-{target}",
        title=f"Learning curves, {target}",
        caption="CCC on the split that picks the epoch; mean over folds and seeds, band one standard deviation over "
        "seeds; grey: the systems of the other panels. A line ends where fewer than half of its runs still train.",
        panels=tuple(panels),
        wide=True,
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
    words = "; ".join(f"{name} {gain_text(gain)}" for name, _, gain in chosen)
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
    figure = figure_of([bars], x=f"Gain in {target} CCC", y="", height=90 + 38 * len(chosen))
    figure["layout"]["bargap"] = 0.45
    figure["layout"]["yaxis"] |= {"ticks": "", "showgrid": False, "ticksuffix": " "}
    figure["layout"]["xaxis"] |= {
        "tickformat": "+.2f",
        "nticks": 7,
        "zeroline": True,
        "zerolinewidth": 1.5,
        "range": rounded([min(ends) - margin, max(ends) + margin]),
    }
    return Figure(
        id=f"gain-{target}",
        title=f"Gain of a gate over its base, {target}",
        caption="Mean over folds and seeds of the difference in CCC; whiskers are the 95% paired interval over videos.",
        panels=(Panel(figure, f"Gain in {target} CCC: {words}."),),
    )


def gate_pairs(results: Results, setting: Setting) -> list[tuple[str, str]]:
    """(base, gated) variants that differ by the gate alone: equal in every parameter that the base has."""
    systems = setting_variants(results, setting)
    params = {row["variant"]: row["params"] for row in results.cells[["variant", "params"]].to_dict("records")}
    parsed = {variant: json.loads(params[variant]) for variant in systems}
    pairs = []
    for gated, system in systems.items():
        bases = (system.removesuffix(DCA),) if system.endswith(DCA) else GATED.get(system, ())
        found = [
            [v for v, name in systems.items() if name == base and parsed[v].items() <= parsed[gated].items()]
            for base in bases
        ]
        pairs += [(base, gated) for base in next(filter(None, found), [])]
    return pairs


def gain_name(results: Results, setting: Setting, base: str, gated: str) -> str:
    """A pair as people read it: DCA names its base already."""
    systems = setting_variants(results, setting)
    name = results.variants[gated]
    return name if systems[gated].endswith(DCA) else f"{name} over {system_label(systems[base])}"


def by_epoch(results: Results, setting: Setting, variant: str, target: str) -> pd.DataFrame | None:
    """Columns epoch (from 1), mean over runs and sd over seeds, as long as half of the runs of a variant still train.

    The spread is the root of the mean over folds of the variance over seeds. None without a finished run.
    """
    cells = results.groups.get((setting.key, variant, target))
    done = cells[cells["status"] == "done"] if cells is not None else None
    if done is None or done.empty:
        return None
    curves = results.curves.stacked([str(cell_id) for cell_id in done["cell_id"]], target)
    training = np.isfinite(curves).sum(axis=0)
    kept = training * 2 >= len(curves)
    folds = done["fold"].to_numpy()
    variances = np.stack([_variance(curves[folds == fold]) for fold in np.unique(folds)])
    known = np.isfinite(variances).sum(axis=0)
    spread = np.sqrt(np.nansum(variances, axis=0) / np.maximum(known, 1))
    mean = np.nansum(curves, axis=0) / np.maximum(training, 1)
    table = pd.DataFrame({"epoch": 1 + np.arange(curves.shape[1]), "mean": mean, "sd": spread})
    trained: pd.DataFrame = table[kept].reset_index(drop=True)
    return trained


def _variance(curves: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Variance (n - 1) of each column over its finite values; NaN where it has fewer than two."""
    count = np.isfinite(curves).sum(axis=0)
    mean = np.nansum(curves, axis=0) / np.maximum(count, 1)
    squares = np.nansum((curves - mean) ** 2, axis=0)
    return np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)


def _curve_traces(summary: pd.DataFrame, name: str, style: Style) -> list[go.Scatter]:
    """The band, where there is a spread, and the line."""
    x, mean, sd = (as_floats(summary[column]) for column in ("epoch", "mean", "sd"))
    traces = []
    if any(sd):
        low, high = ([m + side * s for m, s in zip(mean, sd, strict=True)] for side in (-1, 1))
        band = {"fill": "toself", "fillcolor": translucent(style.colour, 0.13), "line": {"width": 0}}
        traces.append(
            go.Scatter(x=[*x, *x[::-1]], y=rounded([*high, *low[::-1]]), mode="lines", hoverinfo="skip", **band)
        )
    return [*traces, line_of(x, rounded(mean), name, style)]


def _muted(summary: pd.DataFrame) -> go.Scatter:
    """A line that only says where the others are; the page gives it the colour of rules."""
    x, y = as_floats(summary["epoch"]), rounded(summary["mean"])
    return go.Scatter(x=x, y=y, mode="lines", hoverinfo="skip", meta=MUTED, line={"width": 1}, connectgaps=False)


def _highest(summary: pd.DataFrame) -> str:
    at = int(summary["mean"].to_numpy().argmax())
    return f"{number(float(summary['mean'].iloc[at]))} at epoch {int(summary['epoch'].iloc[at])}"


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


def figure_of(traces: Sequence[Any], *, x: str, y: str, height: int = 360) -> dict[str, Any]:
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


def as_floats(values: "Sequence[float] | pd.Series[Any] | npt.NDArray[Any]") -> list[float]:
    """The values as plain floats, which plotly writes the same everywhere."""
    return [float(value) for value in values]


def rounded(values: "Sequence[float] | pd.Series[Any] | npt.NDArray[Any]") -> list[float | None]:
    """Four decimals; what is not a number becomes a gap."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
