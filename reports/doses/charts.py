"""Charts against the dose of a corpus: shares of the possible, gains, and how well gates detect damage."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from crossfold.reports.doses.scores import Axis, SystemScore
from crossfold.reports.figures.base import Figure, Key, Panel
from crossfold.reports.figures.charts import figure_of, plain, rounded
from crossfold.reports.results.systems import system_style
from crossfold.reports.stats.formatting import number

_Point = tuple[float, float, float]
"""A value with the ends of its interval."""


def dose_figures(axes: Sequence[Axis], label: str) -> list[Figure]:
    """One figure for each kind of number, with a panel for each parameter that varies alone."""
    kinds: tuple[tuple[str, str, str, str, Callable[[SystemScore], _Point | None]], ...] = (
        (
            "share",
            "Share of what a perfect use of both modalities would gain",
            "0 is the best fixed weight of each modality, 1 the ideal observer, which infers the damage from all of "
            "the clip; both are exact on synthetic clips, and estimated on puppets. Whiskers: 95 % intervals over "
            "videos and seeds.",
            "Share",
            _share,
        ),
        (
            "gain",
            "Gain of the gate against the dose",
            "CCC of the gated system minus that of the system without the gate, on the same videos and seeds. "
            "Whiskers: 95 % intervals over videos and seeds.",
            "Gain in CCC",
            _gain,
        ),
        (
            "auroc",
            "How well gates detect planted damage, against the dose",
            "AUROC of the weight of unattended features of a modality as a detector of its damaged frames, mean "
            "over gates and modalities; 0.5 is chance. Whiskers: 95 % intervals over seeds.",
            "AUROC",
            _auroc,
        ),
    )
    found = []
    for name, title, caption, unit, value_of in kinds:
        drawn = [(axis, _panel(axis, unit, value_of)) for axis in axes]
        panels = [panel for _, panel in drawn if panel is not None]
        systems = {score.system: score.name for axis in axes for point in axis.points for score in point.systems}
        shown = {s: n for s, n in systems.items() if any(value_of(x) for x in _scores(axes, s))}
        if panels:
            styles = {system: system_style(system) for system in shown}
            key = tuple(Key(n, styles[s].colour, styles[s].stroke) for s, n in shown.items())
            found.append(Figure(f"dose-{name}", title, caption, tuple(panels), key, wide=True, note=label))
    return found


def _scores(axes: Sequence[Axis], system: str) -> Iterator[SystemScore]:
    return (point.by_system[system] for axis in axes for point in axis.points if system in point.by_system)


def _share(score: SystemScore) -> _Point | None:
    if score.share is None:
        return None
    ends = score.share.interval
    return (score.share.mean, ends.low, ends.high) if ends else (score.share.mean,) * 3


def _gain(score: SystemScore) -> _Point | None:
    if score.gain is None:
        return None
    mean = score.gain.mean
    return (
        mean,
        mean if score.gain.low is None else score.gain.low,
        mean if score.gain.high is None else score.gain.high,
    )


def _auroc(score: SystemScore) -> _Point | None:
    if score.gate is None:
        return None
    mean, ends = score.gate.auroc, score.gate.interval
    return (mean, ends.low, ends.high) if ends else (mean,) * 3


def _panel(axis: Axis, unit: str, value_of: Callable[[SystemScore], _Point | None]) -> Panel | None:
    traces: list[Any] = []
    words = []
    systems = {score.system: score.name for point in axis.points for score in point.systems}
    for system, name in systems.items():
        values = [
            (x, value)
            for x, point in zip(axis.values, axis.points, strict=True)
            if system in point.by_system and (value := value_of(point.by_system[system])) is not None
        ]
        if len(values) < 2:  # one dose is no curve
            continue
        style = system_style(system)
        ends = [value for _, value in values]
        traces.append(
            go.Scatter(
                x=[x for x, _ in values],
                y=rounded(mean for mean, _, _ in ends),
                error_y={
                    "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                    "array": rounded(high - mean for mean, _, high in ends),
                    "arrayminus": rounded(mean - low for mean, low, _ in ends),
                },
                mode="lines+markers",
                name=plain(name),
                line={"color": style.colour, "dash": style.dash, "width": 1.8},
                marker={"symbol": style.symbol, "size": 7, "color": style.colour},
                hovertemplate="%{x}: %{y:.3f}<extra>" + plain(name) + "</extra>",
            )
        )  # fmt: skip
        words.append(f"{name} " + ", ".join(f"{number(mean)} at {x:g}" for x, (mean, _, _) in values))
    if not traces:
        return None
    spec = figure_of(traces, x=axis.parameter, y=unit, height=300)
    if axis.parameter in ("clips", "frames"):
        spec["layout"]["xaxis"] |= {"type": "log", "tickvals": axis.values, "ticktext": [f"{x:g}" for x in axis.values]}
    return Panel(
        spec, f"{unit} against {axis.parameter}: {'; '.join(words)}.", title=f"{axis.parameter} ({axis.fixed})"
    )
