"""What one choice does: a parameter, the fold, the seed, and the split that picks the epoch."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from crossfold.platform.core.cell import pair_key
from crossfold.platform.core.hashing import canonical_json
from crossfold.reports.figures.base import Figure, Key, Panel, variant_styles
from crossfold.reports.figures.charts import NEUTRAL, TRUTH, figure_of, label_rows, line_of, plain, rounded
from crossfold.reports.figures.gains import gain_dots
from crossfold.reports.results.comparable import comparable_variants, setting_targets, setting_variants
from crossfold.reports.results.model import Results, Setting, differing_keys
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import Style, system_style
from crossfold.reports.stats.formatting import gain_text, number
from crossfold.reports.stats.intervals import Gain, mean_interval, paired_gain
from crossfold.reports.stats.runs import Run, mean_scores, mean_sd, restrict_to_common_runs

CURVES = {"iterations": "Recursions", "temperature": "Temperature of the gate"}
"""Parameters that the papers vary, and their names there. Others that a sweep varies have a chart too."""
MOST_CURVES = 4
MOST_BARS = 24

_Points = Sequence[tuple[float, str]]
"""Value of a parameter and variant, in order."""


def parameter_curves(results: Results, setting: Setting, scores: pd.DataFrame) -> list[Figure]:
    """Mean CCC by a parameter in which the variants of a system differ alone: recursions, temperature."""
    found: dict[str, dict[tuple[str, str], list[tuple[float, str]]]] = defaultdict(lambda: defaultdict(list))
    for system in dict.fromkeys(setting_variants(results, setting).values()):
        variants = {v: p for v, p in results.variants_of[setting.key, system].items() if v in scores}
        for name in sorted({key for params in variants.values() for key in params}):
            for variant, params in variants.items():
                value = params.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool):  # a bool is an int in Python
                    rest = canonical_json({key: other for key, other in params.items() if key != name})
                    found[name][system, rest].append((float(value), variant))
    charts = []
    for name in sorted(found, key=lambda name: (name not in CURVES, name)):
        lines = {key: sorted(points) for key, points in found[name].items() if len(points) > 1}
        if lines:
            charts.append(_parameter_curve(name, lines, results, setting))
    return charts[:MOST_CURVES]


def _parameter_curve(name: str, lines: Mapping[tuple[str, str], _Points], results: Results, setting: Setting) -> Figure:
    targets = setting_targets(results, setting)
    title = CURVES.get(name, name)
    traces, words, keys = [], [], []
    seen: dict[str, int] = defaultdict(int)
    for (system, rest), points in lines.items():
        style = Style(system_style(system).colour, ("solid", "dash", "dot", "dashdot")[min(seen[system], 3)])
        seen[system] += 1
        alike = [json.loads(other) for of, other in lines if of == system]
        own = json.loads(rest)
        detail = ", ".join(f"{key} {own[key]}" for key in differing_keys(alike) if key in own)
        label = results.name_of(system) + (f" ({detail})" if len(alike) > 1 else "")
        groups = [[runs_of(results, setting, variant, target) for target in targets] for _, variant in points]
        means = [mean_sd(mean_scores(group)).mean for group in groups]
        intervals = [mean_interval(group) for group in groups]
        line = line_of([value for value, _ in points], rounded(means), label, style)
        line.update(mode="lines+markers", marker={"color": style.colour, "size": 7})
        highs = [each.high - mean if each else 0.0 for each, mean in zip(intervals, means, strict=True)]
        lows = [mean - each.low if each else 0.0 for each, mean in zip(intervals, means, strict=True)]
        if any(highs):
            whisker = {"type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": style.colour}
            line.update(error_y={**whisker, "array": rounded(highs), "arrayminus": rounded(lows)})
        traces.append(line)
        keys.append(Key(label, style.colour, style.stroke))
        words.append(f"{label}: " + ", ".join(f"{v:g} {number(m)}" for (v, _), m in zip(points, means, strict=True)))
    spec = figure_of(traces, x=title, y="Mean CCC", height=300)
    values = sorted({value for points in lines.values() for value, _ in points})
    spec["layout"]["xaxis"] |= {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}
    # On a linear axis the small values of a temperature would lie on each other.
    if min(values) > 0 and max(values) / min(values) > 8:
        spec["layout"]["xaxis"]["type"] = "log"
    # The name of a parameter may hold characters that an id of the page must not.
    slug = "".join(character if character.isalnum() else "-" for character in name)
    return Figure(
        id=f"by-{slug}",
        title=f"CCC by {title[0].lower()}{title[1:]}",
        caption="Mean over targets, folds and seeds of variants that differ in nothing else; whiskers are the 95% "
        "interval over videos. The points of a line are scored on the same videos, so they share part of it.",
        panels=(Panel(spec, f"Mean CCC by {title.lower()}: {'; '.join(words)}."),),
        key=tuple(keys),
    )


def selection_pairs(results: Results, setting: Setting) -> dict[str, Gain]:
    """Variant -> score of the `reported` cells minus that of their `held_out` twins, by the mean over targets."""
    if setting.selection != "reported":
        return {}
    twins = {pair_key(r.cell): r.cell_id for r in results.records.values() if r.cell.recipe.selection == "held_out"}
    sides: dict[str, dict[str, tuple[list[Run], list[Run]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    done = results.rows(setting, status="done")
    for cell_id, variant, target in done[["cell_id", "variant", "target"]].itertuples(index=False):
        twin = twins.get(pair_key(results.records[cell_id].cell)) if twins else None
        if twin is not None and (twin, target) in results.runs:
            reported, held_out = sides[variant][target]
            reported.append(results.runs[cell_id, target])
            held_out.append(results.runs[twin, target])
    gains = {}
    for variant, targets in sides.items():
        common = restrict_to_common_runs([runs for pair in targets.values() for runs in pair])
        if gain := paired_gain(common[0::2], common[1::2]) if common and common[0] else None:
            gains[variant] = gain
    return gains


def optimism_chart(results: Results, setting: Setting) -> Figure | None:
    """How much picking the epoch on the reported split flatters each system."""
    gains = selection_pairs(results, setting)
    chosen = [variant for variant in setting_variants(results, setting) if variant in gains][:MOST_BARS]
    if not chosen:
        return None
    styles = variant_styles(results, setting)
    rows = [(results.variants[variant], styles[variant].colour, gains[variant]) for variant in chosen]
    words = "; ".join(f"{name} {gain_text(gain)}" for name, _, gain in rows)
    return Figure(
        id="optimism",
        title="Optimism of picking the epoch on the reported split",
        caption="Mean CCC of the cells that pick their epoch on the reported split, as in papers, minus that of "
        "the same cells that pick it on held-out training videos; whiskers: the 95% paired interval over videos. The "
        "held-out cells train on fewer clips, so the difference bounds the optimism from above.",
        panels=(
            Panel(gain_dots(rows, "Reported minus held-out selection, CCC"), f"Optimism of selection, CCC: {words}."),
        ),
    )


def fold_chart(results: Results, setting: Setting) -> Figure | None:
    """How hard each fold is: the systems' CCC in it, and their mean."""
    scores = comparable_variants(results, setting)
    if scores.empty or scores.index.get_level_values("fold").nunique() < 2:
        return None
    by_fold = scores.groupby("fold").mean()
    at = list(range(len(by_fold)))
    styles = variant_styles(results, setting)
    # Side by side, in the same order in every fold, so that dots do not cover each other.
    spread = np.linspace(-0.22, 0.22, by_fold.shape[1]) if by_fold.shape[1] > 1 else np.zeros(1)
    dots = [
        go.Scatter(
            x=[round(row + float(shift), 3) for row in at],
            y=rounded(by_fold[variant]),
            mode="markers",
            marker={"color": styles[variant].colour, "size": 6},
            hovertemplate=plain(results.variants[variant]) + ": %{y:.3f}<extra></extra>",
        )
        for variant, shift in zip(by_fold.columns, spread, strict=True)
    ]
    mean = by_fold.mean(axis=1)
    bars = [
        go.Scatter(x=[row - 0.34, row + 0.34], y=rounded([m, m]), mode="lines", line={"width": 2.5}, meta=TRUTH,
                   hoverinfo="skip")
        for row, m in enumerate(mean)
    ]  # fmt: skip
    spec = figure_of([*bars, *dots], x="Fold", y="CCC", height=300)
    spec["layout"]["xaxis"] |= {"tickvals": at, "ticktext": [str(fold) for fold in by_fold.index], "showgrid": False}
    words = "; ".join(f"fold {fold} {number(float(m))}" for fold, m in mean.items())
    return Figure(
        id="folds",
        title="How hard each fold is",
        caption="A dot is a system: its mean CCC over targets and seeds in that fold, in the colour of its family; the "
        "bar is the mean of the systems. A difference between folds says nothing about systems, and averages over "
        "other folds are no comparison.",
        panels=(Panel(spec, f"Mean CCC of all systems: {words}."),),
    )


