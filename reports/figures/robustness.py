"""The score under damage of one modality, by strength. From `stress` of `result.json`."""

import pandas as pd

from crossfold.reports.figures.base import Figure, Key, Panel, variant_styles
from crossfold.reports.figures.charts import (
    NEUTRAL,
    figure_of,
    label_rows,
    line_of,
    muted_line,
    plain,
    rounded,
    row_dots,
    whiskers,
)
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.robustness_scores import area_runs, stress_areas, stress_table
from crossfold.reports.stats.formatting import interval_text, number
from crossfold.reports.stats.intervals import mean_interval

KINDS = {
    "missing": ("gone", "Share of time"),
    "noisy": ("noisy", "Noise, sd"),
    "frozen": ("frozen", "Held for, s"),
    "shifted": ("late", "Lag, s"),
}
MOST_LINES = 8
"""Named lines of one chart; the others are grey."""


def degradation_chart(results: Results, setting: Setting) -> Figure | None:
    """CCC by strength of damage, a panel for each kind and modality, with the systems that read the modality."""
    table = stress_table(results, setting)
    if table.empty:
        return None
    named = _named(table, results, setting)
    styles = variant_styles(results, setting)
    means = table.groupby(["kind", "modality", "variant", "strength"])["ccc"].mean()
    used = table.groupby(["kind", "modality", "variant"])["used"].any()
    low, high = float(means.min()), float(means.max())  # one range for all panels, so that they can be compared
    margin = 0.05 * (high - low) or 0.01
    panels = []
    for kind, (words, axis) in KINDS.items():
        for modality in sorted(table.loc[table["kind"] == kind, "modality"].unique()):
            reading = [v for v in setting_variants(results, setting) if used.get((kind, modality, v), False)]
            if not reading:
                continue
            lines, alt = [], []
            for variant in sorted(reading, key=lambda v: v in named):  # grey lines first, below the named ones
                curve = means[kind, modality, variant].sort_index()
                x, y = [float(strength) for strength in curve.index], rounded(curve)
                if variant not in named:
                    lines.append(muted_line(x, y))
                    continue
                name, style = results.variants[variant], styles[variant]
                marker = {"color": style.colour, "size": 5}
                lines.append(line_of(x, y, name, style).update(mode="lines+markers", marker=marker))
                alt.append(f"{name} {number(float(curve.iloc[0]))} to {number(float(curve.iloc[-1]))}")
            spec = figure_of(lines, x=axis, y="CCC", height=240)
            spec["layout"]["yaxis"]["range"] = rounded([low - margin, high + margin])
            spec["layout"]["xaxis"]["nticks"] = 5
            title = f"{modality.capitalize()} {words}"
            panels.append(Panel(spec, f"{title}, CCC without and with damage: {'; '.join(alt)}.", plain(title)))
    if not panels:
        return None
    area = _area_panel(results, setting, named)
    panels += [area] if area else []
    return Figure(
        id="stress",
        title="When a modality is damaged",
        caption="Mean CCC over targets, folds and seeds of the trained systems while one modality is damaged and the "
        "others are left alone; the damage is the same for all systems. Strength 0 is the raw score. A panel shows the "
        "systems that read its modality"
        + ("; grey: further ones." if len(named) < means.index.get_level_values("variant").nunique() else ".")
        + (
            " Area: dots are the mean CCC as damage grows, upright lines the score without damage, whiskers the 95% "
            "interval of the area, where the cells keep numbers by video."
            if area
            else ""
        ),
        panels=tuple(panels),
        key=tuple(Key(results.variants[v], styles[v].colour, styles[v].stroke) for v in named),
        wide=True,
    )


def _area_panel(results: Results, setting: Setting, named: list[str]) -> Panel | None:
    """The area below the curves of each named variant, next to its raw score; None where no damage has a curve."""
    areas = stress_areas(results, setting)
    areas = areas[areas["used"] & areas["variant"].isin(named)]
    if areas.empty:
        return None
    area = areas.groupby("variant")["ccc"].mean().sort_values(ascending=False)
    done = results.rows(setting, status="done")
    raw = done.groupby("variant")["ccc"].mean()[area.index]
    names, styles = [results.variants[str(variant)] for variant in area.index], variant_styles(results, setting)
    colours = [styles[str(variant)].colour for variant in area.index]
    undamaged = row_dots(
        raw, names, [NEUTRAL] * len(names), ": %{x:.3f} without damage", marker={"symbol": "line-ns-open", "size": 12}
    )
    runs = area_runs(results, setting, used=True)
    intervals = [mean_interval(runs[str(variant)]) if variant in runs else None for variant in area.index]
    spec = figure_of(
        [undamaged, row_dots(area, names, colours, ": %{x:.3f}", error_x=whiskers(area, intervals))],
        x="Mean CCC as damage grows",
        height=90 + 26 * len(names),
    )
    label_rows(spec, names)
    words = "; ".join(
        f"{name} {number(float(under))}{f' {interval_text(interval)}' if interval else ''}, {number(float(clean))} "
        "without damage"
        for name, under, interval, clean in zip(names, area, intervals, raw, strict=True)
    )
    return Panel(spec, f"Area below the curves, mean over damages: {words}.", "Area below the curves", breaks=True)


def _named(table: pd.DataFrame, results: Results, setting: Setting) -> list[str]:
    """The variants that get a colour, in order of figures: the best one of each of the best systems."""
    # By the raw score: the best systems under damage would differ from panel to panel.
    raw = table[table["strength"] == 0].groupby("variant")["ccc"].mean().sort_values(ascending=False)
    systems = setting_variants(results, setting)
    best: dict[str, str] = {}
    for variant in raw.index:
        best.setdefault(systems[str(variant)], str(variant))
    chosen = list(best.values())[:MOST_LINES]
    return [variant for variant in systems if variant in chosen]
