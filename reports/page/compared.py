"""What the page needs to compare a few systems: every pair's gain, scores of videos, traces, and errors by event."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.metrics import ccc_of
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.predictions import read_predictions
from crossfold.reports.figures.base import variant_styles
from crossfold.reports.page.drilldown import DIGITS, group_anchors
from crossfold.reports.results.comparable import comparable_variants, gain_over, setting_targets
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import MARKS, Style
from crossfold.reports.stats.formatting import gain_text, p_text

Floats = npt.NDArray[np.float64]
MOST_SYSTEMS = 12
"""Systems that a reader may choose from, the best ones: the predictions of each are read."""
POINTS = 200
"""Points of a trace."""
ELSEWHERE = "no planted event"


def comparison_data(
    results: Results, setting: Setting, store: FeatureStore | None, clips: Sequence[str]
) -> dict[str, Any]:
    """The systems that a reader may compare, best first, and what the page shows of any two; empty with fewer than two.

    clips: names of reported clips whose traces are shown. Scores and traces are packed like the curves of cells: two
    digits of base 62 of thousandths above -1, clipped to -1..1.
    """
    scores = comparable_variants(results, setting)
    variants = [str(variant) for variant in scores.mean().sort_values(ascending=False).index][:MOST_SYSTEMS]
    if len(variants) < 2:
        return {}
    targets, styles, anchors = (
        setting_targets(results, setting),
        variant_styles(results, setting),
        group_anchors(results),
    )
    runs = {variant: [runs_of(results, setting, variant, target) for target in targets] for variant in variants}
    gains = {
        f"{a},{b}": gain_over(results, setting, runs[variants[a]], runs[variants[b]])
        for a, b in combinations(range(len(variants)), 2)
    }
    videos, by_video = _video_scores(runs, targets)
    return {
        # With line and mark: a system and its gated version have one colour.
        "systems": [
            [results.variants[v], styles[v].colour, styles[v].stroke, MARKS[styles[v].symbol], is_open(styles[v])]
            for v in variants
        ],
        "targets": targets,
        "groups": {target: [anchors[setting.key, variant, target] for variant in variants] for target in targets},
        "pairs": {
            key: [gain_text(gain), p_text(gain.p), gain.sign if gain.judged else None]
            for key, gain in gains.items()
            if gain
        },
        "videos": videos,
        "by_video": by_video,
        **(_over_time(results, setting, store, variants, clips) if store else {"clips": [], "events": []}),
    }


def _video_scores(
    runs: Mapping[str, Sequence[Sequence[Any]]], targets: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Names of videos, and for each target and system their CCC, mean over the runs that scored them."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for variant, groups in runs.items():
        for target, group in zip(targets, groups, strict=True):
            for run in group:
                for video, score in zip(run.videos, np.atleast_1d(ccc_of(run.moments)), strict=True):
                    found[variant, target][video].append(float(score))
    videos = sorted({video for scores in found.values() for video in scores})
    packed_scores = {
        target: [packed(np.array([np.mean(found[v, target].get(video) or [np.nan]) for video in videos])) for v in runs]
        for target in targets
    }
    return videos, packed_scores


def _over_time(
    results: Results, setting: Setting, store: FeatureStore, variants: Sequence[str], clips: Sequence[str]
) -> dict[str, Any]:
    """Traces of the shown clips, and the squared error of each system within each kind of event, in the first fold."""
    done = results.rows(setting, status="done")
    fold = int(done["fold"].min())
    targets = setting_targets(results, setting)
    shown: list[dict[str, Any]] = [_clip(store, name, targets) for name in clips]
    sums: dict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for at, variant in enumerate(variants):
        rows = done[(done["variant"] == variant) & (done["fold"] == fold)]
        for target in targets:
            cells = [results.records[str(cell)] for cell in rows.loc[rows["target"] == target, "cell_id"].unique()]
            means = _mean_predictions(cells, target)
            for name, values in means.items():
                column = store.targets.index(target)
                label = np.asarray(store.labels[store.rows(name), column], np.float64)
                valid = np.asarray(store.valid[store.rows(name), column])
                for event, inside in _events(store, name, label, valid).items():
                    pair = sums[event, target, at]
                    pair[0] += float(((values - label)[inside] ** 2).sum())
                    pair[1] += int(inside.sum())
            for clip in shown:
                trace = means.get(clip["name"])
                clip["traces"][target].append("" if trace is None else packed(trace[_frames(len(trace))]))
    events = sorted({event for event, _, _ in sums}, key=lambda event: (event == ELSEWHERE, event))
    return {
        "clips": shown,
        "events": [
            [
                event,
                int(sums[event, targets[0], 0][1]),
                {target: [_ratio(*sums[event, target, at]) for at in range(len(variants))] for target in targets},
            ]
            for event in events
        ],
    }


def _clip(store: FeatureStore, name: str, targets: Sequence[str]) -> dict[str, Any]:
    info, spans = store.clip(name), store.spans
    truth = {}
    for target in targets:
        column = store.targets.index(target)
        label = np.asarray(store.labels[store.rows(name), column], np.float64)
        label[~np.asarray(store.valid[store.rows(name), column])] = np.nan
        truth[target] = packed(label[_frames(len(label))])
    return {
        "name": name,
        "seconds": round(info.frames / info.fps, 2),
        "truth": truth,
        "traces": {target: [] for target in targets},
        "spans": [
            [str(span["kind"]), round(span["start"] / info.fps, 2), round(span["end"] / info.fps, 2)]
            for span in spans[spans["clip"] == name].to_dict("records")
        ],
    }


def _mean_predictions(seeds: Sequence[CellRecord], target: str) -> dict[str, Floats]:
    """Clip -> the mean prediction over seeds, float64 [frames], of the clips that all seeds reported."""
    sums: dict[str, Floats] = {}
    for at, record in enumerate(seeds):
        # Not kept on the record: the predictions of hundreds of seeds of twelve systems would fill the memory.
        each = read_predictions(record.file("predictions.npz"))
        values = np.asarray(each.prediction[:, each.targets.index(target)], np.float64)
        own = {name: values[each.clip(name)] for name in each.clips if at == 0 or name in sums}
        sums = own if at == 0 else {name: sums[name] + own[name] for name in sums if name in own}
    return {name: total / len(seeds) for name, total in sums.items()}


def _events(store: FeatureStore, name: str, label: Floats, valid: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Kind of event -> the labelled frames in it: what was planted, and what is measured of the annotation."""
    spans = store.spans
    found: dict[str, npt.NDArray[Any]] = {}
    planted = np.zeros(len(label), bool)
    for span in spans[spans["clip"] == name].to_dict("records"):
        modality = "" if span["modality"] == "both" else f"{span['modality']} "
        inside = np.zeros(len(label), bool)
        inside[int(span["start"]) : int(span["end"])] = True
        planted |= inside
        key = f"{modality}{span['kind']}"
        found[key] = found.get(key, np.zeros(len(label), bool)) | (inside & valid)
    found[ELSEWHERE] = ~planted & valid
    if valid.sum() > 3:
        change = np.abs(np.gradient(np.where(valid, label, np.nan)))
        far = np.abs(label - label[valid].mean())
        for key, values in (("annotation changes fast", change), ("annotation far from its mean", far)):
            known = valid & np.isfinite(values)
            if known.any():
                found[key] = known & (values >= np.quantile(values[known], 0.75))
    return found


def is_open(style: Style) -> bool:
    """Whether a mark is drawn as an outline."""
    return style.symbol.endswith("-open")


def packed(values: Floats) -> str:
    """Two digits of base 62 for each value: thousandths above -1, of values clipped to -1..1; `..` is no number."""
    thousandths = [round(float(min(1.0, max(-1.0, v))) * 1000) + 1000 if np.isfinite(v) else None for v in values]
    return "".join(".." if n is None else DIGITS[n // 62] + DIGITS[n % 62] for n in thousandths)


def _frames(count: int) -> npt.NDArray[np.int_]:
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int))


def _ratio(total: float, count: float) -> float | None:
    return round(total / count, 5) if count else None
