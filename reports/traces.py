"""One clip: what annotators wrote, what a few systems predicted, and what was planted there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfold.datasets.store import FeatureStore
from crossfold.reports.cells import Results, Setting
from crossfold.reports.figures import MAX_POINTS, TRUTH, Figure, figure_of, line_of, plain, rounded, variant_styles
from crossfold.reports.leaderboard import UNIMODAL, setting_variants
from crossfold.reports.palette import DCA, Style, translucent

SPAN_COLOURS = {
    "conflict": "#d5443a",
    "missing": "#7a7f87",
    "corrupted": "#c2a400",
    "complementary": "#1b9e77",
    "unlabelled": "#7a7f87",
}
MAX_LABELS = 8
"""With more spans than this in a clip, the chart shows numbers only and the words stand below it."""


@dataclass(frozen=True)
class Example:
    """The clip that is shown, and the variants beside its truth."""

    clip: str
    fold: int
    variants: tuple[str, ...]


def choose_example(results: Results, setting: Setting, store: FeatureStore) -> Example | None:
    """The reported clip with the most kinds of planted spans, and the best system of each kind.

    Kinds: unimodal, fusion without gate, fusion with gate; by mean CCC over the targets of the first fold that ran.
    """
    cells = results.cells
    done = cells[(cells["setting"] == setting.key) & (cells["status"] == "done")]
    if done.empty:
        return None
    fold = int(done["fold"].min())
    scores = done[done["fold"] == fold].groupby("variant")["ccc"].mean().sort_values(ascending=False)
    systems = setting_variants(results, setting)
    kinds: dict[int, str] = {}
    for variant in scores.index:
        system = systems[str(variant)]
        kinds.setdefault(0 if system.startswith(UNIMODAL) else 2 if system.endswith(DCA) else 1, str(variant))
    planted = store.spans.groupby("clip")[["kind", "modality"]].apply(lambda spans: len(spans.drop_duplicates()))
    clips = sorted(store.fold(fold).validation, key=lambda name: (-int(planted.get(name, 0)), name))
    return Example(clips[0], fold, tuple(kinds[kind] for kind in sorted(kinds)))


def clip_trace(results: Results, setting: Setting, store: FeatureStore, example: Example, target: str) -> Figure | None:
    """Truth and predictions (mean over seeds) of one clip, planted spans shaded and numbered."""
    clip = store.clip(example.clip)
    rows = store.rows(example.clip)
    column = store.targets.index(target)
    truth = np.where(store.valid[rows, column], store.labels[rows, column], np.nan)
    shown = np.unique(np.linspace(0, clip.frames - 1, min(clip.frames, MAX_POINTS)).astype(int))
    seconds = [round(float(frame) / clip.fps, 3) for frame in shown]
    lines = [line_of(seconds, rounded(truth[shown]), "annotation", Style(TRUTH, "solid"), width=2.6)]
    lines[0].meta = "truth"
    styles, key = variant_styles(results, setting), [("annotation", "")]
    for variant in example.variants:
        predicted = _seed_mean(results, setting, example, variant, target)
        if predicted is not None:
            name, colour = results.variants[variant], styles[variant].colour
            lines.append(line_of(seconds, rounded(predicted[shown]), name, Style(colour, "solid")))
            key.append((name, colour))
    if len(lines) == 1:
        return None
    figure = figure_of(lines, x="Time, s", y=target.capitalize(), height=340)
    spans = store.spans[store.spans["clip"] == example.clip].sort_values("start").to_dict("records")
    figure["layout"] |= _shading(spans, clip.fps)
    figure["layout"]["margin"]["t"] = 46 if spans else 12
    figure["layout"]["xaxis"]["range"] = [0, round(clip.frames / clip.fps, 3)]
    return Figure(
        id=f"trace-{target}",
        title=f"One clip, {target}: {example.clip}",
        caption=f"Annotation against predictions, mean over seeds, fold {example.fold}; "
        "chosen as the reported clip with the most kinds of planted spans, with the best system of each kind.",
        spec=figure,
        wide=True,
        spans=tuple(_in_words(span, clip.fps) for span in spans),
        key=tuple(key),
    )


def _seed_mean(
    results: Results, setting: Setting, example: Example, variant: str, target: str
) -> npt.NDArray[np.float64] | None:
    """float64 [frames]: the mean prediction over seeds of one clip; None where the cell did not report it."""
    cells = results.cells
    chosen = cells[
        (cells["setting"] == setting.key)
        & (cells["variant"] == variant)
        & (cells["target"] == target)
        & (cells["fold"] == example.fold)
        & (cells["status"] == "done")
    ]
    predictions = [results.records[str(cell_id)].predictions for cell_id in chosen["cell_id"]]
    found = [
        p.prediction[p.clip(example.clip), p.targets.index(target)] for p in predictions if example.clip in p.clips
    ]
    return np.mean(np.asarray(found, np.float64), axis=0) if found else None


def _shading(spans: Sequence[dict[Any, Any]], fps: float) -> dict[str, Any]:
    """Rectangles behind the lines, and their names above, on two levels so that neighbours never overlap."""
    shapes, annotations = [], []
    for number, span in enumerate(spans, start=1):
        colour = SPAN_COLOURS.get(str(span["kind"]), TRUTH)
        start, end = float(span["start"]) / fps, float(span["end"]) / fps
        shapes.append(
            {
                "type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
                "fillcolor": translucent(colour, 0.16), "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip
        words = f"{number} {plain(_kind(span))}" if len(spans) <= MAX_LABELS else str(number)
        annotations.append(
            {
                "x": (start + end) / 2, "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False,
                "yshift": 2 + 15 * (number % 2), "text": words, "font": {"size": 11}, "name": str(number),
            }
        )  # fmt: skip
    return {"shapes": shapes, "annotations": annotations}


def _kind(span: dict[Any, Any]) -> str:
    modality = "" if span["modality"] == "both" else f"{span['modality']} "
    return f"{modality}{span['kind']}"


def _in_words(span: dict[Any, Any], fps: float) -> str:
    detail = f" ({span['detail']})" if pd.notna(span["detail"]) and span["detail"] else ""
    return f"{_kind(span)}{detail}, {span['start'] / fps:.1f}–{span['end'] / fps:.1f} s"
