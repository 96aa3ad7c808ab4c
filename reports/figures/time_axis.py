"""What charts over the time of a clip share: the clip, its colours, the marks of known spans, the frames drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.reports.figures.base import Key, Panel
from crossfold.reports.figures.charts import NEUTRAL, figure_of, line_of, rounded
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import Style, translucent

SPAN_COLOURS = {
    "conflict": "#d5443a",
    "missing": NEUTRAL,
    "corrupted": "#c2a400",
    "complementary": "#1b9e77",
    "unlabelled": NEUTRAL,
}
MODALITY_COLOURS = {"audio": "#c2701e", "visual": "#3b6fc4", "text": "#1b9e77"}
POINTS = 300
"""Points of one line: a page may show many clips."""
EDGE = 0.025
"""Width of the marks along a map, as a share of it."""

Spans = Sequence[dict[Any, Any]]
"""Rows of a store's table of spans: start, end, kind, modality, detail."""


@dataclass(frozen=True)
class ClipView:
    """One reported clip of a setting, and the variants and targets that are drawn over its time."""

    results: Results
    setting: Setting
    store: FeatureStore
    name: str
    fold: int
    variants: tuple[str, ...]
    targets: tuple[str, ...]

    @cached_property
    def info(self) -> ClipInfo:
        """Frames and frame rate of the clip."""
        return self.store.clip(self.name)

    @cached_property
    def spans(self) -> Spans:
        """What is known of the time of the clip, in order."""
        spans = self.store.spans
        return spans[spans["clip"] == self.name].sort_values("start").to_dict("records")

    @cached_property
    def frames(self) -> npt.NDArray[np.int_]:
        """The frames that a line goes through."""
        # Evenly spaced indices repeat in a clip of few frames.
        return np.unique(np.linspace(0, self.info.frames - 1, min(self.info.frames, POINTS)).astype(int))

    @cached_property
    def seconds(self) -> list[float]:
        """The times of `frames`."""
        return [round(float(frame) / self.info.fps, 2) for frame in self.frames]

    def records(self, variant: str, **where: object) -> list[CellRecord]:
        """The finished cells of a variant in the fold of the clip, in order of target and seed."""
        # A cell with several targets has a row for each.
        rows = self.results.rows(self.setting, status="done", variant=variant, fold=self.fold, **where)
        return [self.results.records[str(cell_id)] for cell_id in rows["cell_id"].unique()]


@dataclass(frozen=True)
class ModalityLine:
    """One line of a modality, from 0 to 1."""

    modality: str
    seconds: list[float]
    values: npt.NDArray[Any]
    label: str
    """In the key."""
    words: str
    """Its mean, for those who cannot see it."""


def modality_panel(view: ClipView, lines: Sequence[ModalityLine], title: str, y: str, alt: str) -> Panel:
    """One line per modality over the time of a clip, from 0 to 1. alt: what the chart shows, before the means."""
    colours = [MODALITY_COLOURS.get(line.modality, NEUTRAL) for line in lines]
    traces = [
        line_of(line.seconds, rounded(line.values), line.modality, Style(colour, "solid"))
        for line, colour in zip(lines, colours, strict=True)
    ]
    spec = figure_of(traces, x="Time, s", y=y, height=240)
    shade(spec, view)
    spec["layout"]["yaxis"]["range"] = [-0.02, 1.02]
    keys = tuple(Key(line.label, colour) for line, colour in zip(lines, colours, strict=True))
    return Panel(spec, f"{alt}: {'; '.join(line.words for line in lines)}.", title, keys)


def shade(spec: dict[str, Any], view: ClipView) -> None:
    """Shades the spans in a chart over the time of a clip, and numbers them."""
    fps = view.info.fps
    shapes = [_rectangle(span, fps, y0=0, y1=1, alpha=0.16) for span in view.spans]
    spec["layout"] |= {"shapes": shapes, "annotations": _numbers(view.spans, fps)}
    spec["layout"]["margin"]["t"] = 38 if view.spans else 10  # space for the numbers of the spans
    spec["layout"]["xaxis"]["range"] = [0, round(view.info.frames / fps, 3)]


def mark_edges(spec: dict[str, Any], view: ClipView, start: int, stop: int) -> None:
    """Marks the spans along two edges of a map of the frames [start, stop) against themselves, and numbers them."""
    fps = view.info.fps
    inside = [
        {**span, "start": max(start, span["start"]), "end": min(stop, span["end"]), "number": number}
        for number, span in enumerate(view.spans, start=1)
        if span["start"] < stop and span["end"] > start
    ]
    above = [_rectangle(span, fps, y0=1, y1=1 + EDGE, alpha=0.8) for span in inside]
    spec["layout"] |= {"shapes": above + [_turned(shape) for shape in above]}
    spec["layout"] |= {"annotations": _numbers(inside, fps, shift=9)}
    spec["layout"]["margin"] |= {"t": 46 if inside else 10, "r": 16}


def in_words(span: dict[Any, Any], fps: float) -> str:
    """A span as the key writes it: modality, kind, detail and time."""
    detail = f" ({span['detail']})" if pd.notna(span["detail"]) and span["detail"] else ""
    modality = "" if span["modality"] == "both" else f"{span['modality']} "
    return f"{modality}{span['kind']}{detail}, {span['start'] / fps:.1f}–{span['end'] / fps:.1f} s"


def _rectangle(span: dict[Any, Any], fps: float, *, y0: float, y1: float, alpha: float) -> dict[str, Any]:
    colour = SPAN_COLOURS.get(str(span["kind"]), NEUTRAL)
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": float(span["start"]) / fps, "x1": float(span["end"]) / fps,
        "y0": y0, "y1": y1, "fillcolor": translucent(colour, alpha), "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _turned(shape: dict[str, Any]) -> dict[str, Any]:
    """The same rectangle with its axes exchanged."""
    x, y = ({end: shape[f"{axis}{end}"] for end in "01"} for axis in "xy")
    return shape | {"xref": "paper", "yref": "y", "x0": y["0"], "x1": y["1"], "y0": x["0"], "y1": x["1"]}


def _numbers(spans: Spans, fps: float, shift: int = 0) -> list[dict[str, Any]]:
    """The numbers above the spans, on two levels so that neighbours never overlap."""
    return [
        {
            "x": float(span["start"] + span["end"]) / 2 / fps, "xref": "x", "y": 1, "yref": "paper",
            "yanchor": "bottom", "showarrow": False, "yshift": shift + 2 + 13 * (number % 2), "text": str(number),
            "font": {"size": 11},
        }
        for index, span in enumerate(spans, start=1)
        for number in [span.get("number", index)]
    ]  # fmt: skip
