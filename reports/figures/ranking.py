"""Which systems are distinguishable, how often one scores above another, and what the score costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Key, Panel, variant_styles
from crossfold.reports.figures.charts import NEUTRAL, figure_of, heat_of, label_rows, plain, rounded, row_dots
from crossfold.reports.results.comparable import Standing
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style
from crossfold.reports.stats.formatting import listing, number
from crossfold.reports.stats.hypothesis_tests import ALPHA

MOST_NUMBERS = 14
"""A matrix of more systems has no space for a number in each square."""
LEAST_SPAN = 0.05
"""The least CCC that an axis of scores spans."""
LEAST_FACTOR = 2.0
"""The least factor that an axis of costs spans, for the same reason."""
COSTS = (
    ("parameters", "Parameters"),
    ("flops", "Operations of one window"),
    ("train_seconds", "Training of one cell, s (median)"),
    ("memory_device", "GPU memory of one cell, MiB"),
    ("memory_process", "Memory of one cell, MiB"),
)


def standing_chart(results: Results, setting: Setting, standing: Standing | None) -> Figure | None:
    """The systems by mean CCC, one a row so that names never overlap; a line with dots joins each group."""
    if standing is None:
        return None
    styles = variant_styles(results, setting)
    order = list(standing.means)
    names = [results.variants[variant] for variant in order]
    means = list(standing.means.values())
    marker = {"symbol": [styles[variant].symbol for variant in order]}
    dots = row_dots(means, names, [styles[v].colour for v in order], ": mean CCC %{x:.3f}", marker=marker)
    # Scores that hardly differ stay close together: a picture must not enlarge noise.
    span = max(max(means) - min(means), LEAST_SPAN)
    left = (max(means) + min(means) - span) / 2
    lines = [
        go.Scatter(
            x=rounded([left + span + span * (0.12 + 0.06 * index)] * len(group)),  # groups overlap, so one a column
            y=[order.index(variant) for variant in group],
            mode="lines+markers",
            line={"color": NEUTRAL, "width": 2},
            marker={"color": NEUTRAL, "size": 6},
            hoverinfo="skip",
        )
        for index, group in enumerate(standing.groups)
    ]
    spec = figure_of([*lines, dots], x="Mean CCC", height=90 + 24 * len(order))
    label_rows(spec, names)
    right = left + span + span * (0.18 + 0.06 * len(standing.groups))
    spec["layout"]["xaxis"] |= {"range": rounded([left - 0.05 * span, right])}
    words = "; ".join(f"{name} {number(mean)}" for name, mean in zip(names, means, strict=True))
    groups = "; ".join(listing([results.variants[v] for v in group]) for group in standing.groups) or "none"
    return Figure(
        id="ranks",
        title="Which systems are distinguishable",
        caption="Mean CCC over targets, folds and seeds of the complete systems. Dots on one line at the right are a "
        f"group: none of its systems beats another (paired jackknife over videos, p below {ALPHA}, corrected for all "
        "pairs of systems). Two systems without a line in common are distinguishable.",
        panels=(Panel(spec, f"Mean CCC: {words}. Not distinguishable: {groups}."),),
    )


def win_matrix(results: Results, scores: pd.DataFrame) -> Figure | None:
    """The share of blocks in which the system of the row scores above that of the column; a tie counts half."""
    if scores.shape[1] < 2:
        return None
    means = scores.mean()
    order = sorted(map(str, scores), key=lambda variant: -float(means[variant]))
    values = scores[order].to_numpy()
    rows, columns = values[:, :, None], values[:, None, :]
    wins = (rows > columns).mean(axis=0) + 0.5 * (rows == columns).mean(axis=0)
    share = np.where(np.eye(len(order), dtype=bool), np.nan, wins)
    names = [results.variants[variant] for variant in order]
    gains = values.mean(axis=0)[:, None] - values.mean(axis=0)[None, :]
    few = len(order) <= MOST_NUMBERS
    heat = heat_of(
        share,
        [["" if np.isnan(value) else f"{100 * value:.0f}" for value in row] for row in share] if few else None,
        [
            [f"{plain(a)} over {plain(b)}: {gain:+.3f} CCC" for b, gain in zip(names, row, strict=True)]
            for a, row in zip(names, gains, strict=True)
        ],
        hovertemplate="%{customdata}, above in %{z:.0%}<extra></extra>",
        colorbar={"thickness": 10, "tickformat": ".0%", "outlinewidth": 0, "len": 0.9},
    )
    spec = figure_of([heat], x="", height=150 + 26 * len(order))
    label_rows(spec, names)
    spec["layout"]["yaxis"]["showgrid"] = False
    labels = {name: spec["layout"]["yaxis"][name] for name in ("tickvals", "ticktext", "ticks", "showgrid")}
    spec["layout"]["xaxis"] |= labels | {"tickangle": -60, "showticklabels": few}
    best = int(np.nanargmax(np.nanmean(share, axis=1)))
    words = "; ".join(f"{name} {number(float(np.nanmean(row)))}" for name, row in zip(names, share, strict=True))
    most = number(float(np.nanmean(share[best])))
    return Figure(
        id="wins",
        title="How often one system scores above another",
        caption=f"Percent of {len(values)} blocks (target x fold x seed) in which the system of the row has a higher "
        "CCC than that of the column; a tie counts half. Blocks of one fold share their videos, so this describes the "
        "runs and decides nothing. The pointer shows the mean difference."
        + ("" if few else " Columns are in the order of the rows."),
        panels=(Panel(spec, f"{names[best]} is above most often: {most} of its comparisons. {words}"),),
    )


def pareto_chart(results: Results, setting: Setting, scores: pd.DataFrame) -> Figure | None:
    """Mean CCC against what it costs; the line joins systems that none beats at less cost."""
    if scores.shape[1] < 2:
        return None
    cells = results.rows(setting)
    cells = cells[cells["variant"].isin(scores.columns)]
    panels = []
    for column, title in COSTS:
        costs = pd.to_numeric(cells[column], errors="coerce").groupby(cells["variant"]).median()
        known = [variant for variant in map(str, scores) if costs.get(variant, np.nan) > 0]
        # Costs that are all equal, such as parameters of one size, say nothing.
        if len({round(float(costs[variant]), 6) for variant in known}) > 1:
            points = {variant: (float(costs[variant]), float(scores[variant].mean())) for variant in known}
            panels.append(_pareto(points, title, results.variants, variant_styles(results, setting)))
    if not panels:
        return None
    styles = variant_styles(results, setting)
    return Figure(
        id="pareto",
        title="What the score costs",
        caption="Mean CCC over targets, folds and seeds against cost; the line joins the systems that no cheaper one "
        "reaches. Filled: with a gate; open: without. Times depend on the machine and on what else ran there.",
        panels=tuple(panels),
        key=tuple(Key(results.variants[v], styles[v].colour, symbol=styles[v].symbol) for v in map(str, scores)),
        wide=len(panels) > 1,
    )


def _pareto(
    points: Mapping[str, tuple[float, float]], title: str, names: Mapping[str, str], styles: Mapping[str, Style]
) -> Panel:
    """points: variant -> cost and mean CCC."""
    front: list[str] = []
    for variant in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not front or points[variant][1] > points[front[-1]][1]:
            front.append(variant)

    def coordinates(chosen: Sequence[str]) -> dict[str, Any]:
        return {"x": [round(points[v][0], 3) for v in chosen], "y": rounded(points[v][1] for v in chosen)}

    known = list(points)
    colours, symbols = [styles[variant].colour for variant in known], [styles[variant].symbol for variant in known]
    dots = go.Scatter(
        **coordinates(known),
        mode="markers",
        marker={"color": colours, "symbol": symbols, "size": 10, "line": {"width": 2, "color": colours}},
        text=[plain(names[variant]) for variant in known],
        hovertemplate="%{text}: CCC %{y:.3f}, %{x:,}<extra></extra>",
    )
    stairs = {"shape": "hv", "width": 1.2, "color": NEUTRAL}
    line = go.Scatter(**coordinates(front), mode="lines", line=stairs, hoverinfo="skip")
    spec = figure_of([line, dots], x=title, y="Mean CCC", height=330)
    low, high = min(cost for cost, _ in points.values()), max(cost for cost, _ in points.values())
    more = max(1.0, LEAST_FACTOR / (high / low)) ** 0.5
    low, high = low / more, high * more
    digits = (1, 2, 5) if high / low > 5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)  # two at least on any axis
    ticks = [digit * 10.0**power for power in range(-2, 11) for digit in digits]
    ticks = [value for value in ticks if low / 1.5 <= value <= high * 1.5]
    spec["layout"]["xaxis"] |= {
        "type": "log", "tickvals": ticks, "ticktext": [_short(value) for value in ticks],
        "range": rounded([np.log10(low) - 0.08, np.log10(high) + 0.08]),
    }  # fmt: skip
    worst, best = min(score for _, score in points.values()), max(score for _, score in points.values())
    margin = max(0.08 * (best - worst), (LEAST_SPAN - (best - worst)) / 2)
    spec["layout"]["yaxis"] |= {"range": rounded([worst - margin, best + margin])}
    # Names at the ends of the front only, where they are apart: those of the points between would overlap.
    far = points[front[-1]][1] - points[front[0]][1] > 0.1 * (best - worst + 2 * margin)
    middle = (low * high) ** 0.5
    spec["layout"]["annotations"] = [
        {
            "x": float(np.log10(points[variant][0])), "y": round(points[variant][1], 4), "text": plain(names[variant]),
            "showarrow": False, "xanchor": "left" if points[variant][0] < middle else "right", "yanchor": "bottom",
            "yshift": 6,
        }
        for variant in dict.fromkeys([front[0], front[-1]] if far else [front[-1]])
    ]  # fmt: skip
    words = "; ".join(f"{names[v]} {number(points[v][1])} at {points[v][0]:,.0f}" for v in front)
    return Panel(spec, f"Mean CCC against {title.lower()}. Best at each cost: {words}.", title)


def _short(value: float) -> str:
    """A round number as an axis has space for: 20k, 5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
