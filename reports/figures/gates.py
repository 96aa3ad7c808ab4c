"""Does a gate choose "unattended" where a modality is damaged? From `gates` of `result.json` (B2)."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Key, Panel, figure_of, plain, rounded, variant_styles
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.gate_scores import gate_table
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.stats.formatting import number

CLEAN = "#7a7f87"
TRUTHS = {"spans": "Planted by the corpus", "stress": "The stress battery"}
MOST_ROWS = 16
"""Rows of a chart: gates x modalities x systems; the best systems stay."""


def gate_charts(results: Results, setting: Setting) -> list[Figure]:
    """How well the weight of "unattended" tells damaged frames from clean ones, and how large it is on each."""
    table = gate_table(results, setting).dropna(subset=["auroc"])
    found = []
    for truth, title in TRUTHS.items():
        known = table[table.index.get_level_values("truth") == truth].reset_index()
        if not known.empty:
            found.append(_auroc(known, results, setting, truth, title))
    whole = table.reset_index()
    whole = whole[(whole["truth"] == "spans") & (whole["damage"] == "any")].dropna(
        subset=["mean_damaged", "mean_clean"]
    )
    if not whole.empty:
        found.append(_weights(whole, results, setting))
    return found


def _rows_of(table: pd.DataFrame, results: Results, setting: Setting) -> pd.DataFrame:
    """The gates of a table in order of figures, with their names; no more than fit."""
    order = list(setting_variants(results, setting))
    rows = table[["variant", "gate", "modality"]].drop_duplicates()
    rows = rows.assign(
        at=[order.index(str(variant)) for variant in rows["variant"]],
        name=[
            f"{results.variants[str(v)]}, {m}" + (f" {g.removeprefix('gate.')}" if g != "gate" else "")
            for v, g, m in rows.itertuples(index=False)
        ],
    )
    return rows.sort_values(["at", "gate", "modality"]).tail(MOST_ROWS)


def _auroc(known: pd.DataFrame, results: Results, setting: Setting, truth: str, title: str) -> Figure:
    rows = _rows_of(known, results, setting)
    damages = sorted(known["damage"].unique(), key=lambda name: (name != "any", name))
    values = known.set_index(["variant", "gate", "modality", "damage"])["auroc"]
    grid = np.array(
        [
            [values.get((v, g, m, damage), np.nan) for damage in damages]
            for v, g, m in rows[["variant", "gate", "modality"]].itertuples(index=False)
        ],
        float,
    )
    at = list(range(len(rows)))
    heat = go.Heatmap(
        z=[rounded(row) for row in grid],
        x=list(range(len(damages))),
        y=at,
        zmin=0,
        zmax=1,
        colorscale=[[0, "#b5651d"], [0.5, "#e9e9e6"], [1, "#2f6fb3"]],
        text=[["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in grid],
        texttemplate="%{text}",
        customdata=[[f"{plain(name)}: {plain(damage)}" for damage in damages] for name in rows["name"]],
        hovertemplate="%{customdata}, AUROC %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
        colorbar={"thickness": 10, "outlinewidth": 0},
    )
    spec = figure_of([heat], x="", y="", height=150 + 26 * len(rows))
    ticks = {"ticks": "", "showgrid": False}
    spec["layout"]["yaxis"] |= ticks | {
        "tickvals": at, "ticktext": [plain(name) for name in rows["name"]], "autorange": "reversed", "ticksuffix": " ",
    }  # fmt: skip
    spec["layout"]["xaxis"] |= ticks | {
        "tickvals": list(range(len(damages))), "ticktext": [plain(_in_words(d)) for d in damages], "tickangle": -45,
    }  # fmt: skip
    words = "; ".join(
        f"{name} {number(float(np.nanmean(row)))}"
        for name, row in zip(rows["name"], grid, strict=True)
        if not np.isnan(row).all()
    )
    return Figure(
        id=f"gate-{truth}",
        title=f"Gate against damage: {title.lower()}",
        caption="AUROC of the weight that the gate gives to unattended features (column 0, B2), telling damaged frames "
        "from clean ones; 0.5 is chance. Mean over folds, seeds and targets. A gate of the damaged modality itself has "
        "reason to do the opposite of the others: read each modality alone.",
        panels=(Panel(spec, f"AUROC, mean over kinds of damage: {words}."),),
        wide=len(damages) > 8,
    )


def _weights(whole: pd.DataFrame, results: Results, setting: Setting) -> Figure:
    """The mean weight on damaged and on clean frames, joined by a line."""
    rows = _rows_of(whole, results, setting)
    values = whole.set_index(["variant", "gate", "modality"])
    styles = variant_styles(results, setting)
    lines, clean, damaged, colours = [], [], [], []
    for index, (v, g, m) in enumerate(rows[["variant", "gate", "modality"]].itertuples(index=False)):
        low, high = float(values.loc[(v, g, m), "mean_clean"]), float(values.loc[(v, g, m), "mean_damaged"])
        clean.append(low)
        damaged.append(high)
        colours.append(styles[str(v)].colour)
        join = {"color": styles[str(v)].colour, "width": 2}
        lines.append(go.Scatter(x=rounded([low, high]), y=[index, index], mode="lines", line=join, hoverinfo="skip"))
    at = list(range(len(rows)))
    names = [plain(name) for name in rows["name"]]
    dots = [
        go.Scatter(
            x=rounded(points), y=at, mode="markers", text=names,
            hovertemplate=f"%{{text}}, {what}: %{{x:.3f}}<extra></extra>",
            marker={"color": colours, "size": 10, "symbol": symbol, "line": {"width": 2, "color": colours}},
        )
        for points, what, symbol in ((clean, "clean", "circle-open"), (damaged, "damaged", "circle"))
    ]  # fmt: skip
    spec = figure_of([*lines, *dots], x="Mean weight of unattended features", y="", height=110 + 26 * len(rows))
    spec["layout"]["yaxis"] |= {
        "tickvals": at, "ticktext": names, "ticks": "", "range": [len(at) - 0.4, -0.6], "ticksuffix": " ",
    }  # fmt: skip
    spec["layout"]["xaxis"]["nticks"] = 6
    words = "; ".join(
        f"{n} {number(c)} clean, {number(d)} damaged" for n, c, d in zip(rows["name"], clean, damaged, strict=True)
    )
    return Figure(
        id="gate-weight",
        title="Weight of the gate on damaged and clean frames",
        caption="Open: clean frames; filled: frames in a span that the corpus planted as missing, corrupted or "
        "conflicting. Mean over folds, seeds and targets.",
        panels=(Panel(spec, f"Mean weight of unattended features: {words}."),),
        key=(Key("clean frames to damaged frames", CLEAN),),
    )


def _in_words(damage: str) -> str:
    """`missing:audio:0.5` as `audio missing 0.5`."""
    kind, *rest = damage.split(":")
    return " ".join([*rest[:1], kind, *rest[1:]])