def seed_noise_chart(results: Results, setting: Setting, printed: Sequence[float]) -> Figure | None:
    """The spread of each system's score over seeds, and the gains that the papers print (B13).

    printed: gains in print, in CCC. A mean over n seeds of a system has that spread over the root of n.
    """
    scores = comparable_variants(results, setting)
    if scores.empty or scores.index.get_level_values("seed").nunique() < 2:
        return None
    means = scores.groupby(["fold", "seed"]).mean()
    spread = np.sqrt(means.groupby("fold").var(ddof=1).mean()).dropna()
    chosen = [variant for variant in setting_variants(results, setting) if variant in spread.index][:MOST_BARS]
    styles = variant_styles(results, setting)
    names = [results.variants[variant] for variant in chosen]
    traces = [
        go.Bar(
            x=rounded(spread[chosen]),
            y=list(range(len(chosen))),
            orientation="h",
            marker={"color": [styles[variant].colour for variant in chosen], "opacity": 0.75},
            text=[plain(name) for name in names],
            textposition="none",
            hovertemplate="%{text}: %{x:.3f}<extra></extra>",
        )
    ]
    sizes = sorted({round(abs(value), 4) for value in printed if value})
    if sizes:
        marker = {"symbol": "line-ns", "size": 16, "line": {"width": 1.2, "color": NEUTRAL}}
        traces.append(
            go.Scatter(x=rounded(sizes), y=[-1] * len(sizes), mode="markers", marker=marker,
                       hovertemplate="printed gain %{x:.3f}<extra></extra>")
        )  # fmt: skip
    rows = [*(["Gains in print"] if sizes else []), *names]
    spec = figure_of(traces, x="CCC", height=110 + 26 * len(rows))
    label_rows(spec, rows, first=-1 if sizes else 0)
    spec["layout"]["yaxis"]["showgrid"] = False
    spec["layout"]["bargap"] = 0.5
    spec["layout"]["xaxis"] |= {"rangemode": "tozero", "nticks": 7}
    # The difference of two single runs varies by the root of two more than one run; a gain below twice that is noise.
    noise = 2 * np.sqrt(2) * float(np.sqrt((spread[chosen] ** 2).mean()))
    compared = (
        f" Strokes: the gains that the papers print for one component. Of {len(sizes)} distinct gains in print, "
        f"{sum(size < noise for size in sizes)} are smaller than twice the spread of a difference of two single runs "
        f"here ({noise:.3f})."
    )
    words = "; ".join(f"{name} {number(float(spread[variant]))}" for name, variant in zip(names, chosen, strict=True))
    return Figure(
        id="seeds",
        title="Spread over seeds" + (", and the gains in print" if sizes else ""),
        caption="Bars: standard deviation over seeds of the mean CCC of one run (root of the mean variance within "
        "folds)." + compared * bool(sizes),
        panels=(Panel(spec, f"Standard deviation over seeds: {words}."),),
    )
