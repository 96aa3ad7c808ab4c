"""Which systems can be told apart, who beats whom, and what the score costs. Rows of one budget only."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Key, Panel, figure_of, plain, rounded, variant_styles
from crossfold.reports.results.comparable import Budget, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import system_family, system_style
from crossfold.reports.stats.formatting import listing, number
from crossfold.reports.stats.hypothesis_tests import ALPHA, Ranks

GROUP_LINE = "#7a7f87"
MOST_NUMBERS = 14
"""A matrix of more systems has no room for a number in each square."""
COSTS = (
    ("parameters", "Parameters"),
    ("flops", "Operations of one window"),
    ("train_seconds", "Training of one cell, s (median)"),
    ("memory_device", "GPU memory of one cell, MiB"),
    ("memory_process", "Memory of one cell, MiB"),
)


def rank_chart(results: Results, setting: Setting, ranks: Ranks | None) -> Figure | None:
    """The critical-difference diagram, one row a system so that names never meet; bars join what is not told apart."""
    if ranks is None:
        return None
    styles = variant_styles(results, setting)
    order = [str(name) for name in ranks.mean.index]
    names = [results.variants[variant] for variant in order]
    # Rows by index, because two variants may share a name.
    rows = list(range(len(order)))
    dots = go.Scatter(
        x=rounded(ranks.mean),
        y=rows,
        mode="markers",
        marker={"color": [styles[variant].colour for variant in order], "size": 10},
        text=[plain(name) for name in names],
        hovertemplate="%{text}: mean rank %{x:.2f}<extra></extra>",
    )
    right = float(ranks.mean.max()) + 0.35
    bars = [
        go.Scatter(
            x=[right + 0.22 * (index % 4)] * 2,
            y=[order.index(group[0]) - 0.25, order.index(group[-1]) + 0.25],
            mode="lines",
            line={"color": GROUP_LINE, "width": 5},
            hoverinfo="skip",
        )
        for index, group in enumerate(ranks.groups)
    ]
    spec = figure_of([*bars, dots], x="Mean rank (1 is best)", y="", height=90 + 24 * len(order))
    spec["layout"]["yaxis"] |= {
        "tickvals": rows, "ticktext": [plain(name) for name in names], "ticks": "", "range": [len(order) - 0.4, -0.6],
        "ticksuffix": " ",
    }  # fmt: skip
    spec["layout"]["xaxis"] |= {"range": rounded([float(ranks.mean.min()) - 0.4, right + 1.0])}
    words = "; ".join(f"{results.variants[v]} {rank:.2f}" for v, rank in zip(order, ranks.mean, strict=True))
    groups = "; ".join(listing([results.variants[v] for v in group]) for group in ranks.groups)
    return Figure(
        id="ranks",
        title="Which systems can be told apart",
        caption=f"Mean rank over {ranks.blocks} blocks (target x fold x seed); complete systems of one budget. Systems "
        f"joined by a bar at the right are not distinguishable: their ranks are closer than Nemenyi's critical "
        f"difference of {ranks.critical_difference:.2f} at {ALPHA}. Friedman's test that all are alike: "
        f"p {'< 0.001' if ranks.p < 0.001 else f'= {ranks.p:.3f}'}. Blocks of one fold share their data, so the test "
        "knows other seeds better than other videos.",
        panels=(
            Panel(spec, f"Mean ranks: {words}. Not distinguishable: {groups or 'none'}. Lowest {min(ranks.mean):.3f}."),
        ),
    )


def win_matrix(results: Results, budget: Budget) -> Figure | None:
    """The share of blocks that the system of the row wins against that of the column; a tie counts half."""
    scores = budget.scores
    if scores.shape[1] < 2:
        return None
    means = scores.mean()
    order = sorted(budget.variants, key=lambda variant: -float(means[variant]))
    values = scores[order].to_numpy()
    wins = (values[:, :, None] > values[:, None, :]).mean(axis=0) + 0.5 * (
        values[:, :, None] == values[:, None, :]
    ).mean(axis=0)
    share = np.where(np.eye(len(order), dtype=bool), np.nan, wins)
    names = [results.variants[variant] for variant in order]
    gains = values.mean(axis=0)[:, None] - values.mean(axis=0)[None, :]
    hover = [
        [f"{plain(a)} over {plain(b)}: {gains[i, j]:+.3f} CCC" for j, b in enumerate(names)]
        for i, a in enumerate(names)
    ]
    texts = [["" if np.isnan(value) else f"{100 * value:.0f}" for value in row] for row in share]
    at = list(range(len(order)))
    heat = go.Heatmap(
        z=[rounded(row) for row in share],
        x=at,
        y=at,
        zmin=0,
        zmax=1,
        colorscale=[[0, "#b5651d"], [0.5, "#e9e9e6"], [1, "#2f6fb3"]],
        customdata=hover,
        text=texts if len(order) <= MOST_NUMBERS else None,
        texttemplate="%{text}" if len(order) <= MOST_NUMBERS else None,
        hovertemplate="%{customdata}, wins %{z:.0%}<extra></extra>",
        xgap=1,
        ygap=1,
        colorbar={"thickness": 10, "tickformat": ".0%", "outlinewidth": 0, "len": 0.9},
    )
    spec = figure_of([heat], x="", y="", height=150 + 26 * len(order))
    ticks = {"tickvals": at, "ticktext": [plain(name) for name in names], "ticks": "", "showgrid": False}
    few = len(order) <= MOST_NUMBERS
    spec["layout"]["xaxis"] |= ticks | {"tickangle": -60, "showticklabels": few}
    spec["layout"]["yaxis"] |= ticks | {"autorange": "reversed", "ticksuffix": " "}
    best = int(np.nanargmax(np.nanmean(share, axis=1)))
    return Figure(
        id="wins",
        title="Who beats whom",
        caption=f"Percent of {len(values)} blocks (target x fold x seed) in which the system of the row has a higher "
        "CCC than that of the column; a tie counts half. The pointer shows the mean difference."
        + ("" if few else " Columns stand in the order of the rows."),
        panels=(
            Panel(
                spec,
                f"{names[best]} wins most: {number(float(np.nanmean(share[best])))} of its comparisons. "
                + "; ".join(f"{name} {number(float(np.nanmean(row)))}" for name, row in zip(names, share, strict=True)),
            ),
        ),
    )


def pareto_chart(results: Results, setting: Setting, budget: Budget) -> Figure | None:
    """Mean CCC against what it costs; the line joins systems that none beats at less cost."""
    cells = results.cells[(results.cells["setting"] == setting.key) & results.cells["variant"].isin(budget.variants)]
    if len(budget.variants) < 2:
        return None
    systems = setting_variants(results, setting)
    means = budget.scores.mean()
    panels = []
    for column, title in COSTS:
        costs = pd.to_numeric(cells[column], errors="coerce").groupby(cells["variant"]).median()
        known = [variant for variant in budget.variants if costs.get(variant, np.nan) > 0]
        if len({round(float(costs[variant]), 6) for variant in known}) < 2:
            continue
        panels.append(_pareto(known, means, costs, title, results.variants, systems))
    if not panels:
        return None
    families = dict.fromkeys(system_family(systems[variant]) for variant in budget.variants)
    colours = {family: _family_colour(family, systems) for family in families}
    return Figure(
        id="pareto",
        title="What the score costs",
        caption="Mean CCC over targets, folds and seeds against cost; the line joins the systems that no cheaper one "
        "reaches. Filled: with a gate; open: without. Times depend on the machine and on what else ran there.",
        panels=tuple(panels),
        key=tuple(Key(family, colour, "fill") for family, colour in colours.items()),
        wide=len(panels) > 1,
    )


def _family_colour(family: str, systems: Mapping[str, str]) -> str:
    first = next(system for system in systems.values() if system_family(system) == family)
    return system_style(first).colour


_ROUND = [digit * 10.0**power for power in range(-2, 11) for digit in (1, 2, 5)]


def _short(value: float) -> str:
    """A round number as an axis has room for: 20k, 5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _pareto(
    known: Sequence[str],
    means: "pd.Series[float]",
    costs: "pd.Series[float]",
    title: str,
    names: Mapping[str, str],
    systems: Mapping[str, str],
) -> Panel:
    front: list[str] = []
    for variant in sorted(known, key=lambda name: (float(costs[name]), -float(means[name]))):
        if not front or means[variant] > means[front[-1]]:
            front.append(variant)
    dots = go.Scatter(
        x=[round(float(costs[variant]), 3) for variant in known],
        y=rounded([float(means[variant]) for variant in known]),
        mode="markers",
        marker={
            "color": [system_style(systems[variant]).colour for variant in known],
            "symbol": ["circle" if "+dca" in systems[v] or "grjca" in systems[v] else "circle-open" for v in known],
            "size": 10,
            "line": {"width": 2, "color": [system_style(systems[variant]).colour for variant in known]},
        },
        text=[plain(names[variant]) for variant in known],
        hovertemplate="%{text}: CCC %{y:.3f}, %{x:,}<extra></extra>",
    )
    line = go.Scatter(
        x=[round(float(costs[variant]), 3) for variant in front],
        y=rounded([float(means[variant]) for variant in front]),
        mode="lines",
        line={"shape": "hv", "width": 1.2, "color": GROUP_LINE},
        hoverinfo="skip",
    )
    spec = figure_of([line, dots], x=title, y="Mean CCC", height=330)
    low, high = float(min(costs[list(known)])), float(max(costs[list(known)]))
    ticks = [value for value in _ROUND if low / 1.5 <= value <= high * 1.5]
    spec["layout"]["xaxis"] |= {
        "type": "log", "tickvals": ticks, "ticktext": [_short(value) for value in ticks],
        "range": rounded([np.log10(low) - 0.08, np.log10(high) + 0.08]),
    }  # fmt: skip
    # Names of the ends of the front only: between them they would run into each other.
    for variant, side in {front[0]: "left", front[-1]: "right"}.items():
        spec["layout"].setdefault("annotations", []).append(
            {
                "x": float(np.log10(costs[variant])), "y": round(float(means[variant]), 4),
                "text": plain(names[variant]), "showarrow": False, "xanchor": side, "yanchor": "bottom", "yshift": 6,
            }
        )  # fmt: skip
    words = "; ".join(f"{names[v]} {number(float(means[v]))} at {float(costs[v]):,.0f}" for v in front)
    return Panel(spec, f"Mean CCC against {title.lower()}. Best at each cost: {words}.", title)
