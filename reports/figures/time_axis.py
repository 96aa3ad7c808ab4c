"""What charts over the time of a clip share: colours, marks of the spans that are known, and which frames are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfold.reports.figures.base import TRUTH
from crossfold.reports.results.systems import translucent

SPAN_COLOURS = {
    "conflict": "#d5443a",
    "missing": "#7a7f87",
    "corrupted": "#c2a400",
    "complementary": "#1b9e77",
    "unlabelled": "#7a7f87",
}
MODALITY_COLOURS = {"audio": "#c2701e", "visual": "#3b6fc4", "text": "#1b9e77"}
POINTS = 300
"""Points of one line: a page may show many clips."""
EDGE = 0.025
"""Width of the marks along a map, as a share of it."""

Spans = Sequence[dict[Any, Any]]
"""Rows of a store's table of spans: start, end, kind, modality, detail."""


def shown_frames(frames: int) -> npt.NDArray[np.int_]:
    """The frames that a line goes through."""
    return np.unique(np.linspace(0, frames - 1, min(frames, POINTS)).astype(int))


def shade(spec: dict[str, Any], spans: Spans, fps: float, frames: int) -> None:
    """Shades the spans in a chart over the time of a clip, and numbers them."""
    shapes = [_rectangle(span, fps, y0=0, y1=1, alpha=0.16) for span in spans]
    spec["layout"] |= {"shapes": shapes, "annotations": _numbers(spans, fps)}
    spec["layout"]["margin"]["t"] = 38 if spans else 10
    spec["layout"]["xaxis"]["range"] = [0, round(frames / fps, 3)]


def mark_edges(spec: dict[str, Any], spans: Spans, fps: float, start: int, stop: int) -> None:
    """Marks the spans above and beside a map of the frames [start, stop) against themselves, and numbers them."""
    inside = [
        {**span, "start": max(start, span["start"]), "end": min(stop, span["end"]), "number": number}
        for number, span in enumerate(spans, start=1)
        if span["start"] < stop and span["end"] > start
    ]
    above = [_rectangle(span, fps, y0=1, y1=1 + EDGE, alpha=0.8) for span in inside]
    beside = [_turned(_rectangle(span, fps, y0=1, y1=1 + EDGE, alpha=0.8)) for span in inside]
    spec["layout"] |= {"shapes": above + beside, "annotations": _numbers(inside, fps, shift=9)}
    spec["layout"]["margin"] |= {"t": 46 if inside else 10, "r": 16}


def in_words(span: dict[Any, Any], fps: float) -> str:
    """A span as the key writes it: what of which modality, and when."""
    detail = f" ({span['detail']})" if pd.notna(span["detail"]) and span["detail"] else ""
    modality = "" if span["modality"] == "both" else f"{span['modality']} "
    return f"{modality}{span['kind']}{detail}, {span['start'] / fps:.1f}–{span['end'] / fps:.1f} s"


def _rectangle(span: dict[Any, Any], fps: float, *, y0: float, y1: float, alpha: float) -> dict[str, Any]:
    colour = SPAN_COLOURS.get(str(span["kind"]), TRUTH)
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": float(span["start"]) / fps, "x1": float(span["end"]) / fps,
        "y0": y0, "y1": y1, "fillcolor": translucent(colour, alpha), "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _turned(shape: dict[str, Any]) -> dict[str, Any]:
    """The same rectangle with its axes exchanged."""
    names = {"xref": "yref", "yref": "xref", "x0": "y0", "x1": "y1", "y0": "x0", "y1": "x1"}
    turned = {names.get(name, name): value for name, value in shape.items()}
    return turned | {"xref": "paper", "yref": "y"}


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
