"""One clip: what annotators wrote, what a few systems predicted, and what was planted there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfold.datasets.store import FeatureStore
from crossfold.platform.metrics import ccc_of, moments
from crossfold.reports.budget import setting_variants
from crossfold.reports.cells import Results, Setting
from crossfold.reports.figures import (
    MAX_POINTS,
    TRUTH,
    Figure,
    Key,
    Panel,
    figure_of,
    line_of,
    rounded,
    variant_styles,
)
from crossfold.reports.leaderboard import UNIMODAL
from crossfold.reports.palette import DCA, Style, translucent
from crossfold.reports.values import number

SPAN_COLOURS = {
    "conflict": "#d5443a",
    "missing": "#7a7f87",
    "corrupted": "#c2a400",
    "complementary": "#1b9e77",
    "unlabelled": "#7a7f87",
}


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
    """Truth and prediction (mean over seeds) of one clip, planted spans shaded and numbered; one panel a system."""
    clip = store.clip(example.clip)
    rows = store.rows(example.clip)
    column = store.targets.index(target)
    label, valid = np.asarray(store.labels[rows, column]), np.asarray(store.valid[rows, column])
    shown = np.unique(np.linspace(0, clip.frames - 1, min(clip.frames, MAX_POINTS)).astype(int))
    seconds = [round(float(frame) / clip.fps, 3) for frame in shown]
    spans = store.spans[store.spans["clip"] == example.clip].sort_values("start").to_dict("records")
    predictions = {v: _seed_mean(results, setting, example, v, target) for v in example.variants}
    drawn = {variant: values for variant, values in predictions.items() if values is not None}
    if not drawn:
        return None
    truth = rounded(np.where(valid, label, np.nan)[shown])
    ends = np.concatenate([label[valid], *(values[shown] for values in drawn.values())])
    margin = 0.04 * float(np.ptp(ends)) or 0.01
    styles, panels = variant_styles(results, setting), []
    for variant, values in drawn.items():
        name, colour = results.variants[variant], styles[variant].colour
        annotation = line_of(seconds, truth, "annotation", Style(TRUTH, "solid"), width=2)
        annotation.meta = "truth"
        prediction = line_of(seconds, rounded(values[shown]), name, Style(colour, "solid"))
        spec = figure_of([annotation, prediction], x="Time, s", y=target.capitalize(), height=260)
        spec["layout"] |= _shading(spans, clip.fps)
        spec["layout"]["margin"]["t"] = 38 if spans else 10
        spec["layout"]["xaxis"]["range"] = [0, round(clip.frames / clip.fps, 3)]
        spec["layout"]["yaxis"]["range"] = rounded([ends.min() - margin, ends.max() + margin])
        score = f"{name}, CCC {number(float(ccc_of(moments(values, label, valid))))} on this clip"
        panels.append(Panel(spec, f"Annotated and predicted {target} of one clip. {score}.", key=(Key(score, colour),)))
    return Figure(
        id=f"trace-{target}",
        title=f"One clip, {target}: {example.clip}",
        caption=f"Annotation against prediction, mean over seeds, fold {example.fold}; "
        "chosen as the reported clip with the most kinds of planted spans, with the best system of each kind.",
        panels=tuple(panels),
        key=(
            Key("annotation", ""),
            *(
                Key(f"{index} {_in_words(span, clip.fps)}", SPAN_COLOURS.get(str(span["kind"]), TRUTH), "fill")
                for index, span in enumerate(spans, start=1)
            ),
        ),
        wide=True,
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
    """Rectangles behind the lines, and their numbers above, on two levels so that neighbours never overlap."""
    shapes, annotations = [], []
    for index, span in enumerate(spans, start=1):
        colour = SPAN_COLOURS.get(str(span["kind"]), TRUTH)
        start, end = float(span["start"]) / fps, float(span["end"]) / fps
        shapes.append(
            {
                "type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
                "fillcolor": translucent(colour, 0.16), "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip
        annotations.append(
            {
                "x": (start + end) / 2, "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False,
                "yshift": 2 + 13 * (index % 2), "text": str(index), "font": {"size": 11},
            }
        )  # fmt: skip
    return {"shapes": shapes, "annotations": annotations}


def _kind(span: dict[Any, Any]) -> str:
    modality = "" if span["modality"] == "both" else f"{span['modality']} "
    return f"{modality}{span['kind']}"


def _in_words(span: dict[Any, Any], fps: float) -> str:
    detail = f" ({span['detail']})" if pd.notna(span["detail"]) and span["detail"] else ""
    return f"{_kind(span)}{detail}, {span['start'] / fps:.1f}–{span['end'] / fps:.1f} s"
