"""The charts of searches: best value by trial, importance, slices, two or all parameters at once, and the front."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.interpolate import griddata

from crossfold.reports.figures.base import Figure, Key, Panel
from crossfold.reports.figures.charts import NEUTRAL, figure_of, label_rows, plain, rounded
from crossfold.reports.results.searches import FoundSearch
from crossfold.reports.results.systems import system_label, system_style
from crossfold.reports.stats.formatting import number

COSTS = {"parameters": "Parameters", "flops": "FLOPs per window", "seconds": "Seconds of training per cell"}
FIRST = ("temperature", "iterations")
MOST_SLICES = 6
GRID = 24
"""Points a side of a map of two parameters."""
TIERS = ((0.9, "best tenth", 0.9, 1.6), (0.5, "better half", 0.45, 1.0), (0.0, "others", 0.15, 0.7))
"""Quantile from which a trial belongs to a tier, its name, opacity and width of its line."""


def search_figures(name: str, searches: Sequence[FoundSearch]) -> list[Figure]:
    """The figures of the searches of one file."""
    slug = "".join(character if character.isalnum() else "-" for character in name)
    systems = {
        system: [s for s in searches if s.system == system] for system in dict.fromkeys(s.system for s in searches)
    }
    styles = {system: system_style(system) for system in systems}
    keys = tuple(Key(system_label(system), style.colour, style.stroke) for system, style in styles.items())
    drawn = [
        _history(systems),
        _importance(searches),
        _slices(systems),
        _contour(systems),
        _parallel(systems),
        _front(systems),
        _fresh(searches),
    ]
    return [
        Figure(f"search-{kind}-{slug}", title, caption, tuple(panels), keys, wide=len(panels) > 1)
        for kind, title, caption, panels in drawn
        if panels
    ]


_Drawn = tuple[str, str, str, Sequence[Panel]]
_Systems = Mapping[str, Sequence[FoundSearch]]


def _history(systems: _Systems) -> _Drawn:
    traces: list[Any] = []
    words = []
    for system, searches in systems.items():
        style, label = system_style(system), plain(system_label(system))
        courses = []
        for search in searches:
            judged = search.judged
            complete = judged["value"].where(judged["state"] == "complete")
            courses.append(complete.cummax().ffill().to_numpy())
        length = min(map(len, courses), default=0)
        if not length:
            continue
        stacked, at = np.array([course[:length] for course in courses]), list(range(1, length + 1))
        mean = stacked.mean(axis=0)
        if len(courses) > 1:
            band = {"x": at, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
            traces.append(go.Scatter(**band, y=rounded(stacked.min(axis=0))))
            traces.append(
                go.Scatter(**band, y=rounded(stacked.max(axis=0)), fill="tonexty", fillcolor=_faint(style.colour))
            )
        hover = "trial %{x}: %{y:.3f}<extra>" + label + "</extra>"
        line = {"color": style.colour, "dash": style.dash, "shape": "hv", "width": 1.8}
        traces.append(go.Scatter(x=at, y=rounded(mean), mode="lines", line=line, hovertemplate=hover))
        if np.isfinite(mean[-1]):
            words.append(f"{system_label(system)} {number(float(mean[-1]))} after {length}")
    spec = figure_of(traces, x="Trials with a verdict", y="Best mean CCC of inner folds", height=320)
    caption = (
        "Best value so far of the trials that ran to their end. Of repeated searches the line is the mean and the band "
        "reaches from the lowest to the highest. Each system has the same budget."
    )
    panels = [Panel(spec, f"Best mean CCC: {'; '.join(words)}.")] if traces else []
    return "history", "Best value by number of trials", caption, panels


def _importance(searches: Sequence[FoundSearch]) -> _Drawn:
    panels = []
    for search in searches:
        rows = search.record["importance"]
        if not rows:
            continue
        names = [row["parameter"] for row in rows]
        colour = system_style(search.system).colour
        bars = go.Bar(
            x=rounded(row["fanova"] for row in rows),
            y=list(range(len(rows))),
            orientation="h",
            marker={"color": [colour if row["matters"] else NEUTRAL for row in rows], "opacity": 0.8},
            text=[plain(name) for name in names],
            textposition="none",
            hovertemplate="%{text}: %{x:.2f} of the variance<extra></extra>",
        )
        spec = figure_of([bars], x="Share of the variance of CCC", height=90 + 28 * len(rows))
        label_rows(spec, names)
        spec["layout"]["xaxis"]["range"] = [0, 1]
        unclear = [row["parameter"] for row in rows if not row["matters"]]
        words = "; ".join(f"{row['parameter']} {row['fanova']:.2f}" for row in rows)
        what = f" The data cannot tell {', '.join(unclear)} from parameters without effect." if unclear else ""
        panels.append(Panel(spec, f"Importance: {words}.{what}", search.name))
    caption = (
        "fANOVA: the share of the variance of CCC over the space that a parameter explains alone. Grey: its PED-ANOVA "
        "does not exceed what 95 of 100 searches show whose values were shuffled, so that the data cannot tell it from "
        "a parameter without effect."
    )
    return "importance", "Which parameters matter", caption, panels


def _slices(systems: _Systems) -> _Drawn:
    parameters = dict.fromkeys(name for searches in systems.values() for s in searches for name in s.parameters)
    panels = []
    for parameter in list(parameters)[:MOST_SLICES]:
        traces = []
        logarithmic = False
        for system, searches in systems.items():
            shown = [s.complete for s in searches if parameter in s.parameters]
            trials = pd.concat(shown) if shown else pd.DataFrame({parameter: [], "value": []})
            trials = trials[trials[parameter].notna()]
            if trials.empty:
                continue
            logarithmic |= any("log" in s.record["space"].get(parameter, {}) for s in searches)
            x, style = trials[parameter], system_style(system)
            traces.append(
                go.Scatter(
                    x=_short(x),
                    y=rounded(trials["value"]),
                    mode="markers",
                    marker={"color": style.colour, "symbol": style.symbol, "size": 6, "opacity": 0.7},
                    hovertemplate="%{x}: %{y:.3f}<extra>" + plain(system_label(system)) + "</extra>",
                )
            )
        if traces:
            spec = figure_of(traces, x=parameter, y="Mean CCC", height=260)
            spec["layout"]["xaxis"]["type"] = "log" if logarithmic else "-"
            panels.append(Panel(spec, f"Mean CCC of complete trials by {parameter}.", parameter))
    caption = "A dot is a trial that ran to its end; the other parameters vary from dot to dot."
    return "slices", "CCC by each parameter", caption, panels


def _contour(systems: _Systems) -> _Drawn:
    panels = []
    for system, searches in systems.items():
        trials = pd.concat([search.complete for search in searches])
        space = searches[0].record["space"]
        numeric = [name for name in searches[0].parameters if "choice" not in space[name]]
        # The papers' own pair first, else the first two.
        names = sorted(numeric, key=lambda name: (name not in FIRST, name != FIRST[0]))[:2]
        trials = trials.dropna(subset=names)
        if len(names) < 2 or len(trials) < 8 or any(trials[name].nunique() < 2 for name in names):
            continue
        axes = []
        for name in names:
            values = trials[name].to_numpy(np.float64)
            axes.append(np.log10(values) if "log" in space[name] else values)
        sides = [np.linspace(axis.min(), axis.max(), GRID) for axis in axes]
        scaled = [(axis - axis.min()) / np.ptp(axis) for axis in axes]
        mesh = np.meshgrid(np.linspace(0, 1, GRID), np.linspace(0, 1, GRID))
        heights = griddata(np.column_stack(scaled), trials["value"].to_numpy(), tuple(mesh), method="linear")
        ends = [10**side if "log" in space[name] else side for name, side in zip(names, sides, strict=True)]
        surface = go.Contour(
            x=_short(ends[0]), y=_short(ends[1]), z=[rounded(row) for row in heights], ncontours=12,
            colorscale="Viridis", colorbar={"title": {"text": "CCC"}, "thickness": 10}, connectgaps=False,
            hovertemplate="%{x}, %{y}: %{z:.3f}<extra></extra>",
        )  # fmt: skip
        dots = go.Scatter(
            x=_short(trials[names[0]]), y=_short(trials[names[1]]), mode="markers", hoverinfo="skip",
            marker={"size": 4, "color": NEUTRAL},
        )  # fmt: skip
        spec = figure_of([surface, dots], x=names[0], y=names[1], height=300)
        for axis, name in zip(("xaxis", "yaxis"), names, strict=True):
            spec["layout"][axis]["type"] = "log" if "log" in space[name] else "linear"
        best = trials.sort_values("value").iloc[-1]
        words = f"{names[0]} {best[names[0]]:.3g} and {names[1]} {best[names[1]]:.3g}"
        panels.append(Panel(spec, f"CCC over both; the best trial has {words}.", system_label(system)))
    caption = (
        "Mean CCC between complete trials, by linear interpolation; dots are the trials, and nothing is shown beyond."
    )
    return "contour", "CCC over two parameters", caption, panels


def _parallel(systems: _Systems) -> _Drawn:
    panels = []
    for system, searches in systems.items():
        trials = pd.concat([search.complete for search in searches]).reset_index(drop=True)
        names = searches[0].parameters
        if len(trials) < 2 or len(names) < 2:
            continue
        space = searches[0].record["space"]
        heights = pd.DataFrame({name: _height(trials[name], "log" in space[name]) for name in names})
        heights["CCC"] = _height(trials["value"], False)
        ranks, traces, above = trials["value"].rank(pct=True), [], 2.0
        for floor, label, opacity, width in TIERS:
            chosen = heights[(ranks >= floor) & (ranks < above)].to_numpy()
            above = floor
            x, y = [], []
            for row in chosen:
                x += [*range(len(row)), None]
                y += [*rounded(row), None]
            line = {"color": system_style(system).colour, "width": width}
            traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, opacity=opacity, name=label, hoverinfo="name"))
        spec = figure_of(traces[::-1], x="", y="", height=280)
        ends = [*(f"{name}<br>{_ends(trials[name])}" for name in map(plain, names)), f"CCC<br>{_ends(trials['value'])}"]
        spec["layout"]["xaxis"] |= {
            "tickvals": list(range(len(ends))),
            "ticktext": ends,
            "range": [-0.3, len(names) + 0.3],
        }
        spec["layout"]["yaxis"] |= {"tickvals": [0, 1], "ticktext": ["low", "high"]}
        best = trials.sort_values("value").iloc[-1]
        words = ", ".join(f"{name} {best[name]}" for name in names)
        panels.append(Panel(spec, f"All parameters of each trial; the best has {words}.", system_label(system)))
    caption = "A line is a complete trial, through its value of each parameter; the best tenth is darkest."
    return "parallel", "All parameters of each trial", caption, panels


def _front(systems: _Systems) -> _Drawn:
    panels = []
    first = next(iter(systems.values()))[0]
    for cost in first.record["objectives"][1:]:
        column, traces, words = f"objective_{cost}", [], []
        for system, searches in systems.items():
            trials = pd.concat([search.complete for search in searches]).sort_values(column)
            front = trials[trials["value"] > trials["value"].cummax().shift(fill_value=-np.inf)]
            colour = system_style(system).colour
            for shown, mode, extra in (
                (trials, "markers", {"marker": {"color": colour, "size": 5, "opacity": 0.4}}),
                (front, "lines+markers", {"line": {"color": colour, "shape": "hv"}, "marker": {"size": 8}}),
            ):
                hover = "CCC %{y:.3f}, %{x:,}<extra></extra>"
                points = {"x": _short(shown[column]), "y": rounded(shown["value"])}
                traces.append(go.Scatter(**points, mode=mode, hovertemplate=hover, **extra))
            words += [
                f"{system_label(system)} {number(float(v))} at {c:,.3g}" for c, v in front[[column, "value"]].values
            ]
        spec = figure_of(traces, x=COSTS[cost], y="Mean CCC", height=320)
        panels.append(Panel(spec, f"Best at each cost: {'; '.join(words)}.", COSTS[cost]))
    caption = "Complete trials; the line joins those that no cheaper trial of the system reaches."
    return "front", "CCC against its cost", caption, panels


def _fresh(searches: Sequence[FoundSearch]) -> _Drawn:
    panels = []
    for search in searches:
        rows = search.record["retrained"]
        if not rows:
            continue
        at, colour = list(range(len(rows))), system_style(search.system).colour
        texts = [", ".join(f"{key} {_text(value)}" for key, value in row["params"].items()) for row in rows]
        means = [row["mean"] for row in rows]
        error = {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": colour,
            "array": rounded(row["high"] - row["mean"] for row in rows),
            "arrayminus": rounded(row["mean"] - row["low"] for row in rows),
        }  # fmt: skip
        fresh = go.Scatter(x=rounded(means), y=at, mode="markers", marker={"color": colour, "size": 9}, error_x=error,
                           text=texts, hovertemplate="fresh seeds %{x:.3f}: %{text}<extra></extra>")  # fmt: skip
        before = go.Scatter(
            x=rounded(row["search_value"] for row in rows), y=at, mode="markers",
            marker={"symbol": "x", "size": 8, "color": NEUTRAL}, hovertemplate="in the search %{x:.3f}<extra></extra>",
        )  # fmt: skip
        names = [f"trial {row['number']}" for row in rows]
        spec = figure_of([before, fresh], x="Mean CCC of inner folds", height=90 + 34 * len(rows))
        label_rows(spec, names)
        words = "; ".join(f"{number(row['search_value'])} became {number(row['mean'])}" for row in rows)
        panels.append(Panel(spec, f"With fresh seeds: {words}.", search.name))
    caption = (
        "The best trials, judged again on the same inner folds with seeds that the search did not use; crosses: their "
        "values in the search, for which they were chosen; whiskers: the 95% interval over the fresh seeds."
    )
    return "fresh", "What being the best was worth", caption, panels


def _height(values: pd.Series, logarithmic: bool) -> pd.Series:
    """Values between 0 and 1; choices by their order."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        values = pd.Series(pd.factorize(values.astype(str), sort=True)[0], index=values.index).astype(float)
    numbers = values.astype(float)
    if logarithmic:
        numbers = pd.Series(np.log10(numbers.to_numpy()), index=numbers.index)
    spread = float(numbers.max() - numbers.min())
    return (numbers - numbers.min()) / spread if spread else numbers * 0 + 0.5


def _ends(values: pd.Series) -> str:
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return ", ".join(plain(text) for text in sorted(set(values.dropna().astype(str))))
    return f"{values.min():.3g} to {values.max():.3g}"


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(values: Any) -> list[Any]:
    """Numbers with four digits, as all digits of thousands of points would make a page large."""
    return [float(f"{value:.4g}") if isinstance(value, int | float | np.number) else str(value) for value in values]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
