"""Attention maps of a clip, as cells kept them, and attention scores over time (000 Fig. 1)."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.workspace.attention_maps import ClipMaps
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.reports.figures.base import TRUTH, Key, Panel, figure_of, line_of, plain, rounded
from crossfold.reports.figures.time_axis import MODALITY_COLOURS, Spans, mark_edges, shade
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style
from crossfold.reports.stats.formatting import listing, number

MOST_MAPS = 4
"""Maps of one system; those between single modalities come first."""
SEQUENTIAL = [[0, "#f1f3f5"], [0.5, "#7fb0dd"], [1, "#123f73"]]
DIVERGING = [[0, "#b5651d"], [0.5, "#f1f3f5"], [1, "#2f6fb3"]]
"""On a light page; the page has its own on a dark one."""
EVEN = 0.05
"""Weights closer to their mean than this look even: a scale stretched over less would show noise as structure."""
SEQUENTIAL_MAP, DIVERGING_MAP = "sequential", "diverging"
"""What the page knows maps by."""
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


@dataclass(frozen=True)
class _Clip:
    """What the charts of one system share."""

    name: str
    """Of the system."""
    kept: ClipMaps
    fps: float
    frames: int
    spans: Spans

    def seconds(self, cells: int) -> list[float]:
        """The middles of the cells."""
        length = self.kept.stop - self.kept.start
        return [round((self.kept.start + (at + 0.5) * length / cells) / self.fps, 2) for at in range(cells)]

    def damaged(self, cells: int) -> npt.NDArray[np.bool_]:
        """Whether the middle of a cell is in a span of damage: missing, corrupted or conflict."""
        at = np.array(self.seconds(cells)) * self.fps
        inside = np.zeros(cells, bool)
        for span in self.spans:
            if span["kind"] in ("missing", "corrupted", "conflict"):
                inside |= (at >= span["start"]) & (at < span["end"])
        return inside


def map_panels(
    results: Results,
    setting: Setting,
    store: FeatureStore,
    clip: str,
    fold: int,
    variants: Sequence[str],
    targets: Sequence[str],
    spans: Spans,
) -> tuple[list[Panel], str]:
    """Scores over time and maps of each variant, and the sentences below them, which say too what was not kept.

    One run a variant is shown, that of the first target and seed: the signs of correlations mean nothing across runs.
    """
    lines: list[Panel] = []
    heats: list[Panel] = []
    shown, none, absent = [], [], []
    info = store.clip(clip)
    for variant in variants:
        name = results.variants[variant]
        record = _record(results, setting, variant, fold, targets, clip)
        if record is None:
            absent.append(name)
            continue
        drawn = _Clip(name, (record.predictions.maps or {})[clip], info.fps, info.frames, spans)
        if not drawn.kept.maps:
            none.append(name)
            continue
        for into, made in zip((lines, heats), _panels_of(drawn), strict=True):
            into += made
        shown.append((name, record, drawn))
    if heats:
        # Maps are higher than lines: beside them they would leave holes.
        heats[0] = replace(heats[0], breaks=True)
    return [*lines, *heats], _sentences(shown, none, absent)


def _record(
    results: Results, setting: Setting, variant: str, fold: int, targets: Sequence[str], clip: str
) -> CellRecord | None:
    """The first run, by target and seed, that kept maps of the clip."""
    cells = results.cells
    chosen = cells[
        (cells["setting"] == setting.key)
        & (cells["variant"] == variant)
        & (cells["fold"] == fold)
        & (cells["status"] == "done")
    ]
    order = sorted(zip(chosen["target"].map(list(targets).index), chosen["seed"], chosen["cell_id"], strict=True))
    for _, _, cell_id in order:
        record = results.records[str(cell_id)]
        if clip in (record.predictions.maps or {}):
            return record
    return None


def _panels_of(clip: _Clip) -> tuple[list[Panel], list[Panel]]:
    """Lines over time, and maps."""
    maps = clip.kept.maps
    panels = []
    for query in dict.fromkeys(query for kind, query, _ in maps if kind == OVER_MODALITIES):
        weights = {k: v for (kind, q, k), v in maps.items() if kind == OVER_MODALITIES and q == query}
        panels.append(_lines(clip, f"{clip.name}: modalities that {query} attends to", "Weight", weights))
    between = {key: values for key, values in maps.items() if key[0] != OVER_MODALITIES}
    if between:
        panels.append(_lines(clip, f"Attention scores of {clip.name}", "Score", _scores(between)))
    chosen = sorted(between, key=lambda key: ("joint" in key[1:], key[2] == "joint", key[1] == key[2], key))
    return panels, [_heat(clip, key, between[key].astype(float)) for key in chosen[:MOST_MAPS]]


def _scores(maps: Mapping[_Key, np.ndarray]) -> dict[str, npt.NDArray[Any]]:
    """Modality -> how much its frames are read, 0 to 1 (000 Fig. 1): the mean of a column, of sizes where signed."""
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for (kind, _, key), values in maps.items():
        sizes = np.abs(values.astype(float)) if kind == CORRELATIONS else values.astype(float)
        columns.setdefault(key, []).append(_mean(sizes))
    scores = {}
    for key, found in sorted(columns.items()):
        score = _mean(np.stack(found))
        low, high = float(np.nanmin(score)), float(np.nanmax(score))
        # Two bytes a number are good to a thousandth: what differs by less than a hundredth is even.
        even = high - low <= 0.01 * high
        scores[key] = np.where(np.isnan(score), np.nan, 0.5) if even else (score - low) / (high - low)
    return scores


def _mean(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean over the rows; not a number where no row has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean: npt.NDArray[Any] = np.nanmean(values, axis=0)
    return mean


def _lines(clip: _Clip, title: str, y: str, lines: Mapping[str, npt.NDArray[Any]]) -> Panel:
    traces, keys, words = [], [], []
    for modality, values in lines.items():
        style = Style(MODALITY_COLOURS.get(modality, TRUTH), "solid")
        traces.append(line_of(clip.seconds(len(values)), rounded(values), modality, style))
        keys.append(Key(modality, style.colour))
        words.append(f"{modality} {_split(values.astype(float), clip.damaged(len(values)))}")
    spec = figure_of(traces, x="Time, s", y=y, height=240)
    shade(spec, clip.spans, clip.fps, clip.frames)
    spec["layout"]["yaxis"]["range"] = [-0.02, 1.02]
    return Panel(spec, f"{title} over time, from 0 to 1: {'; '.join(words)}.", title, tuple(keys))


def _split(values: npt.NDArray[Any], damaged: npt.NDArray[np.bool_]) -> str:
    """The mean of some cells, apart for damaged and other ones where there are both."""
    parts = [values[mask & ~np.isnan(values)] for mask in (damaged, ~damaged)]
    if all(len(part) for part in parts):
        return f"mean {number(float(parts[0].mean()))} in damaged spans, {number(float(parts[1].mean()))} elsewhere"
    return f"mean {number(float(np.nanmean(values)))}"


def _heat(clip: _Clip, key: _Key, values: npt.NDArray[Any]) -> Panel:
    kind, query, read = key
    cells, seconds = len(values), clip.seconds(len(values))
    signed = kind == CORRELATIONS
    if not signed:
        values = values / np.nanmean(values)
    low, high = np.nanpercentile(values, [1, 99])
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
    mark_edges(spec, clip.spans, clip.fps, clip.kept.start, clip.kept.stop)
    ends_of_time = [round(clip.kept.start / clip.fps, 3), round(clip.kept.stop / clip.fps, 3)]
    for axis in ("xaxis", "yaxis"):
        spec["layout"][axis] |= {"range": ends_of_time, "showgrid": False}
    row, column = np.unravel_index(np.nanargmax(np.abs(values)), values.shape)
    title = f"{clip.name}: {read} {'frames against' if signed else 'frames that'} {query}{'' if signed else ' reads'}"
    peak = f"at {query} {seconds[row]:.1f} s and {read} {seconds[column]:.1f} s"
    alt = (
        f"Map of {title}, {cells} x {cells} cells; across {read} frames and up {query} frames, "
        f"{ends_of_time[0]:.1f} to {ends_of_time[1]:.1f} s. Largest: "
        f"{number(float(values[row, column]))} {of}, {peak}; "
        f"over the {read} frames, {'sizes, ' if signed else ''}{_split(_mean(np.abs(values)), clip.damaged(cells))}."
    )
    return Panel(spec, alt, title)


def _sentences(shown: Sequence[tuple[str, CellRecord, _Clip]], none: Sequence[str], absent: Sequence[str]) -> str:
    """What the maps are, which run and windows they come from, and which systems have none."""
    words = []
    if shown:
        runs = []
        for name, record, drawn in shown:
            cell, epoch = record.cell, record.result["selection"]["best_epoch"]
            what = "; ".join(WORDS[kind] for kind in dict.fromkeys(kind for kind, _, _ in drawn.kept.maps))
            runs.append(f"{name} ({cell.target}, seed {cell.seed}, epoch {epoch}, {record.cell_id[:6]}): {what}.")
        _, record, clip = shown[0]
        recipe = record.cell.recipe
        window = recipe.window * recipe.clip.frames
        first, last = clip.kept.start / clip.fps, clip.kept.stop / clip.fps
        words += [
            "Attention maps are of one run a system, at its best epoch.",
            *runs,
            f"Windows of {window} frames lie on the diagonal, {first:.1f} to {last:.1f} s of the clip; where none "
            "holds both frames there is no colour. Colour ends at the outermost 1% of cells.",
        ]
        kinds = {kind for _, _, drawn in shown for kind, _, _ in drawn.kept.maps}
        if kinds != {OVER_MODALITIES}:
            words.append(
                "Scores: how much the frames of a modality are read, the mean of a column"
                + (" (of sizes, where maps are signed)" if CORRELATIONS in kinds else "")
                + ", scaled to 0-1 over the clip as in 000 Fig. 1."
            )
    if none:
        words.append(f"No attention between frames in {listing(none)}.")
    if absent:
        words.append(f"Attention maps of this clip were not kept by the cells of {listing(absent)}.")
    return "".join(f" {sentence}" for sentence in words)
