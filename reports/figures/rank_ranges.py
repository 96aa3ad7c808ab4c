"""How sure the order of the leaderboard is: the ranks that each system takes when videos and seeds are drawn again."""

import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Panel, variant_styles
from crossfold.reports.figures.charts import figure_of, label_rows, plain
from crossfold.reports.results.comparable import setting_targets
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.stats.ranks import DRAWS, rank_ranges

FEW = 3
"""Of fewer systems a range of ranks says nothing that the gain does not."""


def rank_chart(results: Results, setting: Setting, scores: pd.DataFrame) -> Figure | None:
    """The range of ranks of the systems that ran the same blocks, one a row, the best first.

    scores: of `comparable_variants`. None with fewer than three systems, or with too few videos.
    """
    if scores.shape[1] < FEW:
        return None
    targets = setting_targets(results, setting)
    ranges = rank_ranges(
        {variant: [runs_of(results, setting, variant, t) for t in targets] for variant in map(str, scores)}
    )
    if not ranges:
        return None
    styles = variant_styles(results, setting)
    order = sorted(ranges, key=lambda variant: ranges[variant].rank)
    names = [results.variants[variant] for variant in order]
    traces = []
    for row, (variant, name) in enumerate(zip(order, names, strict=True)):
        found, style = ranges[variant], styles[variant]
        marker = {
            "color": style.colour,
            "symbol": style.symbol,
            "size": 10,
            "line": {"width": 2, "color": style.colour},
        }
        hover = f"{plain(name)}: rank {found.rank}, {found.low} to {found.high}<extra></extra>"
        traces += [
            go.Scatter(
                x=[found.low, found.high],
                y=[row, row],
                mode="lines",
                line={"color": style.colour, "width": 3},
                hoverinfo="skip",
            ),
            go.Scatter(x=[found.rank], y=[row], mode="markers", marker=marker, hovertemplate=hover),
        ]
    spec = figure_of(traces, x="Rank", height=90 + 24 * len(order))
    label_rows(spec, names)
    step = max(1, -(-len(order) // 8))  # whole ranks, and no more than fit on a phone
    ticks = [1, *range(step if step > 1 else 2, len(order) + 1, step)]
    spec["layout"]["xaxis"] |= {"tickvals": ticks, "range": [0.5, len(order) + 0.5]}
    words = "; ".join(
        f"{name} {ranges[v].rank} ({ranges[v].low} to {ranges[v].high})" for v, name in zip(order, names, strict=True)
    )
    seeds = scores.index.get_level_values("seed").nunique()
    drawn = "videos and seeds are" if seeds > 1 else "videos are"
    return Figure(
        id="rank-ranges",
        title="How sure each rank is",
        caption=f"Rank by mean CCC over targets, folds and seeds; the line holds 95% of {DRAWS} draws, in which "
        f"{drawn} drawn with replacement within each fold, the same for all systems. It describes the order and "
        "decides nothing: which system beats another is a matter of the groups and of p.",
        panels=(Panel(spec, f"Rank, and range of ranks: {words}."),),
    )
