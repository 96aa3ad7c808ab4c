"""What one choice does: a parameter, the fold, the seed, and the split that picks the epoch."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from crossfold.platform.core.cell import pair_key
from crossfold.platform.core.hashing import canonical_json
from crossfold.reports.figures.base import Figure, Key, Panel, figure_of, line_of, plain, rounded, variant_styles
from crossfold.reports.results.comparable import Budget, comparable_variants, setting_targets, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import Style, system_label, system_style
from crossfold.reports.stats.bootstrap import (
    Gain,
    Run,
    mean_interval,
    mean_scores,
    mean_sd,
    paired_mean_gain,
    restrict_to_common_runs,
)
from crossfold.reports.stats.formatting import gain_text, number

NEUTRAL = "#7a7f87"
CURVES = {"iterations": "Recursions", "temperature": "Temperature of the gate"}
"""Parameters that the papers vary, and what they call them. Others that a sweep varies have a chart too."""
MOST_CURVES = 4
MOST_BARS = 24


def parameter_curves(results: Results, setting: Setting, budget: Budget) -> list[Figure]:
    """Mean CCC by a parameter in which the variants of a system differ alone: recursions, temperature."""
    found: dict[str, dict[tuple[str, str], list[tuple[float, str]]]] = defaultdict(lambda: defaultdict(list))
    for system in dict.fromkeys(setting_variants(results, setting).values()):
        variants = {v: p for v, p in results.variants_of[setting.key, system].items() if v in budget.variants}
        for name in sorted({key for params in variants.values() for key in params}):
            for variant, params in variants.items():
                value = params.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    rest = canonical_json({key: other for key, other in params.items() if key != name})
                    found[name][system, rest].append((float(value), variant))
    charts = []
    for name in sorted(found, key=lambda name: (name not in CURVES, name)):
        lines = {key: sorted(points) for key, points in found[name].items() if len(points) > 1}
        if lines:
            charts.append(_parameter_curve(name, lines, results, setting))
    return charts[:MOST_CURVES]


def _parameter_curve(
    name: str, lines: Mapping[tuple[str, str], Sequence[tuple[float, str]]], results: Results, setting: Setting
) -> Figure:
    targets = setting_targets(results, setting)
    title = CURVES.get(name, name)
    traces, words, keys = [], [], []
    seen: dict[str, int] = defaultdict(int)
    for (system, rest), points in lines.items():
        style = system_style(system)
        style = Style(style.colour, ("solid", "dash", "dot", "dashdot")[min(seen[system], 3)])
        seen[system] += 1
        label = system_label(system)
        alike = [other for other in lines if other[0] == system]
        if len(alike) > 1:
            label += f" ({_difference(rest, [other for _, other in alike])})"
        means, lows, highs = [], [], []
        for _, variant in points:
            groups = [runs_of(results, setting, variant, target) for target in targets]
            mean = mean_sd(mean_scores(groups)).mean
            interval = mean_interval(groups)
            means.append(mean)
            lows.append(mean - interval.low if interval else 0.0)
            highs.append(interval.high - mean if interval else 0.0)
        x = [value for value, _ in points]
        line = line_of(x, rounded(means), label, style)
        line.update(mode="lines+markers", marker={"color": style.colour, "size": 7})
        if any(highs):
            whisker = {"type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": style.colour}
            line.update(error_y={**whisker, "array": rounded(highs), "arrayminus": rounded(lows)})
        traces.append(line)
        keys.append(Key(label, style.colour, style.stroke))
        words.append(f"{label}: " + ", ".join(f"{v:g} {number(m)}" for (v, _), m in zip(points, means, strict=True)))
    spec = figure_of(traces, x=title, y="Mean CCC", height=300)
    values = sorted({value for points in lines.values() for value, _ in points})
    spec["layout"]["xaxis"] |= {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}
    if min(values) > 0 and max(values) / min(values) > 8:
        spec["layout"]["xaxis"]["type"] = "log"
    # A name of a parameter is a name of ours, yet it ends in an id.
    slug = "".join(character if character.isalnum() else "-" for character in name)
    return Figure(
        id=f"by-{slug}",
        title=f"CCC by {title[0].lower()}{title[1:]}",
        caption="Mean over targets, folds and seeds of variants that differ in nothing else; whiskers are the 95% "
        "interval over videos, which the points of a line share in part, for they are scored on the same videos.",
        panels=(Panel(spec, f"Mean CCC by {title.lower()}: {'; '.join(words)}."),),
        key=tuple(keys),
    )


def _difference(rest: str, others: Sequence[str]) -> str:
    """The parameters in which one of several variants differs from the others, as words."""
    own, parsed = json.loads(rest), [json.loads(other) for other in others]
    telling = [key for key in sorted(own) if len({repr(params.get(key)) for params in parsed}) > 1]
    return ", ".join(f"{key} {own[key]}" for key in telling)


def selection_pairs(results: Results, setting: Setting) -> dict[str, Gain]:
    """Variant -> score of the `reported` cells minus that of their `held_out` twins, by the mean over targets."""
    if setting.selection != "reported":
        return {}
    twins = {pair_key(r.cell): r.cell_id for r in results.records.values() if r.cell.recipe.selection == "held_out"}
    sides: dict[str, dict[str, tuple[list[Run], list[Run]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    done = results.cells[(results.cells["setting"] == setting.key) & (results.cells["status"] == "done")]
    for cell_id, variant, target in done[["cell_id", "variant", "target"]].itertuples(index=False):
        twin = twins.get(pair_key(results.records[cell_id].cell)) if twins else None
        if twin is not None and (twin, target) in results.runs:
            ours, theirs = sides[variant][target]
            ours.append(results.runs[cell_id, target])
            theirs.append(results.runs[twin, target])
    gains = {}
    for variant, targets in sides.items():
        common = restrict_to_common_runs([runs for pair in targets.values() for runs in pair])
        if common and common[0]:
            gain = paired_mean_gain(common[0::2], common[1::2])
            if gain:
                gains[variant] = gain
    return gains


def optimism_chart(results: Results, setting: Setting) -> Figure | None:
    """How much picking the epoch on the reported split flatters each system."""
    gains = selection_pairs(results, setting)
    chosen = [variant for variant in setting_variants(results, setting) if variant in gains][:MOST_BARS]
    if not chosen:
        return None
    spec = gain_spec(
        [(results.variants[v], variant_styles(results, setting)[v].colour, gains[v]) for v in chosen],
        "Reported minus held-out selection, CCC",
    )
    words = "; ".join(f"{results.variants[variant]} {gain_text(gains[variant])}" for variant in chosen)
    return Figure(
        id="optimism",
        title="Optimism of picking the epoch on the reported split",
        caption="Mean CCC of the cells that pick their epoch on the reported split, as in papers, minus that of "
        "the same cells that pick it on held-out training videos; whiskers: the 95% paired interval over videos. The "
        "held-out cells train on fewer clips, so the difference bounds the optimism from above.",
        panels=(Panel(spec, f"Optimism of selection, CCC: {words}."),),
    )


def gain_spec(rows: Sequence[tuple[str, str, Gain]], axis: str) -> dict[str, object]:
    """A dot and its paired interval for each row (name, colour, gain), on both sides of zero."""
    at = list(range(len(rows)))
    dots = go.Scatter(
        x=rounded([gain.mean for *_, gain in rows]),
        y=at,
        mode="markers",
        marker={"color": [colour for _, colour, _ in rows], "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": rounded([(g.high if g.high is not None else g.mean) - g.mean for *_, g in rows]),
            "arrayminus": rounded([g.mean - (g.low if g.low is not None else g.mean) for *_, g in rows]),
            "thickness": 1.4,
            "width": 4,
            "color": NEUTRAL,
        },
        text=[plain(name) for name, *_ in rows],
        hovertemplate="%{text}: %{x:+.3f}<extra></extra>",
    )
    spec = figure_of([dots], x=axis, y="", height=90 + 26 * len(rows))
    spec["layout"]["yaxis"] |= {
        "tickvals": at, "ticktext": [plain(name) for name, *_ in rows], "ticks": "", "ticksuffix": " ",
        "range": [len(rows) - 0.4, -0.6],
    }  # fmt: skip
    spec["layout"]["xaxis"] |= {"tickformat": "+.2f", "nticks": 7, "zeroline": True, "zerolinewidth": 1.5}
    return spec


def fold_chart(results: Results, setting: Setting) -> Figure | None:
    """How hard each fold is: the systems' CCC in it, and their mean."""
    scores = comparable_variants(results, setting).scores
    if scores.empty or scores.index.get_level_values("fold").nunique() < 2:
        return None
    by_fold = scores.groupby("fold").mean()
    folds = [int(fold) for fold in by_fold.index]
    styles = variant_styles(results, setting)
    spread = np.linspace(-0.22, 0.22, by_fold.shape[1]) if by_fold.shape[1] > 1 else np.zeros(1)
    dots = [
        go.Scatter(
            x=[round(at + float(shift), 3) for at in range(len(folds))],
            y=rounded(by_fold[variant]),
            mode="markers",
            marker={"color": styles[variant].colour, "size": 6},
            hovertemplate=plain(results.variants[variant]) + ": %{y:.3f}<extra></extra>",
        )
        for variant, shift in zip(by_fold.columns, spread, strict=True)
    ]
    mean = by_fold.mean(axis=1)
    bars = [
        go.Scatter(
            x=[at - 0.34, at + 0.34],
            y=rounded([m, m]),
            mode="lines",
            line={"width": 2.5},
            meta="truth",
            hoverinfo="skip",
        )
        for at, m in enumerate(mean)
    ]
    spec = figure_of([*bars, *dots], x="Fold", y="CCC", height=300)
    spec["layout"]["xaxis"] |= {
        "tickvals": list(range(len(folds))),
        "ticktext": [str(fold) for fold in folds],
        "showgrid": False,
    }
    words = "; ".join(f"fold {fold} {number(float(m))}" for fold, m in zip(folds, mean, strict=True))
    return Figure(
        id="folds",
        title="How hard each fold is",
        caption="A dot is a system: its mean CCC over targets and seeds in that fold, in the colour of its family; the "
        "bar is the mean of the systems. A difference between folds says nothing about systems, and averages over "
        "other folds are no comparison.",
        panels=(Panel(spec, f"Mean CCC of all systems: {words}."),),
    )


