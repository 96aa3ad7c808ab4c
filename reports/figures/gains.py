"""What a gate adds to its base, as bars."""

import json
from collections.abc import Sequence

import plotly.graph_objects as go

from crossfold.reports.figures.base import TRUTH, Figure, Panel, figure_of, plain, rounded
from crossfold.reports.results.comparable import setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import DCA, GATED, system_label, system_style, translucent
from crossfold.reports.stats.bootstrap import Gain
from crossfold.reports.stats.formatting import gain_text


def gain_bars(gains: Sequence[tuple[str, str, str, Gain]], target: str) -> Figure | None:
    """Gain of the gate over its base as bars with paired intervals.

    gains: variant name, system, target, gain of each comparison; those of other targets are left out.
    """
    chosen = [(name, system, gain) for name, system, of, gain in gains if of == target]
    if not chosen:
        return None
    # One range for all targets, so that their charts can be compared.
    ends = [0.0, *(end for *_, gain in gains for end in (gain.mean, gain.low, gain.high) if end is not None)]
    margin = 0.08 * (max(ends) - min(ends))
    words = "; ".join(f"{name} {gain_text(gain)}" for name, _, gain in chosen)
    # Plotly draws the first bar at the bottom.
    chosen.reverse()
    means = [gain.mean for *_, gain in chosen]
    bars = go.Bar(
        x=rounded(means),
        y=[plain(name) for name, *_ in chosen],
        orientation="h",
        marker={"color": [translucent(system_style(system).colour, 0.75) for _, system, _ in chosen]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": rounded([(g.high if g.high is not None else g.mean) - g.mean for *_, g in chosen]),
            "arrayminus": rounded([g.mean - (g.low if g.low is not None else g.mean) for *_, g in chosen]),
            "thickness": 1.4,
            "width": 4,
            "color": TRUTH,
        },
        hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
    )
    figure = figure_of([bars], x=f"Gain in {target} CCC", y="", height=90 + 38 * len(chosen))
    figure["layout"]["bargap"] = 0.45
    figure["layout"]["yaxis"] |= {"ticks": "", "showgrid": False, "ticksuffix": " "}
    figure["layout"]["xaxis"] |= {
        "tickformat": "+.2f",
        "nticks": 7,
        "zeroline": True,
        "zerolinewidth": 1.5,
        "range": rounded([min(ends) - margin, max(ends) + margin]),
    }
    return Figure(
        id=f"gain-{target}",
        title=f"Gain of a gate over its base, {target}",
        caption="Mean over folds and seeds of the difference in CCC; whiskers are the 95% paired interval over videos.",
        panels=(Panel(figure, f"Gain in {target} CCC: {words}."),),
    )


def gate_pairs(results: Results, setting: Setting) -> list[tuple[str, str]]:
    """(base, gated) variants that differ by the gate alone: equal in every parameter that the base has."""
    systems = setting_variants(results, setting)
    params = {row["variant"]: row["params"] for row in results.cells[["variant", "params"]].to_dict("records")}
    parsed = {variant: json.loads(params[variant]) for variant in systems}
    pairs = []
    for gated, system in systems.items():
        bases = (system.removesuffix(DCA),) if system.endswith(DCA) else GATED.get(system, ())
        found = [
            [v for v, name in systems.items() if name == base and parsed[v].items() <= parsed[gated].items()]
            for base in bases
        ]
        pairs += [(base, gated) for base in next(filter(None, found), [])]
    return pairs


def gain_name(results: Results, setting: Setting, base: str, gated: str) -> str:
    """A pair as people read it: DCA names its base already."""
    systems = setting_variants(results, setting)
    name = results.variants[gated]
    return name if systems[gated].endswith(DCA) else f"{name} over {system_label(systems[base])}"
