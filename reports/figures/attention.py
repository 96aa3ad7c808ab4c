"""Attention maps of a clip, as cells saved them, and attention scores over time (000 Fig. 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from crossfold.platform.workspace.attention_maps import ClipMaps
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.reports.figures.base import Panel
from crossfold.reports.figures.charts import figure_of, plain
from crossfold.reports.figures.time_axis import ClipView, ModalityLine, mark_edges, modality_panel
from crossfold.reports.stats.formatting import listing, number

MOST_MAPS = 4
"""Maps of one system; those between single modalities come first."""
SEQUENTIAL = [[0, "#f1f3f5"], [0.5, "#7fb0dd"], [1, "#123f73"]]
DIVERGING = [[0, "#b5651d"], [0.5, "#f1f3f5"], [1, "#2f6fb3"]]
"""On a light page; the page has its own on a dark one."""
EVEN = 0.05
"""The least range of a scale, around the mean weight: a narrower scale would show noise as structure."""
SEQUENTIAL_MAP, DIVERGING_MAP = "sequential", "diverging"
"""`meta` of a map, by which the page picks its colours."""
CORRELATIONS = "joint_correlation"
OVER_MODALITIES = "modal_attention"

WORDS: Mapping[str, str] = {
    "cross_attention": "the softmax over the frames of a modality (columns) for each frame of the other one (rows), "
    "004 eq 2",
    "dot_attention": "softmax(Q K' / √E) over the frames that are read (columns) for each frame of the output (rows), "
    "mean over heads and layers, our readings of the rivals",
    CORRELATIONS: "C = tanh(X' W J / √d), frames of a modality (columns) against those of the joint features J "
    "(rows), 001 eqs 1-2, 002 eqs 2-4, mean over iterations",
    OVER_MODALITIES: "the softmax over the modalities of one frame, mean over heads",
}
"""Kind of a map, as `fusion_models/blocks/attention_maps.py` names it -> what it is and where it is printed."""

_Key = tuple[str, str, str]
_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _SystemMaps:
    """The maps of one clip that one run of a system saved."""

    view: ClipView
    system: str
    record: CellRecord
    saved: ClipMaps

    def seconds(self, cells: int) -> list[float]:
        """The middles of the cells of a map."""
        length = self.saved.stop - self.saved.start
        return [round((self.saved.start + (at + 0.5) * length / cells) / self.view.info.fps, 2) for at in range(cells)]

    def damaged(self, cells: int) -> npt.NDArray[np.bool_]:
        """Whether the middle of a cell is in a span of damage: missing, corrupted or conflict."""
        at = np.array(self.seconds(cells)) * self.view.info.fps
        inside = np.zeros(cells, bool)
        for span in self.view.spans:
            if span["kind"] in ("missing", "corrupted", "conflict"):
                inside |= (at >= span["start"]) & (at < span["end"])
        return inside


def map_panels(view: ClipView) -> tuple[list[Panel], str]:
    """Scores over time and maps of each variant, and the sentences below them, which also name what was not saved.

    One run per variant is shown, that of the first target and seed: the signs of correlations differ between runs.
    """
    lines: list[Panel] = []
    heats: list[Panel] = []
    shown, without, absent = [], [], []
    for variant in view.variants:
        name = view.results.variants[variant]
        record = _record(view, variant)
        if record is None:
            absent.append(name)
            continue
        maps = _SystemMaps(view, name, record, (record.predictions.maps or {})[view.name])
        if not maps.saved.maps:
            without.append(name)
            continue
        for panels, added in zip((lines, heats), _panels_of(maps), strict=True):
            panels += added
        shown.append(maps)
    if heats:
        # Maps are higher than lines: in one row with them they would leave holes.
        heats[0] = replace(heats[0], breaks=True)
    return [*lines, *heats], _sentences(shown, without, absent)


def _record(view: ClipView, variant: str) -> CellRecord | None:
    """The first run, by target and seed, that saved maps of the clip."""
    records = [record for target in view.targets for record in view.records(variant, target=target)]
    return next((record for record in records if view.name in (record.predictions.maps or {})), None)


def _panels_of(system: _SystemMaps) -> tuple[list[Panel], list[Panel]]:
    """Lines over time, and maps."""
    maps = system.saved.maps
    panels = []
    for query in dict.fromkeys(query for kind, query, _ in maps if kind == OVER_MODALITIES):
        weights = {k: v for (kind, q, k), v in maps.items() if kind == OVER_MODALITIES and q == query}
        panels.append(_lines(system, f"{system.system}: modalities that {query} attends to", "Weight", weights))
    between = {key: values for key, values in maps.items() if key[0] != OVER_MODALITIES}
    if between:
        panels.append(_lines(system, f"Attention scores of {system.system}", "Score", _scores(between)))
    # Maps between single modalities first, then those with the joint features, then those of a modality with itself.
    chosen = sorted(between, key=lambda key: ("joint" in key[1:], key[2] == "joint", key[1] == key[2], key))
    return panels, [_heat(system, key, between[key].astype(float)) for key in chosen[:MOST_MAPS]]


def _scores(maps: Mapping[_Key, _Array]) -> dict[str, _Array]:
    """Modality -> how much its frames are read, 0 to 1 (000 Fig. 1): the mean of a column, of sizes where signed."""
    columns: dict[str, list[_Array]] = {}
    for (kind, _, key), values in maps.items():
        sizes = np.abs(values.astype(float)) if kind == CORRELATIONS else values.astype(float)
        columns.setdefault(key, []).append(_mean(sizes))
    scores = {}
    for key, found in sorted(columns.items()):
        score = _mean(np.stack(found))
        low, high = float(np.nanmin(score)), float(np.nanmax(score))
        # Maps are float16, so a range of less than a hundredth may be rounding, which must not fill the scale.
        even = high - low <= 0.01 * high
        scores[key] = np.where(np.isnan(score), np.nan, 0.5) if even else (score - low) / (high - low)
    return scores


def _mean(values: _Array) -> _Array:
    """Mean over the rows; NaN where no row has a number, about which `nanmean` would warn."""
    mean: _Array = np.ma.masked_invalid(values).mean(axis=0).filled(np.nan)
    return mean


def _lines(system: _SystemMaps, title: str, y: str, lines: Mapping[str, _Array]) -> Panel:
    drawn = []
    for modality, values in lines.items():
        words = f"{modality} {_split(values.astype(float), system.damaged(len(values)))}"
        drawn.append(ModalityLine(modality, system.seconds(len(values)), values, modality, words))
    return modality_panel(system.view, drawn, title, y, f"{title} over time, from 0 to 1")


def _split(values: _Array, damaged: npt.NDArray[np.bool_]) -> str:
    """The mean of some cells, apart for damaged and other ones where there are both."""
    parts = [values[mask & ~np.isnan(values)] for mask in (damaged, ~damaged)]
    if all(len(part) for part in parts):
        return f"mean {number(float(parts[0].mean()))} in damaged spans, {number(float(parts[1].mean()))} elsewhere"
    return f"mean {number(float(np.nanmean(values)))}"


def _heat(system: _SystemMaps, key: _Key, values: _Array) -> Panel:
    kind, query, read = key
    saved, fps = system.saved, system.view.info.fps
    cells, seconds = len(values), system.seconds(len(values))
    signed = kind == CORRELATIONS
    if not signed:
        values = values / np.nanmean(values)  # softmax weights shrink with the window; their multiples do not
    low, high = np.nanpercentile(values, [1, 99])  # single outliers would take the whole scale
    ends = (-max(-low, high, EVEN), max(-low, high, EVEN)) if signed else (min(low, 1 - EVEN), max(high, 1 + EVEN))
    of = "correlation" if signed else "times the mean weight"
    heat = go.Heatmap(
        z=[[float(f"{value:.3g}") if np.isfinite(value) else None for value in row] for row in values],
        x=seconds,
        y=seconds,
        zmin=round(float(ends[0]), 4),
        zmax=round(float(ends[1]), 4),
        colorscale=DIVERGING if signed else SEQUENTIAL,
        hovertemplate=f"{plain(query)} %{{y}} s, {plain(read)} %{{x}} s: %{{z}}<extra>{of}</extra>",
        hoverongaps=False,
        colorbar={
            "orientation": "h", "thickness": 8, "outlinewidth": 0, "len": 1.0, "xpad": 0, "y": -0.2, "yanchor": "top",
            "nticks": 5, "title": {"text": of.capitalize(), "side": "bottom"},
        },
        meta=DIVERGING_MAP if signed else SEQUENTIAL_MAP,
    )  # fmt: skip
    names = [plain(f"{name.capitalize()} frame, s") for name in (read, query)]
    spec = figure_of([heat], x=names[0], y=names[1], height=400)
    mark_edges(spec, system.view, saved.start, saved.stop)
    ends_of_time = [round(saved.start / fps, 3), round(saved.stop / fps, 3)]
    for axis in ("xaxis", "yaxis"):
        spec["layout"][axis] |= {"range": ends_of_time, "showgrid": False}
    row, column = np.unravel_index(np.nanargmax(np.abs(values)), values.shape)
    title = (
        f"{system.system}: {read} {'frames against' if signed else 'frames that'} {query}{'' if signed else ' reads'}"
    )
    peak = f"at {query} {seconds[row]:.1f} s and {read} {seconds[column]:.1f} s"
    alt = (
        f"Map of {title}, {cells} x {cells} cells; across {read} frames and up {query} frames, "
        f"{ends_of_time[0]:.1f} to {ends_of_time[1]:.1f} s. Largest: "
        f"{number(float(values[row, column]))} {of}, {peak}; "
        f"over the {read} frames, {'sizes, ' if signed else ''}{_split(_mean(np.abs(values)), system.damaged(cells))}."
    )
    return Panel(spec, alt, title)


def _sentences(shown: Sequence[_SystemMaps], without: Sequence[str], absent: Sequence[str]) -> str:
    """What the maps are, which run and windows they come from, and which systems have none."""
    words = []
    if shown:
        first = shown[0]
        recipe, fps = first.record.cell.recipe, first.view.info.fps
        window = recipe.window * recipe.clip.frames
        words += [
            "Attention maps are of one run per system, at its best epoch.",
            *map(_run_sentence, shown),
            f"Windows of {window} frames lie on the diagonal, {first.saved.start / fps:.1f} to "
            f"{first.saved.stop / fps:.1f} s of the clip; where none holds both frames there is no colour. Colour ends "
            "at the outermost 1% of cells.",
        ]
        kinds = {kind for system in shown for kind, _, _ in system.saved.maps}
        if kinds != {OVER_MODALITIES}:
            words.append(
                "Scores: how much the frames of a modality are read, the mean of a column"
                + (" (of sizes, where maps are signed)" if CORRELATIONS in kinds else "")
                + ", scaled to 0-1 over the clip as in 000 Fig. 1."
            )
    if without:
        words.append(f"No attention between frames in {listing(without)}.")
    if absent:
        words.append(f"The cells of {listing(absent)} saved no attention maps of this clip.")
    return "".join(f" {sentence}" for sentence in words)


def _run_sentence(system: _SystemMaps) -> str:
    cell, epoch = system.record.cell, system.record.result["selection"]["best_epoch"]
    what = "; ".join(WORDS[kind] for kind in dict.fromkeys(kind for kind, _, _ in system.saved.maps))
    run = f"{cell.target}, seed {cell.seed}, epoch {epoch}, {system.record.cell_id[:6]}"
    return f"{system.system} ({run}): {what}."