def seed_noise_chart(results: Results, setting: Setting, printed: Sequence[float]) -> Figure | None:
    """What seeds alone make of each system's score, beside the gains that the papers print (B13).

    printed: gains in print, in CCC. A mean over n seeds of a system has that spread over the root of n.
    """
    scores = comparable_variants(results, setting).scores
    if scores.empty or scores.index.get_level_values("seed").nunique() < 2:
        return None
    means = scores.groupby(["fold", "seed"]).mean()
    spread = np.sqrt(means.groupby("fold").var(ddof=1).mean()).dropna()
    chosen = [variant for variant in setting_variants(results, setting) if variant in spread.index][:MOST_BARS]
    styles = variant_styles(results, setting)
    at = list(range(len(chosen)))
    names = [results.variants[variant] for variant in chosen]
    traces = [
        go.Bar(
            x=rounded([float(spread[variant]) for variant in chosen]),
            y=at,
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
    rows = ([-1] if sizes else []) + at
    labels = (["Gains in print"] if sizes else []) + [plain(name) for name in names]
    spec = figure_of(traces, x="CCC", y="", height=110 + 26 * len(rows))
    spec["layout"]["yaxis"] |= {
        "tickvals": rows, "ticktext": labels, "ticks": "", "ticksuffix": " ", "showgrid": False,
        "range": [len(at) - 0.4, min(rows) - 0.6],
    }  # fmt: skip
    spec["layout"]["bargap"] = 0.5
    spec["layout"]["xaxis"] |= {"rangemode": "tozero", "nticks": 7}
    typical = float(np.sqrt((spread[chosen] ** 2).mean()))
    smaller = sum(size < 2 * np.sqrt(2) * typical for size in sizes)
    said = (
        " Strokes: the gains that the papers print for one component. "
        f"Of {len(sizes)} distinct gains in print, {smaller} are smaller than twice the spread of a difference of two "
        f"single runs here ({2 * np.sqrt(2) * typical:.3f})." if sizes else ""
    )  # fmt: skip
    words = "; ".join(f"{name} {number(float(spread[variant]))}" for name, variant in zip(names, chosen, strict=True))
    return Figure(
        id="seeds",
        title="What seeds alone make" + (", and the gains in print" if sizes else ""),
        caption="Bars: standard deviation over seeds of the mean CCC of one run (root of the mean variance within "
        f"folds).{said}",
        panels=(Panel(spec, f"Standard deviation over seeds: {words}."),),
    )
