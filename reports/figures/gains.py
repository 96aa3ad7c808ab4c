"""What a gate adds to its base, as bars; and gains with their intervals as dots."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Panel
from crossfold.reports.figures.charts import figure_of, label_rows, plain, rounded, row_dots, whiskers
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import DCA, system_style, translucent
from crossfold.reports.stats.formatting import gain_text
from crossfold.reports.stats.intervals import Gain

_GAIN_AXIS = {"tickformat": "+.2f", "nticks": 7, "zeroline": True, "zerolinewidth": 1.5}


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
    bars = go.Bar(
        x=rounded(gain.mean for *_, gain in chosen),
        y=[plain(name) for name, *_ in chosen],
        orientation="h",
        marker={"color": [translucent(system_style(system).colour, 0.75) for _, system, _ in chosen]},
        error_x=whiskers([gain.mean for *_, gain in chosen], [gain.interval for *_, gain in chosen]),
        hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
    )
    figure = figure_of([bars], x=f"Gain in {target} CCC", height=90 + 38 * len(chosen))
    figure["layout"]["bargap"] = 0.45
    figure["layout"]["yaxis"] |= {"ticks": "", "showgrid": False, "ticksuffix": " "}
    figure["layout"]["xaxis"] |= _GAIN_AXIS | {"range": rounded([min(ends) - margin, max(ends) + margin])}
    return Figure(
        id=f"gain-{target}",
        title=f"Gain of a gate over its base, {target}",
        caption="Mean over folds and seeds of the difference in CCC; whiskers are the 95% paired interval over videos.",
        panels=(Panel(figure, f"Gain in {target} CCC: {words}."),),
    )


def gain_dots(rows: Sequence[tuple[str, str, Gain]], axis: str) -> dict[str, Any]:
    """A chart with a dot and its paired interval for each row (name, colour, gain), on both sides of zero."""
    names, colours, gains = zip(*rows, strict=True)
    means = [gain.mean for gain in gains]
    dots = row_dots(means, names, colours, ": %{x:+.3f}", error_x=whiskers(means, [gain.interval for gain in gains]))
    spec = figure_of([dots], x=axis, height=90 + 26 * len(rows))
    label_rows(spec, names)
    spec["layout"]["xaxis"] |= _GAIN_AXIS
    return spec


def gain_name(results: Results, setting: Setting, base: str, gated: str) -> str:
    """The name of a pair; the name of a system with DCA contains its base already."""
    systems = setting_variants(results, setting)
    name = results.variants[gated]
    return name if systems[gated].endswith(DCA) else f"{name} over {results.name_of(systems[base])}"
