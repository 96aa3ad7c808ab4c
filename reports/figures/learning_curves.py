"""CCC by epoch, mean and spread over runs."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from crossfold.reports.figures.base import Figure, Key, Panel, variant_styles
from crossfold.reports.figures.charts import as_floats, figure_of, line_of, muted_line, rounded
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style, translucent
from crossfold.reports.stats.formatting import number


def learning_curve(results: Results, setting: Setting, target: str) -> Figure | None:
    """CCC on the selection split by epoch: mean over folds and seeds, band of one standard deviation over seeds.

    One panel per family, with all other systems in grey behind it: ten coloured lines in one chart cannot be read.
    """
    styles, systems = variant_styles(results, setting), setting_variants(results, setting)
    found = {variant: by_epoch(results, setting, variant, target) for variant in systems}
    summaries = {variant: summary for variant, summary in found.items() if summary is not None}
    if not summaries:
        return None
    families: dict[str, list[str]] = {}
    for variant in summaries:
        families.setdefault(results.family_of(systems[variant]), []).append(variant)
    ends = pd.concat(summaries.values())
    low, high = float((ends["mean"] - ends["sd"]).min()), float((ends["mean"] + ends["sd"]).max())
    margin = 0.04 * (high - low) or 0.01  # an axis of length zero cannot be drawn
    ranges = {"xaxis": [1, max(2, int(ends["epoch"].max()))], "yaxis": rounded([low - margin, high + margin])}
    panels = []
    for family, members in families.items():
        others = [
            muted_line(as_floats(summary["epoch"]), rounded(summary["mean"]))
            for variant, summary in summaries.items()
            if variant not in members
        ]
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


def by_epoch(results: Results, setting: Setting, variant: str, target: str) -> pd.DataFrame | None:
    """Columns epoch (from 1), mean over runs and sd over seeds, as long as half of the runs of a variant still train.

    The spread is the root of the mean over folds of the variance over seeds. None without a finished run.
    """
    cells = results.groups.get((setting.key, variant, target))
    done = cells[cells["status"] == "done"] if cells is not None else None
    if done is None or done.empty:
        return None
    # Masked where a run has ended; the variance is masked too where fewer than two runs of a fold are left.
    curves = np.ma.masked_invalid(results.curves.stacked([str(cell_id) for cell_id in done["cell_id"]], target))
    folds = done["fold"].to_numpy()
    variances = np.ma.stack([curves[folds == fold].var(axis=0, ddof=1) for fold in np.unique(folds)])
    spread = np.ma.sqrt(variances.mean(axis=0)).filled(0.0)
    epochs, mean = 1 + np.arange(curves.shape[1]), curves.mean(axis=0).filled(0.0)
    table = pd.DataFrame({"epoch": epochs, "mean": mean, "sd": spread})
    trained: pd.DataFrame = table[curves.count(axis=0) * 2 >= len(curves)].reset_index(drop=True)
    return trained


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


def _highest(summary: pd.DataFrame) -> str:
    at = int(summary["mean"].to_numpy().argmax())
    return f"{number(float(summary['mean'].iloc[at]))} at epoch {int(summary['epoch'].iloc[at])}"
