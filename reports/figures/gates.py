"""Does a gate choose "unattended" where a modality is damaged? From `gates` of `result.json` (B2)."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Key, Panel, variant_styles
from crossfold.reports.figures.charts import NEUTRAL, figure_of, heat_of, label_rows, plain, rounded, row_dots
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.gate_scores import gate_table
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.stats.formatting import number

TRUTHS = {"spans": "damage planted by the corpus", "stress": "damage of the stress suite"}
MOST_ROWS = 16
"""The most rows of a chart (gates x modalities x systems): the last in order of figures, of the latest papers."""
_GATE = ["variant", "gate", "modality"]


def gate_charts(results: Results, setting: Setting) -> list[Figure]:
    """How well the weight of "unattended" detects damaged frames, and how large it is on damaged and clean ones."""
    # A gate that saw only damaged or only clean frames has no AUROC.
    table = gate_table(results, setting).dropna(subset=["auroc"]).reset_index()
    found = []
    for truth in TRUTHS:
        known = table[table["truth"] == truth]
        if not known.empty:
            found.append(_auroc(known, results, setting, truth))
    anywhere = table[(table["truth"] == "spans") & (table["damage"] == "any")]
    anywhere = anywhere.dropna(subset=["mean_damaged", "mean_clean"])
    if not anywhere.empty:
        found.append(_weights(anywhere, results, setting))
    return found


def _rows_of(table: pd.DataFrame, results: Results, setting: Setting) -> pd.DataFrame:
    """The gates of a table in order of figures, with their names; at most `MOST_ROWS`."""
    order = list(setting_variants(results, setting))
    rows = table[_GATE].drop_duplicates()
    rows = rows.assign(
        at=[order.index(str(variant)) for variant in rows["variant"]],
        name=[
            f"{results.variants[str(v)]}, {m}" + (f" {g.removeprefix('gate.')}" if g != "gate" else "")
            for v, g, m in rows.itertuples(index=False)
        ],
    )
    return rows.sort_values(["at", "gate", "modality"]).tail(MOST_ROWS)


def _auroc(known: pd.DataFrame, results: Results, setting: Setting, truth: str) -> Figure:
    rows = _rows_of(known, results, setting)
    damages = sorted(known["damage"].unique(), key=lambda name: (name != "any", name))  # the summary column first
    values = known.set_index([*_GATE, "damage"])["auroc"]
    gates = list(rows[_GATE].itertuples(index=False, name=None))
    grid = np.array([[values.get((*gate, damage), np.nan) for damage in damages] for gate in gates], float)
    heat = heat_of(
        grid,
        [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in grid],
        [[f"{plain(name)}: {plain(damage)}" for damage in damages] for name in rows["name"]],
        hovertemplate="%{customdata}, AUROC %{z:.3f}<extra></extra>",
        colorbar={"thickness": 10, "outlinewidth": 0},
    )
    spec = figure_of([heat], x="", height=150 + 26 * len(rows))
    label_rows(spec, list(rows["name"]))
    spec["layout"]["yaxis"]["showgrid"] = False
    spec["layout"]["xaxis"] |= {
        "tickvals": list(range(len(damages))), "ticktext": [plain(_in_words(d)) for d in damages], "tickangle": -45,
        "ticks": "", "showgrid": False,
    }  # fmt: skip
    words = "; ".join(
        f"{name} {number(float(np.nanmean(row)))}"
        for name, row in zip(rows["name"], grid, strict=True)
        if not np.isnan(row).all()
    )
    return Figure(
        id=f"gate-{truth}",
        title=f"How well gates detect {TRUTHS[truth]}",
        caption="AUROC of the weight that the gate gives to unattended features (column 0, B2) as a detector of "
        "damaged frames; 0.5 is chance. Mean over folds, seeds and targets. A gate of the damaged modality itself has "
        "reason to do the opposite of the others: read each modality alone.",
        panels=(Panel(spec, f"AUROC, mean over kinds of damage: {words}."),),
        wide=len(damages) > 8,
    )


def _weights(anywhere: pd.DataFrame, results: Results, setting: Setting) -> Figure:
    """The mean weight on damaged and on clean frames, joined by a line."""
    rows = _rows_of(anywhere, results, setting)
    values = rows[_GATE].merge(anywhere, on=_GATE)
    styles = variant_styles(results, setting)
    colours = [styles[str(variant)].colour for variant in rows["variant"]]
    ends = list(zip(values["mean_clean"], values["mean_damaged"], strict=True))
    lines = [
        go.Scatter(x=rounded(pair), y=[at, at], mode="lines", line={"color": colour, "width": 2}, hoverinfo="skip")
        for at, (pair, colour) in enumerate(zip(ends, colours, strict=True))
    ]
    rim, names = {"width": 2, "color": colours}, list(rows["name"])
    dots = [
        row_dots(
            values[f"mean_{what}"], names, colours, f", {what}: %{{x:.3f}}", marker={"symbol": symbol, "line": rim}
        )
        for what, symbol in (("clean", "circle-open"), ("damaged", "circle"))
    ]
    spec = figure_of([*lines, *dots], x="Mean weight of unattended features", height=110 + 26 * len(rows))
    label_rows(spec, names)
    spec["layout"]["xaxis"]["nticks"] = 6
    words = "; ".join(
        f"{name} {number(float(clean))} clean, {number(float(damaged))} damaged"
        for name, (clean, damaged) in zip(names, ends, strict=True)
    )
    return Figure(
        id="gate-weight",
        title="Weight of the gate on damaged and clean frames",
        caption="Open: clean frames; filled: frames in a span that the corpus planted as missing, corrupted or "
        "conflicting. Mean over folds, seeds and targets.",
        panels=(Panel(spec, f"Mean weight of unattended features: {words}."),),
        key=(Key("clean frames to damaged frames", NEUTRAL),),
    )


def _in_words(damage: str) -> str:
    """`missing:audio:0.5` as `audio missing 0.5`."""
    kind, *rest = damage.split(":")
    return " ".join([*rest[:1], kind, *rest[1:]])
